"""What people hand in: texts and files that become a sketch, and what is refused in a line."""

from collections.abc import Sequence
from pathlib import Path

import mido
import numpy as np
import pytest

from audiodiff.audio_file import write_audio
from audiodiff.inputs.asked import Asked
from audiodiff.inputs.grid import Grid, steady
from audiodiff.inputs.read import Outline, read_sketch
from audiodiff.labels import FRAME_SECONDS
from audiodiff.sketch import Sketch
from shared.errors import UserError

RATE = 44100


def read(asked: Asked, prompt: str = "a folk tune", **known) -> Outline:
    return read_sketch(asked, prompt, **known)


def sketch(asked: Asked, **known) -> Sketch:
    found = read(asked, **known).sketch
    assert found is not None
    return found


def tones(notes: list[tuple[float, float, int]], seconds: float) -> np.ndarray:
    """Tones with some harmonics, (1 s)."""
    time = np.arange(round(seconds * RATE)) / RATE
    sound = np.zeros_like(time)
    for start, end, pitch in notes:
        frequency = 440 * 2 ** ((pitch - 69) / 12)
        inside = (time >= start) & (time < end)
        fade = np.clip(np.minimum(time - start, end - time) / 0.01, 0, 1)
        for number in (1, 2, 3):
            sound += inside * fade * np.sin(2 * np.pi * number * frequency * time) / number
    return (sound / 8)[None].astype(np.float32)


def midi(
    path: Path, notes: Sequence[tuple[int, float, float, int]], bpm: float | None = None
) -> Path:
    """A file of (channel, start, beats, pitch)."""
    file = mido.MidiFile(ticks_per_beat=480)
    track = file.add_track()
    if bpm is not None:
        track.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(bpm)))
    events = []
    for channel, start, beats, pitch in notes:
        events.append((round(start * 480), "note_on", channel, pitch))
        events.append((round((start + beats) * 480), "note_off", channel, pitch))
    now = 0
    for tick, kind, channel, pitch in sorted(events, key=lambda event: (event[0], event[1])):
        track.append(mido.Message(kind, channel=channel, note=pitch, time=tick - now))
        now = tick
    file.save(str(path))
    return path


# Texts


def test_notes_lie_on_the_beats() -> None:
    found = sketch(Asked(melody="C4:1 E4:1/2 -:1.5 | Bb3 F#5:2"), bpm=120)
    assert found.melody is not None
    assert found.melody.notes == ((0, 0.5, 60), (0.5, 0.75, 64), (1.5, 2, 58), (2, 3, 78))


def test_chords_last_a_bar_or_their_beats_and_come_again() -> None:
    found = sketch(Asked(chords="Am F:2 C/E:2"), bpm=120, seconds=6)
    assert found.chords is not None
    assert found.chords.spans == ((0, 2, "Am"), (2, 3, "F"), (3, 4, "C/E"), (4, 6, "Am"))
    waltz = sketch(Asked(chords="Am Gsus4"), bpm=60, meter=3)
    assert waltz.chords is not None
    assert waltz.chords.spans == ((0, 3, "Am"), (3, 6, "Gsus4"))


def test_rests_among_chords_are_nobody_s() -> None:
    found = sketch(Asked(chords="Am:2 N:2"), bpm=60, seconds=6)
    assert found.chords is not None
    assert found.chords.spans == ((0, 2, "Am"), (4, 6, "Am"))


def test_a_step_pattern_is_sixteenths_over_and_over() -> None:
    found = sketch(Asked(rhythm="x..x|x..."), bpm=60, seconds=4)
    assert found.rhythm is not None
    assert found.rhythm.strokes == (0, 0.75, 1, 2, 2.75, 3)
    assert found.rhythm.beats == (0, 1, 2, 3, 4) and found.rhythm.downbeats == (0, 4)
    assert found.rhythm.tempo == 60


def test_curves_and_what_weighs_where() -> None:
    asked = Asked(
        dynamics="0:-30 4:-12 6:-20",
        brightness="2000",
        weights=["dynamics=0.5"],
        spans=["brightness=1:3"],
        routes=["channels", "dynamics=both"],
    )
    found = sketch(asked)
    assert found.dynamics is not None and found.brightness is not None
    assert found.dynamics.points == ((0, -30), (4, -12), (6, -20))
    assert (found.dynamics.weight, found.dynamics.by) == (0.5, "both")
    assert found.brightness.points == ((0, 2000),) and found.brightness.span == (1, 3)
    assert found.brightness.by == "gradient"  # it has no channel, whatever holds for the others


def test_several_controls_are_held_by_gradients_too() -> None:
    alone, several = sketch(Asked(melody="C4:4")), sketch(Asked(melody="C4:4", chords="C"))
    asked = sketch(Asked(melody="C4:4", chords="C", routes=["chords=channels"]))
    loudness = sketch(Asked(dynamics="0:-30 4:-12"))
    assert (rhythm := sketch(Asked(rhythm="x...x...")).rhythm) and rhythm.by == "both"
    found = [
        (part.by if (part := given.parts().get(name)) else None)
        for given in (alone, several, asked, loudness)
        for name in ("melody", "chords", "dynamics")
    ]
    channels, both = "channels", "both"
    assert found[:3] == [channels, None, None] and found[3:6] == [both, both, None]
    assert found[6:9] == [both, channels, None] and found[9:] == [None, None, both]


def test_tempo_and_length_come_from_wherever_they_are_stated() -> None:
    assert read(Asked(melody="C4:8"), "a tune at 60 bpm").seconds == 8
    assert read(Asked(melody="C4:8"), "a tune at 60 bpm", bpm=120).seconds == 6
    unstated = read(Asked(chords="Am"))
    assert unstated.bpm == 100 and "100 bpm is taken" in unstated.notes[0]
    assert read(Asked()) == Outline(None, 6.0, None, None)
    assert read(Asked(chords="Am"), "a slow waltz").meter == 3


# Files


def test_a_midi_tune_is_its_highest_part_one_note_at_a_time(tmp_path: Path) -> None:
    notes = [(0, 0, 4, 40), (1, 0, 1, 72), (1, 0, 1, 76), (1, 1, 2, 74), (9, 0, 1, 100)]
    path = midi(tmp_path / "tune.mid", notes, bpm=60)
    outline = read(Asked(melody=str(path)))
    assert outline.sketch is not None and outline.sketch.melody is not None
    assert outline.sketch.melody.notes == ((0, 1, 76), (1, 3, 74))
    assert outline.bpm == 60 and "highest" in outline.notes[0]
    faster = sketch(Asked(melody=str(path)), bpm=120)
    assert faster.melody is not None and faster.melody.notes == ((0, 0.5, 76), (0.5, 1.5, 74))


def test_a_midi_rhythm_is_its_drums(tmp_path: Path) -> None:
    path = midi(tmp_path / "beat.mid", [(9, 0, 1, 36), (9, 1.5, 1, 38), (0, 1, 1, 60)], bpm=90)
    outline = read(Asked(rhythm=str(path)))
    assert outline.sketch is not None and outline.sketch.rhythm is not None
    assert outline.bpm == 90 and outline.sketch.rhythm.strokes == (0, 1)
    with pytest.raises(UserError, match=r"--bpm 120 contradicts --rhythm .* 90\.0"):
        read(Asked(rhythm=str(path)), bpm=120)


def test_a_tune_is_heard_in_a_recording(tmp_path: Path) -> None:
    wanted = [(0.2, 1.0, 62), (1.0, 1.6, 65), (2.0, 3.0, 57)]
    write_audio(tmp_path / "hum.wav", tones(wanted, 3.2), RATE)
    found = sketch(Asked(melody=str(tmp_path / "hum.wav")))
    assert found.melody is not None
    assert [pitch for _, _, pitch in found.melody.notes] == [62, 65, 57]
    for (start, end, _), (true_start, true_end, _) in zip(found.melody.notes, wanted, strict=True):
        assert abs(start - true_start) < 0.1 and abs(end - true_end) < 0.1


def test_loudness_is_heard_in_a_recording(tmp_path: Path) -> None:
    sound = tones([(0, 4, 69)], 4.0)
    sound[:, 2 * RATE :] *= 0.1
    write_audio(tmp_path / "x.wav", sound, RATE)
    found = sketch(Asked(dynamics=str(tmp_path / "x.wav")))
    assert found.dynamics is not None
    levels = dict(found.dynamics.points)
    loud, soft = (levels[round((frame + 0.5) * FRAME_SECONDS, 3)] for frame in (10, 30))
    assert abs(loud - soft - 20) < 0.2
    assert len(found.dynamics.points) == 44


def test_beats_are_heard_in_a_recording(tmp_path: Path) -> None:
    time = np.arange(8 * RATE)
    clicks = np.zeros((1, 8 * RATE), np.float32)
    for beat in np.arange(0.25, 8, 0.5):
        clicks[0] += np.where(
            time >= beat * RATE, np.exp(-(time - beat * RATE).clip(0) / 800), 0
        ) * np.sin(time * 0.3)
    write_audio(tmp_path / "x.wav", clicks / 4, RATE)
    outline = read(Asked(rhythm=str(tmp_path / "x.wav")))
    assert outline.sketch is not None and outline.sketch.rhythm is not None
    assert outline.bpm == pytest.approx(120, rel=0.02) and outline.seconds == 8
    beats = np.array(outline.sketch.rhythm.beats)
    assert np.abs((beats - 0.25 + 0.25) % 0.5 - 0.25).max() < 0.05
    strokes = np.array(outline.sketch.rhythm.strokes)
    assert len(strokes) == 16 and np.abs((strokes - 0.25 + 0.25) % 0.5 - 0.25).max() < 0.03
    with pytest.raises(UserError, match="contradicts"):
        read(Asked(rhythm=str(tmp_path / "x.wav")), bpm=97)


# What is refused


@pytest.mark.parametrize(
    "asked, fragments",
    [
        (Asked(melody="C4:1 H4:1"), ["--melody", "word 2", "'H4:1'", "C4, F#3"]),
        (Asked(melody="C4:0"), ["--melody", "word 1", "number of beats"]),
        (Asked(melody="C4:1/0"), ["--melody", "number of beats"]),
        (Asked(melody="-:1"), ["--melody", "at least one note"]),
        (Asked(melody=" "), ["--melody is empty"]),
        (Asked(melody="tune.mid"), ["--melody", "no file 'tune.mid'"]),
        (Asked(chords="Am Q7"), ["--chords", "word 2", "unknown chord 'Q7'"]),
        (Asked(chords="Am:x"), ["--chords", "Am:2"]),
        (Asked(rhythm="x..q"), ["--rhythm", "character 4", "'q'"]),
        (Asked(rhythm="...."), ["--rhythm", "at least one stroke"]),
        (Asked(dynamics="0:-30 4"), ["--dynamics", "word 2", "SECONDS:dB"]),
        (Asked(dynamics="0:-30 0:-12"), ["--dynamics", "word 2", "later"]),
        (Asked(dynamics="0:20"), ["--dynamics", "-60 to 0 dB"]),
        (Asked(brightness="5"), ["--brightness", "200 to 12000 Hz"]),
        (Asked(stereo_width="2"), ["--stereo-width", "0 to 1"]),
        (Asked(onset_density="40"), ["--onset-density", "0 to 12 onsets a second"]),
        (Asked(onset_density="4", routes=["onset_density=channels"]), ["gradient only"]),
        (Asked(melody="C4", weights=["melody"]), ["--weight", "CONTROL=VALUE"]),
        (Asked(melody="C4", weights=["melody=11"]), ["--weight melody=11", "0 to 10"]),
        (Asked(melody="C4", weights=["melodie=1"]), ["did you mean 'melody'"]),
        (Asked(melody="C4", weights=["chords=1"]), ["--weight", "--chords", "not given"]),
        (Asked(melody="C4", spans=["melody=4:2"]), ["--span melody", "FROM:TO"]),
        (Asked(melody="C4", spans=["melody=4:9"]), ["--span melody=4:9", "beyond the clip"]),
        (Asked(melody="C4", routes=["radio"]), ["--control-by", "'radio'", "gradient"]),
        (Asked(like="x.wav", routes=["like=channels"]), ["like", "gradient only"]),
        (Asked(like="x.wav"), ["--like", "no file 'x.wav'"]),
    ],
)
def test_one_line_says_where_and_what_was_expected(asked: Asked, fragments: list[str]) -> None:
    with pytest.raises(UserError) as refused:
        read(asked)
    assert "\n" not in str(refused.value)
    for fragment in fragments:
        assert fragment in str(refused.value)


def test_controls_longer_than_the_clip_are_refused_but_for_a_span() -> None:
    with pytest.raises(UserError, match=r"--melody lasts 8\.00 s, the clip 6.*--span melody=0:6"):
        read(Asked(melody="C4:8"), bpm=60, seconds=6)
    outline = read(Asked(melody="C4:8", spans=["melody=0:6"]), bpm=60, seconds=6)
    assert outline.seconds == 6
    with pytest.raises(UserError, match=r"at most 600"):
        read(Asked(melody="C4:900"), bpm=60)


@pytest.mark.parametrize("option", ["melody", "rhythm", "dynamics", "like"])
def test_silent_and_broken_references_are_refused(tmp_path: Path, option: str) -> None:
    write_audio(tmp_path / "silent.wav", np.zeros((1, RATE), np.float32), RATE)
    with pytest.raises(UserError, match=rf"--{option}: .*silent\.wav' is silent"):
        read(Asked(**{option: str(tmp_path / "silent.wav")}))
    (tmp_path / "text.wav").write_text("hello")
    with pytest.raises(UserError, match=rf"--{option}: .*not an audio file"):
        read(Asked(**{option: str(tmp_path / "text.wav")}))


def test_noise_has_no_tune(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=(1, RATE)).astype(np.float32) / 10
    write_audio(tmp_path / "noise.wav", noise, RATE)
    with pytest.raises(UserError, match=r"no (pitch|note)"):
        read(Asked(melody=str(tmp_path / "noise.wav")))


def test_midi_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.mid").write_bytes(b"MThd rubbish")
    with pytest.raises(UserError, match="no MIDI file that can be read"):
        read(Asked(melody=str(tmp_path / "x.mid")))
    with pytest.raises(UserError, match="without notes"):
        read(Asked(melody=str(midi(tmp_path / "empty.mid", []))))
    with pytest.raises(UserError, match="only drums"):
        read(Asked(melody=str(midi(tmp_path / "drums.mid", [(9, 0, 1, 36)]))))


# Grids


def test_a_grid_goes_both_ways_and_on_beyond_its_ends() -> None:
    grid = Grid((1.0, 2.0, 4.0), 4)
    for beat, time in ((-1, 0), (0, 1), (0.5, 1.5), (1.5, 3), (2, 4), (3, 6)):
        assert grid.seconds(beat) == time and grid.beat(time) == beat
    assert steady(120, 3).beats(3.0) == ((0, 0.5, 1, 1.5, 2, 2.5, 3), (0, 1.5, 3))
    late = Grid((0.5, 1.0), 2).beats(1.6)  # the bar that goes on at 0 began before
    assert late == ((-0.5, 0, 0.5, 1, 1.5, 2, 2.5), (-0.5, 0.5, 1.5, 2.5))
