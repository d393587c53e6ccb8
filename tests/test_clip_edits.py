"""Editing clips: what is free is made anew, all else stays to the bit, and joins do not show."""

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from command import Duotone, Result, names, refused
from tiny_music import play_levels

from audiodiff import MusicPipeline, long_clips
from audiodiff.edit_settings import Edit, EditSettings, check_span, parse_span
from audiodiff.editing import TASKS, Job, edit_clip, regenerated_steps, region_of
from audiodiff.finish import faded_edge
from audiodiff.joins import flux_at_joins, joined
from audiodiff.labels import FRAME_SECONDS
from audiodiff.loudness import loudness
from audiodiff.sound_file import Sound

RATE = 44100
SOURCE: dict[str, Any] = {"source": "a.wav", "source_hash": "0"}


@pytest.fixture(scope="module")
def pipeline(tiny_music_model: Path) -> MusicPipeline:
    loaded = MusicPipeline.load(tiny_music_model, device="cpu", dtype="float32")
    loaded.codec.vocoder = play_levels  # what it sounds like is of no account here
    return loaded


@pytest.fixture
def edits(duotone: Duotone, tiny_music_model: Path, monkeypatch: pytest.MonkeyPatch) -> Duotone:
    """Run ``duotone VERB ARGS`` with the tiny model in one step and a vocoder of no time."""
    load = MusicPipeline.load

    def quick(model: str, device: str, dtype: str) -> MusicPipeline:
        loaded = load(tiny_music_model, device, dtype)
        loaded.codec.vocoder = play_levels
        return loaded

    monkeypatch.setattr(MusicPipeline, "load", quick)
    monkeypatch.setattr("shared.models.find_model", lambda *_: None)

    def run(verb: str, *args: object) -> Result:
        steps = "--sampling-steps" if verb == "blend" else "--steps"
        return duotone(verb, *args, steps, 2, "--seed", 3)

    return run


def tones(seconds: float, rate: int = RATE, channels: int = 2) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    both = np.stack([np.sin(2 * np.pi * f * time) for f in (330.0, 440.0)][:channels])
    return (0.2 * both * (1 + 0.3 * np.sin(8 * time))).astype(np.float32)


def sound(seconds: float, rate: int = RATE, channels: int = 2) -> Sound:
    silent = Sound(np.zeros((channels, round(seconds * rate)), np.int32), rate, "PCM_16")
    return silent.with_part(0, tones(seconds, rate, channels))


def settings_of(
    pipeline: MusicPipeline, job: Job, edit: Edit, seeds: Sequence[int] = (0,)
) -> list[EditSettings]:
    frames = region_of(job, pipeline).frames
    plans = [
        pipeline.plan("a waltz", seconds=frames * FRAME_SECONDS, seed=seed, steps=2)
        for seed in seeds
    ]
    return [EditSettings(**vars(plan[0]), **vars(edit)) for plan in plans]


# Files


@pytest.mark.parametrize(
    "suffix, subtype",
    [
        *((".wav", name) for name in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")),
        *((".flac", name) for name in ("PCM_S8", "PCM_16", "PCM_24")),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_an_edit_keeps_a_files_samples_rate_and_precision(
    edits: Duotone, suffix: str, subtype: str, channels: int
) -> None:
    path = f"x{suffix}"
    soundfile.write(path, tones(1.5, 48000, channels).T * 1.01, 48000, subtype)
    made = edits("inpaint", path, "a waltz", "--span", "0.5:1", "-o", f"y{suffix}")
    assert made.code == 0, made.err
    before, after = soundfile.info(path), soundfile.info(f"y{suffix}")
    assert (after.samplerate, after.channels, after.subtype) == (48000, channels, subtype)
    assert after.frames == before.frames
    kind = "float64" if subtype in ("FLOAT", "DOUBLE") else "int32"
    old, new = (soundfile.read(name, dtype=kind)[0] for name in (path, f"y{suffix}"))
    assert np.array_equal(old[:24000], new[:24000]) and np.array_equal(old[48000:], new[48000:])
    assert (old[24000:48000] != new[24000:48000]).mean() > 0.5


def test_what_a_format_cannot_hold_is_refused(edits: Duotone) -> None:
    soundfile.write("x.wav", tones(1).T, RATE, "FLOAT")
    result = edits("inpaint", "x.wav", "--span", "0:1", "-o", "y.flac")
    assert result.code == 2 and "32-bit floating point" in result.err
    result = edits("inpaint", "x.wav", "--span", "0.2:0.5", "-o", "y.mp3")
    assert result.code == 0 and "Note: .mp3 is lossy" in result.err
    result = edits("inpaint", "y.mp3", "--span", "0.2:0.5")  # edits of lossy files are whole again
    assert result.out == ["y-inpaint-3.wav"]
    assert soundfile.info("y-inpaint-3.wav").subtype == "FLOAT"
    soundfile.write("three.wav", np.zeros((9000, 3)), RATE)
    assert "3 channels" in edits("inpaint", "three.wav", "--span", "0:0.1").err


# Tasks


@pytest.mark.parametrize(
    "task, options, start, end, length",
    [
        ("inpaint", {"span": (1.0, 1.7)}, 44100, 74970, 132300),
        ("inpaint", {"span": (0.0, 0.3)}, 0, 13230, 132300),
        ("inpaint", {"span": (2.9, 3.0)}, 127890, 132300, 132300),
        ("vary", {"span": (1.0, 1.7)}, 44100, 74970, 132300),
        ("restyle", {"strength": 0.5}, 0, 132300, 132300),
        ("extend", {"added": 1.0}, 132300, 176400, 176400),
        ("extend", {"added": 6.0}, 132300, 396900, 396900),  # more than a window
        ("extend", {"added": 1.0, "before": True}, 0, 44100, 176400),
        ("blend", {"overlap": 1.0}, 88200, 132300, 220500),
    ],
)
def test_all_but_the_free_part_stays_to_the_bit(
    pipeline: MusicPipeline, task: str, options: dict, start: int, end: int, length: int
) -> None:
    source = sound(3)
    edit = Edit(**SOURCE, task=task, **options)
    job = TASKS[task](source, edit, sound(3))
    assert (job.start, job.end, job.sound.length) == (start, end, length)
    (made,) = edit_clip(pipeline, job, settings_of(pipeline, job, edit))
    assert made.values.shape == (2, length) and made.values.dtype == np.int32
    free = slice(job.start, job.end)
    assert (made.values[:, free] != job.sound.values[:, free]).mean() > 0.5
    kept = made.values.copy()
    kept[:, free] = job.sound.values[:, free]
    assert np.array_equal(kept, job.sound.values)
    if task == "extend":
        here = slice(0, -44100) if not options.get("before") else slice(44100, None)
        assert options["added"] != 1.0 or np.array_equal(made.values[:, here], source.values)
    if end - start > 0.4 * RATE and task != "blend":
        level = loudness(made.samples[:, free], RATE)
        assert level == pytest.approx(loudness(source.samples, RATE), abs=2)


def test_seeds_differ_and_repeat(pipeline: MusicPipeline) -> None:
    edit = Edit(**SOURCE, task="inpaint", span=(1.0, 2.0))
    job = TASKS["inpaint"](sound(3), edit, None)
    plan = settings_of(pipeline, job, edit, [4, 5, 4])
    first, second, again = edit_clip(pipeline, job, plan)
    assert np.array_equal(first.values, again.values)
    assert not np.array_equal(first.values, second.values)


@pytest.mark.parametrize("method", ["blend", "repaint", "gradient", "posterior"])
def test_methods_to_fill_by(pipeline: MusicPipeline, method: str) -> None:
    edit = Edit(**SOURCE, task="inpaint", span=(1.0, 2.0), method=method, jump_length=1)
    job = TASKS["inpaint"](sound(3), edit, None)
    (made,) = edit_clip(pipeline, job, settings_of(pipeline, job, edit))
    assert np.isfinite(made.samples).all() and made.samples[:, 44100:88200].any()


def test_a_region_has_context_and_begins_a_frame_where_the_free_part_begins(
    pipeline: MusicPipeline,
) -> None:
    edit = Edit(**SOURCE, task="inpaint", span=(20.0, 21.0))
    job = TASKS["inpaint"](sound(40, 48000, 1), edit, None)
    region = region_of(job, pipeline)
    per_frame = 4096 * 48000 / 44100
    assert region.frames == region.end == 16 + 11 + 16  # 1 s is 10.8 frames
    assert region.start == round(20 * 48000 - 16 * per_frame)
    assert (region.first, region.last) == (15, 28)
    assert region.known().sum() == 43 - 13
    short = region_of(TASKS["inpaint"](sound(0.4), Edit(**SOURCE, task="x"), None), pipeline)
    assert (short.frames, short.first, short.last, short.end) == (16, 0, 5, 5)
    assert not short.known().any()


def test_regeneration_starts_where_noise_has_its_share(pipeline: MusicPipeline) -> None:
    def steps(noise: float) -> int:
        edit = Edit(**SOURCE, task="vary", span=(0.0, 1.0), noise=noise)
        (plan,) = pipeline.plan("a waltz", steps=40)
        return regenerated_steps(pipeline, EditSettings(**vars(plan), **vars(edit)))

    assert 1 <= steps(0.05) < steps(0.5) < steps(0.85) <= steps(0.999) == 40


def test_long_sound_is_encoded_as_at_once(pipeline: MusicPipeline) -> None:
    noise = torch.randn(1, 2, 100 * 4096, generator=torch.Generator().manual_seed(0)) / 10
    with torch.inference_mode():
        pieces = long_clips.encode(pipeline.codec, noise)
        whole = pipeline.codec.encode(noise)
    assert pieces.shape == whole.shape
    assert (pieces - whole).abs().mean() < whole.std() / 20


def test_a_silent_reference_has_no_sound_to_be_like(edits: Duotone) -> None:
    soundfile.write("x.wav", tones(1).T, RATE)
    soundfile.write("none.wav", np.zeros((RATE, 2)), RATE)
    result = edits("restyle", "x.wav", "--like", "none.wav")
    assert result.code == 2 and "--like: 'none.wav' is silent" in result.err


# Joins


def test_a_tone_goes_on_in_phase() -> None:
    """Made with another phase, it leaves neither step nor spectral break at either join."""
    time = np.arange(3 * RATE) / RATE
    tone = 0.3 * np.sin(2 * np.pi * 440 * time)[None]
    other = 0.3 * np.sin(2 * np.pi * 440 * time + 2)[None]
    start, end = RATE, 2 * RATE

    def bends(fill: np.ndarray) -> float:
        whole = tone.copy()
        whole[:, start:end] = fill
        second = np.abs(np.diff(whole, n=2))[0]
        return float(
            max(second[at - 3 : at + 2].max() for at in (start, end)) / second[:9000].max()
        )

    assert bends(other[:, start:end]) > 10
    made = joined(tone, start, other[:, start:end], True, True)
    assert bends(made) < 3
    assert np.abs(made).max() < 0.45 and np.sqrt((made**2).mean()) > 0.15


def test_music_that_goes_on_does_not_dip_where_the_file_faded(pipeline: MusicPipeline) -> None:
    ramp = np.sin(np.linspace(0, np.pi / 2, 220)) ** 2
    for before in (False, True):
        samples = tones(3)
        assert faded_edge(samples, RATE, before) == 0
        if before:
            samples[:, :220] *= ramp
        else:
            samples[:, -220:] *= ramp[::-1]
        assert faded_edge(samples, RATE, before) == 220
        edit = Edit(**SOURCE, task="extend", added=1.0, before=before)
        job = TASKS["extend"](sound(3).with_part(0, samples), edit, None)
        assert (job.start, job.end) == ((0, 44320) if before else (132080, 176400))
    assert faded_edge(np.zeros((2, RATE)), RATE) == faded_edge(samples[:, :900], RATE) == 0


def test_the_spectrum_glides_over_a_join() -> None:
    rng = np.random.default_rng(0)
    before = tones(2).astype(np.float64) + 0.002 * rng.normal(size=(2, 2 * RATE))
    fill = 0.3 * rng.normal(size=(2, RATE))  # as unlike as can be
    whole = np.concatenate([before, fill], 1)
    hard = flux_at_joins(whole, [2 * RATE])[0]
    whole[:, 2 * RATE :] = joined(whole, 2 * RATE, fill, True, False)
    assert flux_at_joins(whole, [2 * RATE])[0] < hard / 2


def test_the_shortest_fills_join() -> None:
    for length in (1, 100, 700, 3000):
        for side in (1, 300, 5000):
            whole = np.full((1, 2 * side + length), 0.25)
            made = joined(whole, side, np.zeros((1, length)), True, True)
            assert made.shape == (1, length) and np.isfinite(made).all()
    assert joined(np.zeros((2, 9)), 0, np.ones((2, 9)), False, False).tolist() == [[1.0] * 9] * 2


# The command line


def test_every_verb_tells_and_is_made_again(edits: Duotone, duotone: Duotone) -> None:
    soundfile.write("a.wav", tones(1.2).T, RATE, "PCM_24")
    soundfile.write("b.flac", tones(1.5, 48000, 1).T, 48000)
    for verb, args, seconds in (
        ("extend", ["a.wav", "--seconds", 0.5], 1.7),
        ("extend", ["a.wav", "--seconds", 0.5, "--before", "--prompt", "a waltz"], 1.7),
        ("inpaint", ["a.wav", "--span", ":0.5"], 1.2),
        ("vary", ["a.wav", "--span", "0.7:", "--noise", 0.9], 1.2),
        ("restyle", ["a.wav", "techno", "--strength", 0.5], 1.2),
        ("restyle", ["a.wav", "--like", "b.flac"], 1.2),
        ("blend", ["a.wav", "b.flac", "--overlap", 0.5], 2.2),
    ):
        made = edits(verb, *args, "-o", "y.wav", "--overwrite", "--json")
        assert made.code == 0, made.err
        record = json.loads(made.out[0])
        assert record["task"] == verb and record["source"] == "a.wav" and record["seed"] == 3
        assert record["guidance_scale"] == (3.0 if verb == "restyle" else 2.0)
        assert soundfile.info("y.wav").frames == round(seconds * RATE)
        assert json.loads(duotone("info", "y.wav", "--json").out[0])["task"] == verb
        again = duotone("replay", "y.wav", "--overwrite")
        assert again.out == ["y-replay.wav", "identical"], again.err
    Path("b.flac").unlink()
    assert "b.flac" in duotone("replay", "y.wav").err
    soundfile.write("a.wav", tones(1).T, RATE)
    assert "no longer the file" in duotone("replay", "y.wav").err


@pytest.mark.parametrize(
    "args, fragments",
    [
        (["inpaint", "x.wav"], ["--span", "2:4"]),
        (["inpaint", "x.wav", "--span", "x"], ["START:END", "'x'"]),
        (["inpaint", "x.wav", "--span", "0.5:9"], ["0.5:9", "1.000 seconds"]),
        (["inpaint", "x.wav", "--span", "-1:0.5"], ["-1:0.5"]),
        (["inpaint", "x.wav", "--span", "0.5:0.4"], ["0.5:0.4"]),
        (["inpaint", "x.wav", "--span", "nan:0.4"], ["nan"]),
        (["inpaint", "x.wav", "--span", "0.5:0.501"], ["0.05"]),
        (["inpaint", "x.wav", "--span", "0:1", "--box", "1,2,3,4"], ["--box", "clips"]),
        (["vary", "x.wav", "--span", "0:1", "--noise", "1"], ["share of noise"]),
        (["extend", "x.wav"], ["--seconds"]),
        (["extend", "x.wav", "--seconds", "0"], ["0.05", "600"]),
        (["extend", "x.wav", "--seconds", "1", "--left", "3"], ["--left", "clips"]),
        (["extend", "missing.wav", "--seconds", "1"], ["missing.wav"]),
        (["restyle", "x.wav"], ["PROMPT", "--like"]),
        (["restyle", "x.wav", "techno", "--strength", "2"], ["strength"]),
        (["restyle", "x.wav", "--like", "none.wav"], ["none.wav"]),
        (["blend", "x.wav", "x.wav"], ["2.5", "1.000"]),
        (["blend", "x.wav", "x.wav", "--overlap", "0"], ["0.2 to 60"]),
        (["blend", "x.wav", "x.wav", "--steps", "8"], ["--steps", "clips", "--sampling-steps"]),
        (["blend", "x.wav", "x.png"], ["two clips or two pictures"]),
        (["inpaint", "x.png", "--span", "0:1"], ["--span", "pictures"]),
    ],
)
def test_what_cannot_be_is_refused(duotone: Duotone, args: list, fragments: list) -> None:
    soundfile.write("../x.wav", tones(1).T, RATE)
    Path("../x.png").write_bytes(b"\x89PNG")
    there = [f"../{arg}" if str(arg).endswith((".wav", ".png")) else arg for arg in args]
    refused(duotone(*there), *fragments)
    assert names() == []


def test_spans() -> None:
    assert parse_span("2:4") == (2, 4) and parse_span(" :4") == (0, 4)
    assert check_span(parse_span("2.5:"), 6.25) == (2.5, 6.25)
    assert {field.name for field in fields(Edit)} <= {f.name for f in fields(EditSettings)}
