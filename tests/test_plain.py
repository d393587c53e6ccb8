"""A sketch played plainly: which notes are struck when, and that the measures find them."""

from pathlib import Path

import numpy as np
import pytest
from test_render import SOUNDFONT, needs_soundfont

from audiodiff import plain
from audiodiff.kept import sketch_kept
from audiodiff.metrics import hear
from audiodiff.score import Score
from audiodiff.sketch import Chords, Curve, Melody, Rhythm, Sketch

BEATS = tuple(0.5 * number for number in range(12))
SKETCH = Sketch(
    melody=Melody(notes=((0.0, 2.0, 76), (2.0, 4.0, 72), (4.0, 6.0, 67))),
    chords=Chords(spans=((0.0, 2.0, "Am"), (2.0, 4.0, "F"), (4.0, 6.0, "C"))),
    rhythm=Rhythm(beats=BEATS, downbeats=BEATS[::4]),
    dynamics=Curve(points=((0.0, -30.0), (6.0, -20.0))),
)


def test_each_part_plays_what_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    scores: list[Score] = []

    def render(score: Score, soundfont: Path, seconds: float) -> np.ndarray:
        scores.append(score)
        return np.zeros((2, round(seconds * 44100)), np.float32)

    monkeypatch.setattr(plain, "render", render)
    assert plain.played(SKETCH, Path("x.sf2"), 6.0).shape == (2, 6 * 44100)
    (score,) = scores
    assert score.tempo == 120 and score.beats == 12
    parts = {part.role: part.notes for part in score.parts}
    assert [(note.start, note.duration, note.pitch) for note in parts["melody"]] == [
        (0, 4, 76), (4, 4, 72), (8, 4, 67)
    ]  # fmt: skip
    assert [note.pitch for note in parts["bass"]] == [45, 41, 36]
    assert {note.pitch % 12 for note in parts["chords"] if note.start == 4} == {5, 9, 0}
    kicks = [note.start for note in parts["drums"] if note.pitch == plain.KICK]
    assert kicks == [0, 4, 8] and len(parts["drums"]) == 12


@needs_soundfont
def test_what_is_played_is_found() -> None:
    assert SOUNDFONT is not None
    samples = plain.played(SKETCH, SOUNDFONT, 6.0)
    found = sketch_kept(samples, hear(samples), SKETCH)
    assert float(found["melody"]["accuracy"]) > 0.9
    assert float(found["rhythm"]["beat_f1"]) == 1
    assert float(found["dynamics"]["r"]) > 0.95
