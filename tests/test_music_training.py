"""Training on music: windows of clips, crops of spectrograms, tiny runs from end to end."""

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from audiodiff import train_diffusion as music
from audiodiff.codec import MusicCodec
from audiodiff.controls import CHANNELS, CONTROLS, check_controls, from_labels, to_channels
from audiodiff.corpus import read_folder
from audiodiff.data import Clips, load_clips, mel_crop
from audiodiff.labels import FRAME_SECONDS
from audiodiff.spectrogram import FrontEnd, log_channels, silence, waveform_to_mel
from audiodiff.train_diffusion import DiffusionConfig, train_diffusion
from audiodiff.train_vae import VAEConfig, mel_error_db, train_vae
from shared.config import read_config
from shared.errors import UserError
from shared.latents import encoder_files
from shared.linear_code import FILE as CODE_FILE
from shared.train_denoiser import Captions, rows_where
from shared.weights import load_state

RATE = 44100
FRONT_END = FrontEnd()
CONFIGS = Path(__file__).parents[1] / "audiodiff" / "configs"

VAE = """
art: music
model:
  in_channels: 8
  out_channels: 8
  block_out_channels: [8, 8, 8, 8]
  down_block_types: [DownEncoderBlock2D, DownEncoderBlock2D, DownEncoderBlock2D, DownEncoderBlock2D]
  up_block_types: [UpDecoderBlock2D, UpDecoderBlock2D, UpDecoderBlock2D, UpDecoderBlock2D]
  norm_num_groups: 4
  latent_channels: 4
crop: 16
code_clips: 4
code_frames: 64
loop: {steps: 2, batch_size: 2, sample_every: 2, warmup: 1}
"""
DIFFUSION = """
art: music
unet:
  sample_size: [8, 8]
  in_channels: 77
  out_channels: 4
  block_out_channels: [8, 16]
  down_block_types: [DownBlock2D, CrossAttnDownBlock2D]
  up_block_types: [CrossAttnUpBlock2D, UpBlock2D]
  layers_per_block: 1
  cross_attention_dim: 16
  attention_head_dim: 2
  norm_num_groups: 4
scheduler: {beta_schedule: squaredcos_cap_v2, prediction_type: v_prediction}
text: {hidden_size: 16, layers: 1, heads: 2}
max_tokens: 8
latents: code
prompts: [a low tone, a high tone]
loop: {steps: 4, batch_size: 4, sample_every: 4, checkpoint_every: 2, log_every: 1}
"""


def tone(pitch: int, seconds: float, rate: int = RATE) -> np.ndarray:
    """A decaying sine, louder on the left: (s 2)."""
    times = np.arange(round(seconds * rate)) / rate
    wave = 0.4 * np.exp(-times) * np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * times)
    return np.stack([wave, 0.5 * wave], axis=1).astype(np.float32)


def write_folder(folder: Path, seconds: tuple[float, ...] = (1.5, 1.1, 0.4, 1.5, 1.2, 1.3)) -> Path:
    folder.mkdir(exist_ok=True)
    rows = []
    for i, length in enumerate(seconds):
        pitch = 48 + 5 * i
        soundfile.write(folder / f"{i}.flac", tone(pitch, length), RATE)
        rows.append(
            {
                "file_name": f"{i}.flac",
                "text": f"a {'low' if i < 3 else 'high'} tone",
                "texts": [f"a {'low' if i < 3 else 'high'} tone", "a tone", "something"][
                    : 1 + i % 3
                ],
                "kind": "music" if i % 2 else "sound",
                "melody": [[0.0, length, pitch]],
                "beats": [0.0, 0.5, 1.0],
                "downbeats": [0.0],
                "meter": 4,
                "tempo": 120.0,
                "duration": length,
            }
        )
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture(scope="module")
def tones(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("music") / "tones")


@pytest.fixture(scope="module")
def with_vae(tones, tmp_path_factory) -> Path:
    """A model folder that has its autoencoder and its vocoder."""
    out = tmp_path_factory.mktemp("model")
    (out / "vae.yaml").write_text(VAE)
    train_vae(out / "vae.yaml", tones, out)
    return out


def test_an_autoencoder_needs_no_encoder(tones, tmp_path):
    (tmp_path / "vae.yaml").write_text(VAE.replace("model:\n", "model:\n  _encoder: linear code\n"))
    train_vae(tmp_path / "vae.yaml", tones, tmp_path)
    log = [json.loads(x) for x in (tmp_path / "runs/vae/log.jsonl").read_text().splitlines()]
    assert log[-1]["code_error"] == 0
    codec = MusicCodec.load(tmp_path)
    assert codec.vae.encoder is None and codec.code is not None
    samples = torch.from_numpy(tone(60, 1.5).T.copy())[None, :, : 4096 * 8]
    assert codec.decode(codec.encode(samples)).shape == samples.shape


def encode(samples: torch.Tensor) -> torch.Tensor:
    """A stand-in for a codec: the level of each 4096 samples in each channel, (1 2 1 t)."""
    return samples.unfold(2, 4096, 4096).square().mean(-1)[:, :, None]


@pytest.fixture
def clips(tones, tmp_path) -> Clips:
    (tmp_path / "weights").write_bytes(b"encoder")
    return load_clips(
        read_folder(tones), encode, [tmp_path / "weights"], tmp_path / "l.safetensors", 8
    )


def test_clips_lie_end_to_end_in_whole_frames(clips, tones):
    lengths = [clips.length(item) for item in range(6)]
    # The third is shorter than a window and filled up; of the others the begun frame is left out.
    assert lengths == [16, 11, 8, 16, 12, 13]
    rows = read_folder(tones)
    for item, row in enumerate(rows):
        samples = torch.from_numpy(soundfile.read(row.path, dtype="float32")[0].T.copy())
        whole = encode(samples[None, :, : len(samples[0]) // 4096 * 4096])[0].permute(2, 0, 1)
        kept = clips.latents[clips.first[item] : clips.first[item + 1]]
        assert torch.equal(kept[: len(whole)], whole.half())
        begun = item == 2
        assert not kept[len(whole) + begun :].any()


def test_dynamics_that_no_label_tells_are_measured(clips):
    place = list(CONTROLS).index("dynamics") + sum(list(CONTROLS.values())[:3])
    mean_square = clips.latents[:8].float().mean((1, 2))
    wanted = (10 * mean_square.log10() + 20) / 10
    assert clips.controls[:8, place].tolist() == pytest.approx(wanted.tolist(), abs=0.01)
    assert clips.controls[:8, place + 1].eq(1).all()


def test_windows_are_what_the_clip_has_there(clips, tones):
    found = clips.windows([0, 3], 8, [5, 0])
    assert found.latents.shape == (2, 2, 1, 8) and found.controls.shape == (2, CHANNELS, 1, 8)
    assert torch.equal(found.latents[0, :, 0], clips.latents[5:13, :, 0].T.float())
    row = read_folder(tones)[0]
    known = to_channels(from_labels(row.labels, 8, 5 * FRAME_SECONDS))
    told = known.any(1)
    torch.testing.assert_close(found.controls[0, told, 0], known[told], atol=1e-3, rtol=1e-3)


def test_random_windows_follow_their_seed_and_reach_everywhere(clips):
    one = clips.random_windows([0, 1, 3], 8, [7, 8, 9])
    other = clips.random_windows([1, 3], 8, [8, 9])
    assert torch.equal(one.latents[1:], other.latents)
    assert torch.equal(one.controls[1:], other.controls)
    many = clips.random_windows([0] * 400, 8, range(400))
    starts = {tuple(window.flatten().tolist()) for window in many.latents}
    assert len(starts) == 16 - 8 + 1
    masks = many.controls[:, 13, 0]
    assert masks.any(1).float().mean().item() == pytest.approx(0.85 * 0.5, abs=0.07)


def test_a_batch_is_quick(tmp_path):
    frames = 4000
    clips = Clips(
        torch.randn(frames, 32, 8).half(), torch.randn(frames, CHANNELS).half(), (0, frames)
    )
    clips.random_windows([0] * 32, 64, range(32))
    took = []
    for start in range(5):
        began = time.perf_counter()
        clips.random_windows([0] * 32, 64, range(start, start + 32))
        took.append(time.perf_counter() - began)
    assert min(took) < 0.05  # 4 ms on an idle core


def test_a_crop_is_a_part_of_the_whole(tones):
    path = tones / "0.flac"
    samples = torch.from_numpy(soundfile.read(path, dtype="float32")[0].T.copy())
    whole = waveform_to_mel(samples[None], FRONT_END)[0]
    length = samples.shape[1]
    for place, first in ((0.0, 0), (512 * 20.001 / (length - 32 * 512), 20)):
        crop = mel_crop(path, 32, place, FRONT_END)
        torch.testing.assert_close(crop, whole[:, :, first : first + 32], atol=2e-2, rtol=0)
    end = mel_crop(path, 32, 1.0, FRONT_END)
    assert end.shape == (2, 256, 32) and end.isfinite().all()
    short = mel_crop(tones / "2.flac", 64, 0.7, FRONT_END)
    assert torch.equal(short[:, :, -8:], silence(8, FRONT_END))
    assert not torch.equal(short[:, :, :8], silence(8, FRONT_END))


def test_a_crop_of_another_rate_or_in_mono_is_converted(tones, tmp_path):
    soundfile.write(tmp_path / "half.wav", tone(60, 1.5, 22050).mean(1), 22050)
    soundfile.write(tmp_path / "full.wav", np.repeat(tone(60, 1.5).mean(1)[:, None], 2, 1), RATE)
    half, full = (mel_crop(tmp_path / f"{n}.wav", 32, 0.5, FRONT_END) for n in ("half", "full"))
    assert half.shape == full.shape
    assert (half[0, :60] - full[0, :60]).abs().mean() < 0.1
    left, right = log_channels(half[None], FRONT_END)[0]
    assert torch.equal(left, right)
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(UserError, match=r"text\.wav"):
        mel_crop(tmp_path / "text.wav", 32, 0.5, FRONT_END)


def test_captions_are_drawn_among_the_clips_own():
    class Words:
        def tokenize(self, prompts):
            return torch.tensor([[len(prompt)] for prompt in prompts])

    captions = Captions.tokenize([("a",), ("bb", "ccc", "dddd")], Words())  # pyright: ignore[reportArgumentType]
    uniforms = torch.tensor([[0.5, 0.99], [0.5, 0.0], [0.5, 0.5], [0.5, 0.99], [0.05, 0.5]])
    assert captions.draw([0, 1, 1, 1, 1], uniforms, 0.1).tolist() == [[1], [2], [3], [4], [0]]
    labels = [{"kind": "sound"}, {"kind": "music"}, {}]
    assert rows_where(labels, {"kind": ["music"]}) == [1]
    assert rows_where(labels, {}) == [0, 1, 2]
    assert rows_where(labels, {}, {"kind": {"music": 3}}) == [0, 1, 1, 1, 2]
    assert rows_where(labels, {"kind": ["music"]}, {"kind": {"sound": 2}}) == [1]


def test_mel_error_is_in_decibels():
    noise = 0.1 * torch.randn(1, 2, 16384, generator=torch.Generator().manual_seed(0))
    quiet, loud = (waveform_to_mel(gain * noise, FRONT_END) for gain in (1, 10))
    assert mel_error_db(quiet, loud, FRONT_END) == pytest.approx(20, abs=0.5)  # the floor is near
    assert mel_error_db(loud, loud, FRONT_END) == 0


def test_training_makes_a_model_folder_and_resumes_exactly(tones, with_vae, tmp_path, monkeypatch):
    import shutil

    from shared.training import train

    log = [json.loads(x) for x in (with_vae / "runs/vae/log.jsonl").read_text().splitlines()]
    assert math.isfinite(log[-1]["mel_error_db"]) and log[-1]["code_error"] > 0
    assert (with_vae / "runs/vae/samples/000002.png").exists()

    (tmp_path / "diffusion.yaml").write_text(DIFFUSION)
    folders = [tmp_path / name for name in ("whole", "parts")]
    for folder in folders:
        shutil.copytree(with_vae / "vae", folder / "vae")
        shutil.copytree(with_vae / "vocoder", folder / "vocoder")
    whole, parts = folders
    train_diffusion(tmp_path / "diffusion.yaml", tones, whole)

    def killed(objective, make_batch, *args, **settings):
        def in_step_4(draws):
            if draws[0].seed >= 12:
                raise KeyboardInterrupt
            return make_batch(draws)

        return train(objective, in_step_4, *args, **settings)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(music, "train", killed)
        train_diffusion(tmp_path / "diffusion.yaml", tones, parts)
    with pytest.raises(UserError, match="--resume"):
        train_diffusion(tmp_path / "diffusion.yaml", tones, parts)
    train_diffusion(tmp_path / "diffusion.yaml", tones, parts, resume=True)

    states = [load_state(folder / "unet") for folder in folders]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    check_controls(whole)
    index = json.loads((whole / "model_index.json").read_text())
    assert index["_class_name"] == "DuotoneMusicPipeline"
    assert all((whole / name).is_dir() for name in (*list(index)[1:], "vocoder"))
    last = json.loads((whole / "runs/diffusion/log.jsonl").read_text().splitlines()[-1])
    assert set(last["caption_gap"]) == set(last["control_gap"]) == {"0.3", "1", "3", "10", "30"}
    assert last["control_gap"]["1"] != 0
    assert (whole / "runs/diffusion/samples/000004.png").exists()
    # Float16 latents of the linear code, and as many frames as the clips have.
    kept = load_file(whole / "runs/diffusion/latents-code.safetensors")["latents"]
    assert kept.dtype == torch.float16 and kept.shape == (16 + 11 + 8 + 16 + 12 + 13, 4, 8)


def test_latents_of_the_autoencoder_can_be_trained_on(tones, with_vae, tmp_path):
    text = DIFFUSION.replace("latents: code", "latents: vae\nwhere: {kind: [music]}")
    (tmp_path / "diffusion.yaml").write_text(text.replace("steps: 4", "steps: 1"))
    train_diffusion(tmp_path / "diffusion.yaml", tones, with_vae)
    assert (with_vae / "runs/diffusion/latents-vae.safetensors").exists()
    files = {path.name for path in encoder_files("vae", with_vae / "vae")}
    assert files == {"config.json", "diffusion_pytorch_model.safetensors", CODE_FILE}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("in_channels: 77", "in_channels: 4"), "77"),
        (("[8, 8]\n  in", "8\n  in"), "sample_size"),
        (("art: music", "art: image"), "art"),
        (("[8, 8]\n  in", "[4, 8]\n  in"), "8 rows"),
    ],
)
def test_faults_of_a_config_are_named(tones, with_vae, tmp_path, change, told):
    (tmp_path / "bad.yaml").write_text(DIFFUSION.replace(*change))
    with pytest.raises(UserError, match=told):
        train_diffusion(tmp_path / "bad.yaml", tones, with_vae)


def test_an_autoencoder_of_another_front_end_is_refused(tones, with_vae, tmp_path):
    (tmp_path / "vae.yaml").write_text(VAE + "front_end: {n_mels: 128}\n")
    with pytest.raises(UserError, match="front_end"):
        train_vae(tmp_path / "vae.yaml", tones, with_vae)
    (tmp_path / "vae.yaml").write_text(VAE.replace("crop: 16", "crop: 12"))
    with pytest.raises(UserError, match="multiples of 8"):
        train_vae(tmp_path / "vae.yaml", tones, with_vae)


def test_the_configs_are_valid():
    vae = read_config(CONFIGS / "vae.yaml", VAEConfig)
    diffusion = read_config(CONFIGS / "diffusion.yaml", DiffusionConfig)
    assert diffusion.shape == (vae.model["latent_channels"], 8, 64)
