"""How well clips hold what they were given: exact cases, and the command's report."""

import json
from pathlib import Path

import numpy as np
import pytest
from command import Duotone, refused

from audiodiff import kept
from audiodiff.bars import _by_phase, first_downbeat
from audiodiff.best import best_of_each
from audiodiff.chord_heard import chords_heard, majmin, overlap
from audiodiff.labels import Labels
from audiodiff.metrics import hear
from audiodiff.sketch import Curve, Melody, Rhythm, Sketch
from audiodiff.sound_curves import measured
from audiodiff.tempo import ONSET_RATE, steady_beats

RATE = 44100


def tone(pitch: float, seconds: float) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    tones = [np.sin(2 * np.pi * n * frequency * time) / n for n in (1, 2, 3)]
    return np.sum(tones, axis=0) / 10


def stereo(samples: np.ndarray) -> np.ndarray:
    return np.stack([samples, samples]).astype(np.float32)


def test_melody_dynamics_and_spans() -> None:
    sound = np.concatenate([tone(64, 3), tone(67, 3) / 10])
    wrong = Melody(notes=((0, 3, 64), (3, 6, 66)))
    right = Melody(notes=wrong.notes, span=(0, 3))
    levels = Curve(points=((0, -10), (2.9, -10), (3.1, -30), (6, -30)))
    samples = stereo(sound)
    heard = hear(samples)
    found = kept.sketch_kept(samples, heard, Sketch(melody=wrong, dynamics=levels))
    assert found["melody"]["accuracy"] == pytest.approx(0.5, abs=0.03)
    assert found["melody"]["accuracy_chroma"] == pytest.approx(0.5, abs=0.03)
    assert float(found["dynamics"]["r"]) > 0.97
    assert float(found["dynamics"]["shape_error_db"]) < 2
    found = kept.sketch_kept(samples, heard, Sketch(melody=right))
    assert min(float(value) for value in found["melody"].values()) > 0.96


def test_chords_overlap_by_time() -> None:
    sound = np.concatenate(
        [sum(tone(p, 2) for p in (57, 60, 64)), sum(tone(p, 4) for p in (53, 57, 60))]
    )
    found = chords_heard(hear(stereo(sound)).chords)
    assert (overlap(found, [(0, 2, "Am7"), (2, 6, "F")]) or 0) > 0.9
    assert overlap(found, [(0, 2, "Am"), (2, 6, "Fm")]) == pytest.approx(1 / 3, abs=0.1)
    assert overlap(found, [(0, 6, "Csus4")]) is None
    assert majmin("Am7/G") == "A:min" and majmin("F#maj7") == "F#:maj" and majmin("G5") is None


def test_beats_at_a_tempo() -> None:
    onsets = np.zeros(600, np.float32)
    onsets[30::50] = 1  # 120 bpm from 0.3 s on
    times = steady_beats(onsets, 120)
    assert len(times) == 12 and np.abs(times - (0.3 + 0.5 * np.arange(12))).max() < 0.011
    wanted = tuple(0.3 + 0.5 * number for number in range(12))
    rhythm = Rhythm(beats=wanted, downbeats=wanted[::4], strokes=wanted)
    click = np.zeros(6 * RATE, np.float32)
    for time in wanted:
        start = round(time * RATE)
        click[start : start + 2000] = np.sin(np.arange(2000) * 0.3) * np.exp(-np.arange(2000) / 400)
    heard = hear(stereo(click))
    assert len(heard.onsets) == 6 * ONSET_RATE + 1
    found = kept.rhythm_kept(stereo(click), heard, rhythm)
    assert found["beat_f1"] == 1 and float(found["stroke_f1"] or 0) > 0.9
    late = tuple(time + 0.25 for time in wanted)
    assert (
        kept.rhythm_kept(stereo(click), heard, Rhythm(beats=late, downbeats=late[::4]))["beat_f1"]
        == 0
    )


def test_what_begins_with_the_clip_does_not_count_against_itself() -> None:
    onsets = np.zeros(200, np.float32)
    onsets[::50], onsets[25::50] = 1, 0.9  # off-beats all but as strong, and all four of them heard
    assert steady_beats(onsets, 120)[0] == pytest.approx(0, abs=0.011)
    changes = np.array([np.nan, 0.6, 0, 0, 1, 0.6])
    assert int(np.argmax(_by_phase(changes, 4))) == 0
    assert np.array_equal(_by_phase(np.array([np.nan, 0, 0, 0]), 2), [1, 1])


def test_bars_begin_where_bass_and_chords_do() -> None:
    beat = 0.5
    chords = ((57, 60, 64), (53, 57, 60), (55, 59, 62))
    parts = []
    for number in range(12):
        notes = np.sum([tone(pitch, beat) for pitch in chords[(number + 2) // 4 % 3]], axis=0)
        if number % 4 == 2:
            notes = notes + 3 * tone(33, beat) * np.exp(-np.arange(len(notes)) / 9000)
        parts.append(notes * np.minimum(1, np.arange(len(notes))[::-1] / 400))
    samples = stereo(np.concatenate(parts))
    times = tuple(number * beat for number in range(12))
    heard = hear(samples)
    assert first_downbeat(samples, heard.chords, times, 4) == 2
    assert first_downbeat(samples, heard.chords, times[1:], 4) == 1
    rhythm = Rhythm(beats=times, downbeats=times[2::4])
    assert rhythm.meter == 4
    assert kept.rhythm_kept(samples, heard, rhythm)["downbeat_f1"] == 1
    wrong = Rhythm(beats=times, downbeats=times[::4])
    assert kept.rhythm_kept(samples, heard, wrong)["downbeat_f1"] == 0


def clicks(times: list[float], seconds: float) -> np.ndarray:
    made = np.zeros(round(seconds * RATE))
    shape = np.random.default_rng(0).normal(size=2000) * np.exp(-np.arange(2000) / 300) / 4
    for time in times:
        start = round(time * RATE)
        made[start : start + 2000] += shape[: len(made) - start]
    return stereo(made)


def test_a_loop_has_one_tempo_when_it_plays_twice(tiny_music_model: Path) -> None:
    from audiodiff import MusicPipeline

    pipeline = MusicPipeline.load(tiny_music_model, "cpu")
    (plan,) = pipeline.plan("techno", bpm=120, loop=2)
    whole = clicks([number * 0.5 for number in range(8)], 4.0)
    found = kept.loop_kept(whole, RATE, plan, 120.0)
    assert found["kept"] is True and found["length_error"] == 0
    assert float(found["beats_again"]) == 1
    # A round that is a third of a beat too long breaks the beat where it begins again.
    long = clicks([number * 0.5 for number in range(8)], 4.17)
    found = kept.loop_kept(long, RATE, plan, 120.0)
    assert found["kept"] is False and found["length_error"] == round(0.17 * RATE)


@pytest.mark.parametrize("each", [1.0, 2.0, 4.0, 8.0])
def test_onsets_are_counted(each: float) -> None:
    samples = clicks([number / each for number in range(round(6 * each))], 6.0)
    density = measured(samples, "onset_density")
    assert density.mean() == pytest.approx(each, rel=0.2)


def test_curves_of_sound() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, 2 * RATE)).astype(np.float32) / 10
    same = stereo(tone(69, 2))
    assert measured(same, "stereo_width").max() < 0.02
    assert measured(noise, "stereo_width")[2:-2] == pytest.approx(0.5**0.5, abs=0.05)
    hiss, sung = (measured(samples, "noisiness")[2:-2] for samples in (noise, same))
    assert hiss.min() > 0.6 > 0.2 > sung.max()
    low, high = (measured(stereo(tone(p, 2)), "brightness")[2:-2].mean() for p in (57, 81))
    assert high > 1.5 * low


def test_silence_keeps_nothing_and_breaks_nothing() -> None:
    silent = np.zeros((2, 2 * RATE), np.float32)
    sketch = Sketch(melody=Melody(notes=((0, 2, 60),)), dynamics=Curve(points=((0, -30), (2, -10))))
    found = kept.sketch_kept(silent, hear(silent), sketch)
    assert found["melody"]["accuracy"] == 0 and found["dynamics"]["r"] == 0


def test_chroma_accuracy_needs_notes() -> None:
    assert kept.chroma_accuracy(stereo(tone(69, 1)), Labels()) is None


def test_scores_are_means_of_main_measures_from_0_to_1() -> None:
    found = {"melody": {"accuracy": 0.5, "x": 9.0}, "dynamics": {"r": -1.0}, "loudness": {"a": 1}}
    assert kept.score(found) == 0.25 and kept.score({}) == 0


# The command


@pytest.fixture
def music(duotone: Duotone, tiny_music_model: Path) -> Duotone:
    return lambda *args: duotone("music", "--model", tiny_music_model, "--steps", 2, *args)


def test_the_report_names_every_control(music: Duotone) -> None:
    args = ["--melody", "C4 E4", "--chords", "C", "--bpm", 120, "--key", "C", "--rhythm", "x..."]
    args += ["--dynamics", "0:-20 1:-10", "--seconds", 2, "--seed", 1]
    lines = music("a folk tune", "--report", *args).out
    names = [line.split(":")[0].strip() for line in lines[1:]]
    assert lines[0] == "a-folk-tune-1.wav"
    assert names == ["melody", "chords", "rhythm", "dynamics", "loudness", "tempo", "key"]
    record = json.loads(music("a folk tune", "--json", "--overwrite", *args).out[0])
    assert list(record["kept"]) == names
    assert 0 <= record["kept"]["melody"]["accuracy"] <= 1


def test_the_best_seed_is_kept_and_made_again(
    music: Duotone, duotone: Duotone, tiny_music_model: Path
) -> None:
    args = ["--melody", "C4 E4", "--bpm", 120, "--seconds", 1, "--json"]
    result = music("a folk tune", *args, "--best-of", 3, "--seed", 4, "-o", "x.wav")
    record = json.loads(result.out[0])
    tried = {one["seed"]: one["score"] for one in record["tried"]}
    assert list(tried) == [4, 5, 6] and tried[record["seed"]] == max(tried.values())
    again = duotone("replay", "x.wav", "--model", tiny_music_model)
    assert again.out == ["x-replay.wav", "identical"]
    refused_result = music("a folk tune", "--best-of", 2)
    assert refused_result.code == 2 and "--best-of chooses by the controls" in refused_result.err


def test_best_of_takes_the_highest_and_the_first_of_equals(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        samples, sample_rate = None, RATE

        def __init__(self, seed: int, value: float) -> None:
            self.settings = type("S", (), {"seed": seed})
            self.value = value

    values = [0.1, 0.5, 0.5, 0.9, 0.2, 0.3]
    clips = [Fake(seed, value) for seed, value in enumerate(values)]
    found = {id(clip.settings): {"melody": {"accuracy": clip.value}} for clip in clips}
    monkeypatch.setattr("audiodiff.best.kept", lambda s, r, settings: found[id(settings)])
    chosen = list(best_of_each(clips, 3))  # pyright: ignore[reportArgumentType]
    assert [best.clip.settings.seed for best in chosen] == [1, 3]


def test_one_refusal_before_anything_is_made(music: Duotone) -> None:
    refused(music("a folk tune", "--best-of", 0), "--best-of")
