import dataclasses
import json
import random

import pytest

from audiodiff.labels import FRAME_SECONDS, Labels, from_json, labels_from_score, to_json
from audiodiff.score import DRUM_ROLES, Note, Part, Score
from audiodiff.theory import parse_chord, parse_key
from shared.errors import UserError


def score(tempo: float = 120.0) -> Score:
    """Two bars of 4/4; a melody of a held note and a short one, and a drum."""
    melody = (Note(0.0, 3.0, 60, 90), Note(5.0, 1.0, 67, 90))
    drum = (Note(0.0, 0.5, 36, 90),)
    return Score(
        style="techno",
        mood="dark",
        tempo=tempo,
        meter=4,
        key=parse_key("A minor"),
        chords=tuple(parse_chord(name) for name in ["Am"] * 4 + ["F", "F", "C/G", "C/G"]),
        parts=(
            Part("piano", 0, "melody", melody, 0.0, 0.8, 0.3),
            Part("drums", 0, "drums", drum, 0.0, 0.8, 0.3),
        ),
        sections=((0, "verse"),),
        beats=8,
        seed="hand-made",
    )


def random_labels(rng: random.Random) -> Labels:
    tempo = rng.uniform(60, 170)
    beats = tuple(i * 60 / tempo for i in range(rng.randrange(40)))
    return Labels(
        kind=rng.choice([None, "music", "sound"]),
        style=rng.choice([None, "lo-fi", "tëchno “x”"]),
        mood=rng.choice([None, "calm"]),
        instruments=tuple(rng.sample(["piano", "drums", "flute"], rng.randrange(4))),
        tempo=rng.choice([None, tempo]),
        meter=rng.choice([None, 3, 4]),
        key=rng.choice([None, "F# minor"]),
        chords=tuple(rng.choice(["Am", "G7/B"]) for _ in beats),
        melody=tuple(
            (start, start + rng.uniform(0.1, 2), rng.randrange(128))
            for start in sorted(rng.uniform(0, 9) for _ in range(rng.randrange(9)))
        ),
        beats=beats,
        downbeats=beats[::4],
        dynamics=tuple(rng.uniform(-80, 0) for _ in range(rng.randrange(30))),
        duration=rng.choice([None, rng.uniform(0.5, 20)]),
    )


def test_every_label_survives_json():
    rng = random.Random(0)
    for _ in range(300):
        labels = random_labels(rng)
        assert from_json(json.loads(json.dumps(to_json(labels)))) == labels
    assert from_json({}) == Labels()
    assert from_json({"file_name": "a.wav", "text": "x", "artist": 3}) == Labels()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("kind", "noise"),
        ("kind", ["music"]),
        ("style", 3),
        ("instruments", "piano"),
        ("instruments", [1]),
        ("tempo", "fast"),
        ("tempo", 0),
        ("tempo", True),
        ("tempo", float("nan")),
        ("meter", 3.5),
        ("meter", 0),
        ("key", ["A"]),
        ("chords", "Am"),
        ("melody", [[0, 1]]),
        ("melody", [[0, 1, 60.5]]),
        ("melody", [[0, 1, 128]]),
        ("melody", 5),
        ("beats", [0, 2, 1]),
        ("beats", [0, None]),
        ("dynamics", {"a": 1}),
        ("duration", -1),
    ],
)
def test_columns_of_another_kind_are_told(column, value):
    with pytest.raises(UserError, match=f"the column {column} holds") as error:
        from_json({column: value})
    assert "\n" not in str(error.value)


def test_labels_of_a_score():
    labels = labels_from_score(score(), dynamics=[-10.123, -20.0])
    assert labels == Labels(
        kind="music",
        style="techno",
        mood="dark",
        instruments=("piano", "drums"),
        tempo=120.0,
        meter=4,
        key="A minor",
        chords=("Am", "Am", "Am", "Am", "F", "F", "C/G", "C/G"),
        melody=((0.0, 1.5, 60), (2.5, 3.0, 67)),
        beats=(0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5),
        downbeats=(0.0, 2.0),
        dynamics=(-10.12, -20.0),
        duration=4.0,
    )


def test_labels_of_a_clip_shorter_than_its_score():
    labels = labels_from_score(score(), duration=2.6)
    assert labels.duration == 2.6
    assert labels.beats == (0.0, 0.5, 1.0, 1.5, 2.0, 2.5)
    assert labels.chords == ("Am",) * 4 + ("F",) * 2
    assert labels.melody == ((0.0, 1.5, 60), (2.5, 2.6, 67))


def test_a_window_cuts_and_shifts():
    whole = dataclasses.replace(
        labels_from_score(score()), dynamics=tuple(float(i) for i in range(44))
    )
    part = whole.window(0.75, 2.0)
    assert part.beats == (-0.25, 0.25, 0.75, 1.25, 1.75)
    assert part.chords == ("Am", "Am", "Am", "F", "F")
    assert part.downbeats == (-0.75, 1.25)
    assert part.melody == ((0.0, 0.75, 60), (1.75, 2.0, 67))
    assert part.dynamics == tuple(float(i) for i in range(8, 30))  # .75 s is 8.07 frames
    assert part.duration == 2.0
    assert (part.style, part.tempo, part.key) == ("techno", 120.0, "A minor")
    assert whole.window(0.0, 4.0) == whole
    assert whole.window(3.0, 60.0).duration == 1.0
    assert whole.window(1.6, 0.5).melody == ()


def test_windows_of_whole_frames_have_as_many():
    labels = Labels(dynamics=tuple(float(i) for i in range(300)))
    for first in range(0, 200, 7):
        part = labels.window(first * FRAME_SECONDS, 64 * FRAME_SECONDS)
        assert part.dynamics == labels.dynamics[first : first + 64]


def test_windows_compose():
    rng = random.Random(1)
    for _ in range(100):
        labels = dataclasses.replace(random_labels(rng), dynamics=(), duration=20.0)
        direct = labels.window(3.0, 2.0)
        twice = labels.window(1.0, 8.0).window(2.0, 2.0)
        assert twice.chords == direct.chords
        assert twice.beats == pytest.approx(direct.beats)
        assert twice.downbeats == pytest.approx(direct.downbeats)
        assert [note[2] for note in twice.melody] == [note[2] for note in direct.melody]


def test_unknown_stays_unknown():
    assert Labels().window(1.0, 2.0) == Labels(duration=2.0)


def test_drums_alone_have_neither_key_nor_chords() -> None:
    whole = score()
    drums = tuple(part for part in whole.parts if part.role in DRUM_ROLES)
    assert drums and len(drums) < len(whole.parts)
    found = labels_from_score(dataclasses.replace(whole, parts=drums))
    assert found.key is None and not found.chords and not found.melody
    assert found.tempo == whole.tempo and found.beats == labels_from_score(whole).beats
