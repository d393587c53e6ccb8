"""Where beats lie in time."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass


@dataclass(frozen=True)
class Grid:
    """Beat numbers and their times.

    Attributes:
        times: of beats 0, 1, ... in seconds, at least two; beat 0 begins a bar. Before and after
            them the beats go on evenly.
        meter: beats a bar.
    """

    times: tuple[float, ...]
    meter: int

    def seconds(self, beat: float) -> float:
        """The time of a beat, fractions included."""
        index = min(max(math.floor(beat), 0), len(self.times) - 2)
        gap = self.times[index + 1] - self.times[index]
        return self.times[index] + (beat - index) * gap

    def beat(self, seconds: float) -> float:
        """The beat, fractions included, at a time."""
        index = min(max(bisect_right(self.times, seconds) - 1, 0), len(self.times) - 2)
        gap = self.times[index + 1] - self.times[index]
        return index + (seconds - self.times[index]) / gap

    def beats(self, seconds: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The times of all beats, and of those that begin a bar, in a clip of that length.

        From the bar that goes on at 0, so the first may be negative, to the first bar after the
        end.
        """
        first = math.floor(self.beat(0.0) / self.meter) * self.meter
        last = math.ceil(self.beat(seconds) / self.meter) * self.meter
        times = [_rounded(self.seconds(beat)) for beat in range(first, last + 1)]
        return tuple(times), tuple(times[:: self.meter])


def steady(bpm: float, meter: int) -> Grid:
    """Even beats, the first at 0."""
    return Grid((0.0, 60 / bpm), meter)


def _rounded(seconds: float) -> float:
    return round(seconds, 4)
