"""What a recording stands on, for others to play along: its beats, bars, chords and key."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import numpy as np

from audiodiff.bars import first_downbeat
from audiodiff.chord_heard import chords_heard
from audiodiff.inputs.audio import track_beats
from audiodiff.inputs.grid import Grid
from audiodiff.key import estimate_key
from audiodiff.labels import SAMPLE_RATE
from audiodiff.metrics import hear
from audiodiff.theory import Key

FEWEST = 4  # beats that make a grid


@dataclass(frozen=True)
class Ground:
    """What was heard.

    Attributes:
        grid: beats and bars; None for what has no beat.
        key: None for what has no pitch.
        chords: start, end and name of each, as major or minor; where there is none, nothing.
    """

    grid: Grid | None
    key: Key | None
    chords: tuple[tuple[float, float, str], ...]

    @property
    def tempo(self) -> float | None:
        """Beats a minute, by the median gap."""
        if self.grid is None:
            return None
        return 60 / median(later - sooner for sooner, later in pairwise(self.grid.times))

    def told(self) -> str:
        """Such as "about 120 bpm, probably A minor"."""
        tempo = "no beat" if self.tempo is None else f"about {self.tempo:.0f} bpm"
        return f"{tempo}, " + ("no key" if self.key is None else f"probably {self.key.name}")


def listen(
    samples: np.ndarray, meter: int = 4, bpm: float | None = None, start: float = 0.0
) -> Ground:
    """Listen to a recording (c s) at 44.1 kHz.

    Args:
        bpm: its tempo, if that is known.
        start: the time, seconds, at which it begins.
    """
    heard = hear(samples)
    times = track_beats(heard.onsets, bpm)
    grid = None
    if len(times) >= FEWEST:
        first = first_downbeat(samples, heard.chords, times.tolist(), meter)
        first = min(first, len(times) - 2)
        grid = Grid(tuple(round(start + float(time), 3) for time in times[first:]), meter)
    chords = tuple(
        (round(start + a, 3), round(start + b, 3), name.replace(":maj", "").replace(":min", "m"))
        for a, b, name in chords_heard(heard.chords)
        if name != "N"
    )
    key = estimate_key(samples, SAMPLE_RATE)
    return Ground(grid, key, chords)
