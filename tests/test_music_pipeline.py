"""The music pipeline on a tiny model: settings, seeds, wishes, windows, lengths, files."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_music import WINDOW, play_levels
from torch import Tensor

import audiodiff
from audiodiff import MusicPipeline, long_clips
from audiodiff.audio_file import FORMATS, read_audio, read_parameters
from audiodiff.clip import Clip, difference, read_settings, what_made
from audiodiff.controls import CHANNELS, unknown
from audiodiff.finish import finish
from audiodiff.loudness import loudness, loudness_curve
from audiodiff.sketch import Curve, Sketch
from audiodiff.theory import parse_key
from audiodiff.wishes import controls_of, read_wishes
from shared.errors import UserError
from shared.pipelines import encode_prompts
from shared.samplers import SAMPLERS

SHORT = 0.75  # seconds
LONG = 5.0  # 54 latent frames: more than one window and an eighth


@pytest.fixture(scope="module")
def pipeline(tiny_music_model: Path) -> MusicPipeline:
    loaded = MusicPipeline.load(tiny_music_model, device="cpu", dtype="float32")
    loaded.codec.vocoder = play_levels  # what it sounds like is of no account here
    return loaded


def same(first: Clip, second: Clip) -> bool:
    return np.array_equal(first.samples, second.samples)


# What it makes


def test_a_call_gives_count_clips_of_each_prompt(pipeline: MusicPipeline) -> None:
    clips = pipeline(["a waltz", "techno"], seconds=SHORT, count=2, seed=3, steps=2)
    assert [clip.samples.shape for clip in clips] == [(2, round(SHORT * 44100))] * 4
    assert all(clip.samples.dtype == np.float32 and clip.sample_rate == 44100 for clip in clips)
    assert all(0 < np.abs(clip.samples).max() <= 1 for clip in clips)
    assert same(clips[3], pipeline("techno", seconds=SHORT, seed=4, steps=2)[0])
    assert not same(clips[0], clips[1])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_same_seed_same_samples(pipeline: MusicPipeline, sampler: str) -> None:
    def play() -> Clip:
        return pipeline("a waltz", seconds=SHORT, seed=1, steps=2, sampler=sampler)[0]

    first = play()
    torch.randn(7)  # the state of torch's own generator is of no account
    assert same(first, play())


@pytest.mark.parametrize("seconds", [0.5, 0.7310, 3.3, LONG])
@pytest.mark.parametrize("sample_rate", [44100, 22050, 48000])
def test_lengths_are_exact(pipeline: MusicPipeline, seconds: float, sample_rate: int) -> None:
    (clip,) = pipeline("a waltz", seconds=seconds, steps=1, sample_rate=sample_rate)
    assert clip.samples.shape == (2, round(seconds * sample_rate))
    assert clip.sample_rate == clip.settings.sample_rate == sample_rate


def test_words_tempo_key_and_guidance_steer(pipeline: MusicPipeline) -> None:
    def play(prompt: str = "a slow waltz", **options) -> Clip:  # type: ignore[no-untyped-def]
        return pipeline(prompt, seconds=SHORT, steps=2, **options)[0]

    plain = play()
    others = [
        play("techno"),
        play(bpm=90),
        play(bpm=180),
        play(key="C major"),
        play(key="A minor"),
        play(guidance_scale=1),
        play(negative_prompt="techno"),
        play(seed=1),
        play(controls=unknown(16).with_tempo(90)),
    ]
    clips = [plain, *others]
    for i, first in enumerate(clips):
        assert not any(same(first, second) for second in clips[i + 1 :]), i
    assert same(play("a slow waltz, 90 bpm"), play("a slow waltz, 90 bpm", bpm=90))


@torch.no_grad()
def test_guidance_is_towards_the_controls_as_well(pipeline: MusicPipeline) -> None:
    frames = 16
    settings = pipeline.plan("a waltz", bpm=90, key="A minor", guidance_scale=3.0)[0]
    x = torch.randn(1, *pipeline.latent_shape(frames), generator=torch.manual_seed(0))
    sigma = torch.tensor([2.0])
    told = pipeline.denoise_fn([replace(settings, guidance_scale=1.0)], frames)(x, sigma)
    untold = encode_prompts(pipeline.text_encoder, [""])
    nothing = torch.zeros(1, CHANNELS, pipeline.codec.rows, frames)
    free = pipeline.denoiser(x, sigma, replace(untold, concat=nothing))
    guided = pipeline.denoise_fn([settings], frames)(x, sigma)
    torch.testing.assert_close(guided, free + 3.0 * (told - free), rtol=1e-4, atol=1e-5)


def test_given_controls_take_the_place_of_stated_ones(pipeline: MusicPipeline) -> None:
    plan = pipeline.plan("a waltz", bpm=90, seconds=LONG, steps=1, count=2)
    frames = pipeline.latent_frames(LONG)
    own = controls_of(read_wishes("a waltz", 90), frames)
    stated, given = pipeline.generate(plan[:1]), pipeline.generate(plan[:1], controls=[own])
    assert same(*stated, *given)
    with pytest.raises(UserError, match="1 controls do not suit 2 clips"):
        list(pipeline.generate(plan, controls=[own]))
    with pytest.raises(UserError, match="after 53 latent frames, 54 are needed"):
        list(pipeline.generate(plan[:1], controls=[unknown(53)]))


def test_a_batch_is_close_to_clips_made_alone(pipeline: MusicPipeline) -> None:
    """As on a GPU, where clips are computed together."""
    for seconds in (SHORT, LONG):
        plan = pipeline.plan(["a waltz", "techno, 99 bpm"], seconds=seconds, seed=3, steps=2)
        alone = list(pipeline.generate(plan))
        together = pipeline._sample(plan, [None] * 2, None)
        for first, second in zip(alone, together, strict=True):
            assert np.abs(first.samples - second.samples).max() < 1e-3


def test_batches_join_what_differs_in_prompt_and_seed_only(pipeline: MusicPipeline) -> None:
    plan = pipeline.plan(["a waltz", "techno"], count=6, steps=2)
    plan.append(replace(plan[0], bpm=90.0))
    assert [len(batch) for batch in pipeline.batches(plan)] == [1] * 13
    on_gpu = replace(pipeline, device=torch.device("cuda"))
    assert [len(batch) for batch in on_gpu.batches(plan)] == [8, 4, 1]


def test_memory_is_bounded_by_windows(
    pipeline: MusicPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []
    inner = pipeline.denoiser.network.forward

    def counting(x: Tensor, *rest) -> Tensor:  # type: ignore[no-untyped-def]
        seen.append(tuple(x.shape))
        return inner(x, *rest)

    monkeypatch.setattr(pipeline.denoiser.network, "forward", counting)
    pipeline("a waltz", seconds=20, steps=1)
    assert {shape[1:] for shape in seen} == {(4, 2, WINDOW)}
    assert max(shape[0] for shape in seen) == 8  # four windows, with and without the prompt


def test_frames_are_a_multiple_or_windows(pipeline: MusicPipeline) -> None:
    second = 44100 / 4096
    assert pipeline.latent_frames(0.5) == 16
    assert pipeline.latent_frames(21 / second) == 22
    assert pipeline.latent_frames(36 / second) == 36  # an eighth more than a window, in one piece
    assert pipeline.latent_frames(37 / second) == 37


def test_overflow_is_told(pipeline: MusicPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.codec, "scaling_factor", 0.0)
    with pytest.raises(UserError, match="overflowed"):
        pipeline("a waltz", seconds=SHORT, steps=1)


def test_callback_sees_every_step(pipeline: MusicPipeline) -> None:
    seen = []
    pipeline("a waltz", seconds=SHORT, steps=3, callback=lambda step, *_: seen.append(step))
    assert seen == [0, 1, 2]


@pytest.mark.parametrize(
    "options, fragment",
    [
        ({"seconds": 0}, "seconds must be from 0.5 to 600"),
        ({"seconds": 601}, "seconds"),
        ({"seconds": float("nan")}, "seconds"),
        ({"bpm": 0}, "bpm must be from 30 to 300"),
        ({"bpm": float("inf")}, "bpm"),
        ({"key": "H minor"}, "unknown key 'H minor'"),
        ({"sample_rate": 100}, "sample rate"),
        ({"loudness": 3}, "loudness must be from -60 to -6"),
        ({"steps": 0}, "steps"),
        ({"count": 0}, "count"),
    ],
)
def test_bad_values_are_user_errors(pipeline: MusicPipeline, options: dict, fragment: str) -> None:
    with pytest.raises(UserError, match=fragment):
        pipeline("a waltz", **options)


def test_remarks(pipeline: MusicPipeline) -> None:
    assert pipeline.remarks("a slow waltz in A minor") == pipeline.remarks("") == []
    (remark,) = pipeline.remarks("a polka")
    assert "polka" in remark and "tiny_music" in remark
    assert pipeline.remarks("a waltz at 80 bpm in A minor", 90, "Am") == [
        "the prompt says 80 bpm; 90 is taken, as told"
    ]


def test_a_model_that_is_not_whole_is_refused(tiny_music_model: Path, tmp_path: Path) -> None:
    def spoilt(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(tiny_music_model, folder)
        return folder

    model = spoilt("without-vocoder")
    shutil.rmtree(model / "vocoder")
    with pytest.raises(UserError, match="not whole: vocoder is missing"):
        MusicPipeline.load(model)
    model = spoilt("without-controls")
    (model / "controls.json").unlink()
    with pytest.raises(UserError, match="controls"):
        MusicPipeline.load(model)
    model = spoilt("other-controls")
    (model / "controls.json").write_text('{"melody": 12}')
    with pytest.raises(UserError, match="control channels"):
        MusicPipeline.load(model)
    model = spoilt("other-latents")
    config = json.loads((model / "vae" / "config.json").read_text())
    (model / "vae" / "config.json").write_text(json.dumps(config | {"latent_channels": 3}))
    with pytest.raises(UserError, match="vae"):
        MusicPipeline.load(model)


def test_the_package_has_one_lazy_name() -> None:
    assert audiodiff.__all__ == ["MusicPipeline"]
    with pytest.raises(AttributeError):
        _ = audiodiff.nothing  # pyright: ignore[reportAttributeAccessIssue]


# Wishes


def test_what_a_prompt_states_is_read() -> None:
    wishes = read_wishes(" a slow waltz in A minor, 80 bpm ")
    assert (wishes.tempo, wishes.key, wishes.meter) == (80, parse_key("Am"), 3)
    assert wishes.text == "a slow waltz in A minor, 80 bpm" and wishes.notes == ()
    assert read_wishes("calm piano") == read_wishes("calm piano", None, None)
    assert read_wishes("calm piano").tempo is None and read_wishes("calm piano").meter == 4


def test_options_win_and_are_said() -> None:
    wishes = read_wishes("a slow waltz in A minor, 80 bpm", 96.4, "C major")
    assert (wishes.tempo, wishes.key) == (96.4, parse_key("C"))
    assert wishes.text == "a slow waltz in A minor, 80 bpm, C major, 96 bpm"
    assert len(wishes.notes) == 2 and "A minor" in wishes.notes[0] and "80 bpm" in wishes.notes[1]
    assert read_wishes("techno, 120 bpm", 120, None).text == "techno, 120 bpm"


def test_wishes_become_controls() -> None:
    nothing = controls_of(read_wishes("calm piano"), 20)
    assert not any(known.any() for known in nothing.known.values())
    known = controls_of(read_wishes("piano, chords Am F C G", 90, "Am"), 20).known
    assert {name for name, mask in known.items() if mask.all()} == {
        "tempo",
        "beats",
        "key",
        "chords",
    }
    slow, fast = (controls_of(read_wishes("drums", bpm), 20).values["beats"] for bpm in (60, 120))
    assert torch.allclose(slow[:2, 1::2][:, :3], fast[:2, :3], atol=0.3)
    waltz = controls_of(read_wishes("a waltz", 60), 200).values["beats"][2:]
    march = controls_of(read_wishes("a march", 60), 200).values["beats"][2:]
    assert not torch.allclose(waltz, march)


def test_chords_without_a_tempo_get_one() -> None:
    wishes = read_wishes("piano, chords: Am F C G")
    assert wishes.tempo == 100 and "100 bpm" in wishes.notes[0]
    assert wishes.text == "piano, chords: Am F C G"


# Long clips


def test_a_vocoder_with_a_reach_makes_the_same_in_pieces() -> None:
    """One that looks 24 frames to either side, as Vocos does."""
    torch.manual_seed(0)
    kernel = torch.randn(2, 8, 49) / 20

    def vocoder(mel: Tensor) -> Tensor:
        return F.conv1d(mel.flatten(1, 2), kernel, padding=24).repeat_interleave(512, -1)

    mel = torch.randn(1, 2, 4, 2500)
    whole = vocoder(mel)
    assert torch.allclose(long_clips.vocode(vocoder, mel, 512), whole, atol=1e-6)
    short = mel[..., :1100]
    assert torch.equal(long_clips.vocode(vocoder, short, 512), vocoder(short))


def test_pieces_of_other_phase_join_at_even_power() -> None:
    """As Griffin-Lim's, which finds other phases in each piece."""
    generator = torch.Generator().manual_seed(0)

    def vocoder(mel: Tensor) -> Tensor:
        return torch.randn(1, 2, mel.shape[-1] * 512, generator=generator)

    made = long_clips.vocode(vocoder, torch.zeros(1, 2, 4, 3000), 512)
    assert made.shape == (1, 2, 3000 * 512)
    power = made.unfold(-1, 2048, 2048).square().mean((1, 3))[0]
    assert (10 * power.log10()).abs().max() < 1


def test_a_fade_gives_equal_signals_back_and_keeps_silence() -> None:
    signal = torch.randn(2, 2, 1000)
    assert torch.allclose(long_clips.fade_over(signal, signal), signal, atol=1e-6)
    assert not long_clips.fade_over(torch.zeros(1, 2, 9), torch.zeros(1, 2, 9)).any()
    opposite = long_clips.fade_over(signal, -signal)  # nothing to hold on to: no blow-up
    assert opposite.isfinite().all() and opposite.abs().max() <= signal.abs().max()


def test_what_fits_is_decoded_at_once(pipeline: MusicPipeline) -> None:
    latents = torch.randn(1, 4, 2, 72, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = pipeline.codec.decode(latents)
        assert torch.equal(long_clips.decode(pipeline.codec, latents), whole)


def test_windows_of_a_spectrogram_leave_no_seam(pipeline: MusicPipeline) -> None:
    """Spectral flux where windows begin and end is not above that of the frames between."""
    generator = torch.Generator().manual_seed(0)
    level, swing = torch.randn(2, 1, 4, 2, 1, generator=generator)
    latents = level + swing * torch.sin(torch.arange(1200) * 0.35)
    starts = long_clips.window_starts(1200, 64, 16)
    edges = sorted({8 * e for start in starts for e in (start, start + 64) if 0 < e < 1200})

    def flux_at_edges(mel: Tensor) -> float:
        """Relative to the flux everywhere."""
        flux = mel.diff(dim=-1).abs().mean((0, 1, 2))
        return float(flux[[edge - 1 for edge in edges]].mean() / flux[40:-40].mean())

    with torch.inference_mode():
        mel = long_clips.decode_mel(pipeline.codec, latents)
        whole = pipeline.codec.latents_to_mel(latents)
        assert mel.shape == whole.shape == (1, 2, 64, 9600)
        assert flux_at_edges(mel) < flux_at_edges(whole) * 1.1
        assert (mel - whole).abs().mean() < whole.std() / 10
        # The test can fail: windows that are cut off hard are seen.
        pieces = zip([0, *edges], [*edges, 9600], strict=True)
        hard = [pipeline.codec.latents_to_mel(latents[..., a // 8 : b // 8]) for a, b in pieces]
    assert flux_at_edges(torch.cat(hard, -1)) > 2


# Finishing and files


def wave(seconds: float, rate: int = 44100) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return np.stack([np.sin(2 * np.pi * f * time) for f in (440, 554)]).astype(np.float32) * 0.02


def test_finishing_sets_loudness_and_fades_the_ends(pipeline: MusicPipeline) -> None:
    (settings,) = pipeline.plan("a waltz", seconds=2, loudness=-20)
    samples = finish(wave(2.3), 44100, settings)
    assert samples.shape == (2, 88200) and samples.dtype == np.float32
    assert loudness(samples, 44100) == pytest.approx(-20, abs=0.1)
    assert not samples[:, [0, -1]].any()
    loud = finish(wave(2.3), 44100, replace(settings, loudness=-6.0))
    assert np.abs(loud).max() <= 10 ** (-1 / 20) + 1e-6
    assert not finish(np.zeros((2, 90000), np.float32), 44100, settings).any()


@pytest.mark.parametrize("by", ["channels", "gradient", "both"])
@pytest.mark.parametrize("weight, span_db", [(1.0, 8.0), (0.5, 4.0), (0.0, 0.0)])
def test_finishing_rides_dynamics_by_whatever_route_they_are_held(
    pipeline: MusicPipeline, by: str, weight: float, span_db: float
) -> None:
    sketch = Sketch(dynamics=Curve(points=((0, -30), (4, -22)), by=by, weight=weight))
    (settings,) = pipeline.plan("a waltz", seconds=4, loudness=-24, sketch=sketch)
    levels = loudness_curve(finish(wave(4.1), 44100, settings))[2:-2]
    assert levels[-1] - levels[0] == pytest.approx(span_db, abs=1.5)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_carries_its_settings(pipeline: MusicPipeline, tmp_path: Path, suffix: str) -> None:
    plan = pipeline.plan('a "waltz", réd 🎹\nNegative prompt: x', bpm=90, seconds=0.5, steps=1)
    (clip,) = pipeline.generate(plan)
    path = tmp_path / f"x{suffix}"
    clip.save(path)
    assert read_settings(path) == plan[0]
    assert what_made(path) == plan[0].record()
    last = (read_parameters(path) or "").splitlines()[-1]
    assert "Seconds: 0.5, BPM: 90.0, Sample rate: 44100, Loudness: -16 LUFS" in last
    samples, rate = read_audio(path)
    assert samples.shape == clip.samples.shape and rate == 44100
    with pytest.raises(UserError, match="exists"):
        clip.save(path)


def test_difference_in_words() -> None:
    ones = np.full((2, 9), 0.5, np.float32)
    assert difference(ones, ones.copy()) == "identical"
    assert difference(ones, ones * 0.8) == "differs: by at most -20 dB of full scale"
    assert difference(ones, ones[:, 1:]) == "differs: 2 x 9 and 2 x 8 samples"
