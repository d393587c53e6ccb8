"""From one track to another: beats on beats, a pace that glides, chords between keys."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from audiodiff.labels import FRAME_SECONDS
from audiodiff.tempo import onset_strength
from audiodiff.theory import parse_key
from audiodiff.transition_controls import transition_controls
from audiodiff.transitions import draft, meet, stretched, way

RATE = 44100


def tone(seconds: float) -> np.ndarray:
    """330 and 440 Hz, without a beat: (2 s)."""
    time = np.arange(round(seconds * RATE)) / RATE
    return 0.2 * np.stack([np.sin(2 * np.pi * hz * time) for hz in (330, 440)]).astype(np.float32)


def beaten(seconds: float, bpm: float, pitches: Sequence[float], offset: float = 0.0) -> np.ndarray:
    """A chord that is struck on every beat, (2 s), the first at ``offset`` seconds."""
    time = np.arange(round(seconds * RATE)) / RATE
    since = (time - offset) % (60 / bpm)
    tones = sum(np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * time) for pitch in pitches)
    made = tones * np.exp(-8 * since) * np.minimum(1, since / 0.002) * (time >= offset) / 8
    return np.stack([made, made]).astype(np.float32)


def test_beats_meet_beats_and_the_pace_glides() -> None:
    first, second = beaten(10, 120, (57, 60, 64)), beaten(10, 126, (57, 60, 64), 0.2)
    meeting = meet(first, second, RATE, 2.5)
    assert meeting.first.tempo == pytest.approx(120, rel=0.02)
    assert meeting.second.tempo == pytest.approx(126, rel=0.02)
    assert meeting.on_beats and len(meeting.marks) == 6
    assert (meeting.leave * 2) % 1 == pytest.approx(0, abs=0.06) or (meeting.leave * 2) % 1 > 0.94
    assert 10 - (meeting.leave + 5 * 0.5) < 0.55  # less than a beat falls away
    late = (meeting.enter - 0.2) * 126 / 60
    assert abs(late - round(late)) < 0.1 and round(late) == 5
    gaps = np.diff(meeting.marks)
    assert gaps[0] == pytest.approx(0.5, abs=0.02) and gaps[-1] == pytest.approx(60 / 126, abs=0.02)
    # The beats of the draft lie where they are said to.
    made = draft(first, second, RATE, meeting)
    onsets = onset_strength(made)
    for mark in meeting.marks[1:-1]:
        near = onsets[round(mark * 100) - 4 : round(mark * 100) + 5]
        assert near.max() > 0.4 * onsets[10:].max()


def test_what_has_no_beat_or_another_pace_meets_as_it_is() -> None:
    steady = np.sin(np.arange(6 * RATE) / 20)[None].repeat(2, 0).astype(np.float32) / 4
    meeting = meet(steady, beaten(8, 120, (57,)), RATE, 2.5)
    assert meeting.on_beats is False and (meeting.leave, meeting.enter) == (3.5, 2.5)
    assert meeting.marks == (0, 2.5)
    assert "do not go together" in meeting.told()[1]
    quick = meet(beaten(8, 150, (57,)), beaten(8, 105, (57,)), RATE, 2.5)
    assert quick.on_beats is False


def test_keys_are_led_over_by_chords_that_both_know() -> None:
    keys = {name: parse_key(name) for name in ("C major", "A minor", "G major", "E major")}
    assert way(keys["C major"], keys["A minor"]) == ()  # the same notes
    assert way(None, keys["C major"]) == ()
    assert way(keys["C major"], keys["G major"]) == ("C", "Am", "D")
    far = way(keys["C major"], keys["E major"])
    assert far == ("C", "B")  # no triad is in both


def test_the_model_is_told_of_beats_keys_and_chords() -> None:
    first, second = beaten(10, 120, (57, 60, 64)), beaten(10, 120, (57, 60, 64))
    meeting = replace(
        meet(first, second, RATE, 2.0), chords=("C", "Am", "D"),
    )  # fmt: skip
    grounds = [replace(meeting.first, key=parse_key(name)) for name in ("C major", "G major")]
    meeting = replace(meeting, first=grounds[0], second=replace(meeting.second, key=grounds[1].key))
    told = transition_controls(meeting, -16 * FRAME_SECONDS, 54)
    assert told.known["beats"].all() and told.known["tempo"].all() and told.known["key"].all()
    tempo = 110 * 2 ** told.values["tempo"][0]
    assert tempo.numpy() == pytest.approx(np.full(54, 120), rel=0.03)
    f, f_sharp = told.values["key"][5], told.values["key"][6]
    assert f[0] == 1 and f_sharp[0] == 0 and f[-1] == 0 and f_sharp[-1] == 1
    inside = told.known["chords"].nonzero()[:, 0]
    assert inside[0] == 16 and len(inside) == pytest.approx(2.0 / FRAME_SECONDS, abs=2)
    assert told.values["chords"][[0, 4, 7], 17].tolist() == [1, 1, 1]  # C first


@pytest.mark.slow
def test_a_stretched_tone_keeps_its_pitch_and_length() -> None:
    sound = tone(2)
    made = stretched(sound, 0.8, 2 * RATE)
    assert made.shape == sound.shape
    peak = np.abs(np.fft.rfft(made[0, 9000:75000] * np.hanning(66000))).argmax() * RATE / 66000
    assert peak == pytest.approx(330, abs=2)


def test_a_draft_begins_as_the_one_and_ends_as_the_other() -> None:
    silence = np.zeros((2, 3 * RATE), np.float32)
    sound = tone(3)
    begun = draft(sound, silence, RATE, meet(sound, silence, RATE, 1.0))
    assert np.allclose(begun[:, :10], sound[:, 2 * RATE : 2 * RATE + 10], atol=1e-3)
    ended = draft(silence, sound, RATE, meet(silence, sound, RATE, 1.0))
    assert np.allclose(ended[:, -10:], sound[:, RATE - 10 : RATE], atol=1e-3)
