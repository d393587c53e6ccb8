"""Vocoders: pitch, stereo image, silence and lengths come back; the network trains and is kept."""

import json
import math
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from tiny_music import write_tiny_music_model

from audiodiff import vocoder
from audiodiff.codec import MusicCodec
from audiodiff.griffin_lim import LADDER, griffin_lim, linear
from audiodiff.losses import log_mel_distance, mr_stft_distance
from audiodiff.spectrogram import (
    FrontEnd,
    StereoMel,
    mel_filters,
    silence,
    stft,
    unpack,
    waveform_to_mel,
)
from audiodiff.train_vocoder import VocoderConfig, example, train_vocoder
from audiodiff.vocoder import GriffinLim, NeuralGriffinLim, load_vocoder, write_vocoder
from shared.config import read_config
from shared.errors import UserError
from shared.models import CARRIED

FRONT_END = FrontEnd()
TINY = FrontEnd(n_fft=256, hop_length=64, n_mels=16)


def sine(frequency: float, samples: int, phase: float = 0.0) -> torch.Tensor:
    times = torch.arange(samples).double() / 44100
    return torch.sin(2 * math.pi * frequency * times + phase).float()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def music(samples: int = 512 * 100) -> torch.Tensor:
    """A chord to the left, a louder one to the right, unrelated noise that fades: (1 2 s)."""
    left = torch.stack([sine(f, samples, f) for f in (220, 277.2, 329.6)]).sum(0) / 12
    right = torch.stack([sine(f, samples, f) for f in (110, 440, 1320)]).sum(0) / 6
    chords = torch.stack([left + 0.2 * right, 0.3 * left + right])
    return (chords + noise(2, samples) * torch.linspace(1, 0, samples))[None]


def balance_db(samples: torch.Tensor) -> float:
    left, right = samples[0].square().sum(-1)
    return float(10 * torch.log10(left / right))


def width_db(samples: torch.Tensor) -> float:
    left, right = samples[0]
    ratio = (left - right).square().sum() / (left + right).square().sum()
    return float(10 * torch.log10(ratio))


def pitch(samples: torch.Tensor) -> float:
    """Hz of the highest peak of a spectrum, by a parabola through its logarithm."""
    n = 2**20
    window = torch.hann_window(len(samples), dtype=torch.float64)
    spectrum = torch.fft.rfft(samples.double() * window, n).abs().log()
    k = int(spectrum.argmax())
    a, b, c = spectrum[k - 1 : k + 2].tolist()
    return (k + (a - c) / (2 * (a - 2 * b + c))) * 44100 / n


@pytest.mark.parametrize("frequency", [220, 440, 997])
def test_a_sine_comes_back_at_its_pitch(frequency):
    tone = 0.3 * sine(frequency, 512 * 120)
    samples = torch.stack([tone, 0.5 * tone])[None]
    again = griffin_lim(waveform_to_mel(samples, FRONT_END), FRONT_END)
    for channel, level in zip(again[0, :, 8000:-8000], (1, 0.5), strict=True):
        assert abs(1200 * math.log2(pitch(channel) / frequency)) < 2
        true = 0.3 * level / math.sqrt(2)
        assert channel.square().mean().sqrt() == pytest.approx(true, rel=0.05)


def test_stereo_stays_stereo():
    samples = music()
    again = griffin_lim(waveform_to_mel(samples, FRONT_END), FRONT_END)
    assert balance_db(again) == pytest.approx(balance_db(samples), abs=0.3)
    assert width_db(again) == pytest.approx(width_db(samples), abs=0.7)
    swapped = griffin_lim(waveform_to_mel(samples.flip(1), FRONT_END), FRONT_END)
    assert balance_db(swapped) == pytest.approx(-balance_db(samples), abs=0.3)


@pytest.mark.parametrize("sign, lowest, highest", [(1, -200, -40), (-1, 25, 200)])
def test_one_signal_on_both_sides_stays_one(sign, lowest, highest):
    tone = music()[0, 0]
    samples = torch.stack([tone, sign * tone])[None]
    again = griffin_lim(waveform_to_mel(samples, FRONT_END), FRONT_END)
    assert lowest < width_db(again + torch.tensor([1e-9, 0])[:, None]) < highest


def test_griffin_lim_takes_a_mel_that_has_a_gradient():
    mel = torch.zeros(1, 2, 256, 16)
    found = griffin_lim(mel.clone().requires_grad_(), FRONT_END)
    assert not found.requires_grad and torch.equal(found, griffin_lim(mel, FRONT_END))


def log_mel(made: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    return log_mel_distance(made, true, FRONT_END)


def test_griffin_lim_comes_near():
    samples = music()
    mel = waveform_to_mel(samples, FRONT_END)
    for distance in (mr_stft_distance, log_mel):
        first = distance(griffin_lim(mel, FRONT_END, (), 0), samples).item()
        whole = distance(griffin_lim(mel, FRONT_END), samples).item()
        assert whole < 0.95 * first


@pytest.mark.parametrize("part", [2, 4, 8])
def test_the_lowest_frequencies_are_a_slower_signal(part):
    slower = replace(
        FRONT_END, n_fft=FRONT_END.n_fft // part, hop_length=FRONT_END.hop_length // part
    )
    tone = sine(300, 512 * 24)
    whole, slow = stft(tone[None], FRONT_END)[0], stft(tone[None, ::part], slower)[0]
    inside = slice(4, -4)
    torch.testing.assert_close(slow[:, inside], whole[: slower.bins, inside], atol=2e-3, rtol=0)


def test_each_rung_of_the_ladder_brings_it_nearer():
    samples = music()
    mel = waveform_to_mel(samples, FRONT_END)
    found = [
        log_mel(griffin_lim(mel, FRONT_END, LADDER[:rungs], 0), samples).item()
        for rungs in range(len(LADDER) + 1)
    ]
    assert found == sorted(found, reverse=True) and found[-1] < 0.9 * found[0]


def test_rungs_that_do_not_divide_the_hop_are_left_out():
    odd = replace(FRONT_END, n_fft=2064, hop_length=516)
    mel = waveform_to_mel(music(), odd)
    assert torch.equal(griffin_lim(mel, odd, LADDER), griffin_lim(mel, odd, LADDER[2:]))


def test_levels_spread_to_where_they_came_from():
    magnitudes = torch.zeros(1, 1025, 1)
    magnitudes[0, [20, 60, 200]] = torch.tensor([1.0, 0.5, 2.0])[:, None]
    level = mel_filters(FRONT_END) @ magnitudes
    pan = torch.full((1, 128, 1), 0.25)
    found, sides, widths = linear(StereoMel(level, pan, 2 * pan), FRONT_END)
    torch.testing.assert_close(found[0, [20, 60], 0], torch.tensor([1.0, 0.5]), atol=0.02, rtol=0)
    assert abs(found[0, 100:].argmax() + 100 - 200) <= 4  # one band is seven bins wide there
    torch.testing.assert_close(sides, torch.full((1, 1025, 1), 0.25))  # beyond the bands, too
    torch.testing.assert_close(widths, 2 * sides)


@pytest.mark.parametrize("frames", [1, 2, 7, 40])
def test_lengths_are_exact_and_silence_stays_silence(frames):
    mel = silence(frames, FRONT_END)[None]
    samples = griffin_lim(mel, FRONT_END)
    assert samples.shape == (1, 2, 512 * frames)
    assert samples.abs().max() < 1e-6
    again = NeuralGriffinLim(FRONT_END, dim=8, layers=1)(mel)
    assert again.shape == samples.shape
    assert again.abs().max() < 1e-6


def test_samples_do_not_depend_on_the_batch():
    mels = waveform_to_mel(torch.cat([music(8192), noise(1, 2, 8192)]), FRONT_END)
    assert torch.equal(griffin_lim(mels, FRONT_END)[1:], griffin_lim(mels[1:], FRONT_END))
    network = NeuralGriffinLim(FRONT_END, dim=16, layers=2).eval()
    assert torch.equal(network(mels)[1:], network(mels[1:]))


def band_error(level: torch.Tensor, mel: torch.Tensor) -> float:
    """How far levels (b bins t) are from those of the bands that a mel tells, natural logarithm."""
    wanted, floor = unpack(mel, FRONT_END).level, FRONT_END.log_floor
    found = mel_filters(FRONT_END) @ level
    return ((found + floor).log() - (wanted + floor).log()).abs().mean().item()


def test_what_a_network_finds_is_held_to_the_mel(monkeypatch):
    network = NeuralGriffinLim(FRONT_END, dim=16, layers=1)
    torch.nn.init.normal_(network.head.weight, std=0.5)  # as wrong as can be
    mel = waveform_to_mel(music(), FRONT_END)
    with torch.no_grad():
        held = band_error(network.spectra(mel)[0], mel)
        monkeypatch.setattr(vocoder, "HOLDS", 0)
        assert held < 0.25 * band_error(network.spectra(mel)[0], mel)


def test_an_untrained_network_begins_at_the_levels_of_the_bands():
    network = NeuralGriffinLim(FRONT_END, dim=16, layers=1)
    torch.nn.init.zeros_(network.head.weight)
    samples = 5 * noise(1, 2, 512 * 60) * torch.tensor([1.0, 0.1])[:, None]
    mel = waveform_to_mel(samples, FRONT_END)
    level, pan, width = network.spectra(mel)
    assert level.shape == pan.shape == width.shape == (1, 1025, 60)
    assert level.requires_grad and band_error(level, mel) < 0.1
    again = network(mel)
    assert not again.requires_grad
    assert balance_db(again) == pytest.approx(20, abs=1)


def test_the_carried_network_comes_nearer_than_griffin_lim():
    carried, front_end = load_vocoder(CARRIED["music"] / "vocoder")
    assert isinstance(carried, NeuralGriffinLim) and front_end == FRONT_END
    samples = music()
    mel = waveform_to_mel(samples, FRONT_END)
    plain = mr_stft_distance(griffin_lim(mel, FRONT_END), samples)
    # Half of this is white noise, whose bands it tells no better: log-mel is the evaluation's.
    assert mr_stft_distance(carried(mel), samples) < 0.9 * plain


def test_the_default_network_is_small():
    assert sum(p.numel() for p in NeuralGriffinLim(FRONT_END).parameters()) <= 1_200_000


def test_a_vocoder_s_folder_is_read_back(tmp_path):
    write_vocoder(tmp_path / "plain", TINY)
    loaded, front_end = load_vocoder(tmp_path / "plain")
    assert loaded == GriffinLim(TINY)
    assert front_end == TINY
    network = NeuralGriffinLim(TINY, dim=8, layers=2)
    write_vocoder(tmp_path / "network", TINY, network)
    again, front_end = load_vocoder(tmp_path / "network")
    assert front_end == TINY
    mel = waveform_to_mel(noise(1, 2, 4096), TINY)
    assert isinstance(again, NeuralGriffinLim)
    for found, known in zip(again.spectra(mel), network.spectra(mel), strict=True):
        torch.testing.assert_close(found, known, atol=1e-5, rtol=0.01)  # float16 on disk


@pytest.mark.parametrize(
    "change, message",
    [
        ({"_class_name": "HiFiGAN"}, "unknown vocoder 'HiFiGAN'"),
        ({"layers": 0}, "layers must be a number above 0"),
        ({"hop_length": None}, "hop_length must be a number"),
        ({"layers": 3}, "does not fit its config.json"),
    ],
)
def test_faulty_folders_are_refused(tmp_path, change, message):
    network = NeuralGriffinLim(TINY, dim=8, layers=2)
    write_vocoder(tmp_path, TINY, network)
    (tmp_path / "config.json").write_text(json.dumps({**network.config, **change}))
    with pytest.raises(UserError, match=message):
        load_vocoder(tmp_path)


CONFIG = """
art: music
dim: 16
layers: 1
decoded: 0
front_end: {n_fft: 256, hop_length: 64, n_mels: 16}
crop: 32
loop: {steps: STEPS, batch_size: 2, learning_rate: 0.01, warmup: 1, ema_decay: 0.5,
  anneal_from: 1.0, log_every: 1, checkpoint_every: 3, sample_every: 0, mixed_precision: "no"}
"""


@pytest.fixture
def clips(tmp_path):
    import soundfile

    lines = []
    for i in range(4):
        samples = music(8000 + 100 * i)[0].T.numpy().astype(np.float32)
        soundfile.write(tmp_path / f"{i}.wav", samples, 44100)
        lines.append(json.dumps({"file_name": f"{i}.wav", "text": "a chord"}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def losses(out):
    log = (out / "runs" / "vocoder" / "log.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in log if "loss" in json.loads(line)]


def test_training_lowers_the_loss_resumes_exactly_and_saves(clips, tmp_path):
    def run(steps, out, resume=False):
        config = tmp_path / "vocoder.yaml"
        config.write_text(CONFIG.replace("STEPS", str(steps)))
        train_vocoder(config, clips, tmp_path / out, resume)

    run(60, "whole")
    whole = losses(tmp_path / "whole")
    assert max(whole[-10:]) < 0.97 * whole[0]  # most of it is noise, which nobody can tell
    run(30, "parts")
    run(60, "parts", resume=True)
    assert losses(tmp_path / "parts") == whole
    loaded, front_end = load_vocoder(tmp_path / "whole" / "vocoder")
    assert isinstance(loaded, NeuralGriffinLim)
    assert front_end == TINY


def test_training_keeps_to_the_folder_s_front_end(clips, tmp_path):
    (tmp_path / "vocoder.yaml").write_text(CONFIG.replace("STEPS", "1"))
    write_vocoder(tmp_path / "out" / "vocoder", FRONT_END)
    with pytest.raises(UserError, match="must be equal"):
        train_vocoder(tmp_path / "vocoder.yaml", clips, tmp_path / "out")


DECODED = """
art: music
dim: 8
layers: 1
front_end: {n_mels: 64}
crop: 16
loop: {steps: 1, batch_size: 2, warmup: 1, log_every: 1, sample_every: 0, checkpoint_every: 0}
"""


@pytest.fixture
def out(tmp_path):
    """A run's folder that has its autoencoder."""
    write_tiny_music_model(tmp_path / "model")
    for part in ("vae", "vocoder"):
        shutil.copytree(tmp_path / "model" / part, tmp_path / "out" / part)
    return tmp_path / "out"


def test_every_other_crop_is_what_the_autoencoder_makes_of_it(clips, out, tmp_path):
    (tmp_path / "vocoder.yaml").write_text(DECODED)
    config = read_config(tmp_path / "vocoder.yaml", VocoderConfig)
    codec = MusicCodec.load(out)
    read = []
    for seed in range(24):
        draw = partial(example, clips / "1.wav", config)
        samples, mel = draw(codec, torch.Generator().manual_seed(seed))
        assert samples.shape == (2, 16 * 512) and mel.shape == (2, 64, 16)
        plain, own = draw(None, torch.Generator().manual_seed(seed))
        assert torch.equal(plain, samples)
        read.append(not torch.equal(own, mel))
        assert torch.equal(own, waveform_to_mel(samples[None], config.front_end)[0])
        again = draw(codec, torch.Generator().manual_seed(seed))
        assert torch.equal(again[1], mel)
    assert 6 < sum(read) < 18
    train_vocoder(tmp_path / "vocoder.yaml", clips, out)
    assert isinstance(load_vocoder(out / "vocoder")[0], NeuralGriffinLim)


@pytest.mark.parametrize(
    "change, message",
    [
        (("n_mels: 64", "n_mels: 128"), "must be equal"),
        (("crop: 16", "crop: 12"), "crop 12 must be a multiple of 8"),
        (("crop: 16", "crop: 8"), "crop: .* greater than 8"),
        (("dim: 8", "dim: 8\ninit: model/vocoder"), "init: model/vocoder holds no network"),
    ],
)
def test_what_does_not_fit_a_run_is_refused(clips, out, tmp_path, change, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vocoder.yaml").write_text(DECODED.replace(*change))
    with pytest.raises(UserError, match=message):
        train_vocoder(tmp_path / "vocoder.yaml", clips, out)
    (tmp_path / "vocoder.yaml").write_text(DECODED)
    with pytest.raises(UserError, match=r"no vae, .* train vae first, or say decoded: 0"):
        train_vocoder(tmp_path / "vocoder.yaml", clips, tmp_path / "other")
