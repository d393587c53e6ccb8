"""What of a clip is laid down beforehand: a tune, chords, a rhythm, curves, another's sound.

A sketch is data: whatever it was read from (:mod:`audiodiff.inputs`), it holds notes, times and
points, so that a clip can be made again from its record alone. Times are seconds of the clip.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from statistics import median

from shared.errors import UserError

ROUTES = ("channels", "gradient", "both")
LOUDEST_WEIGHT = 10.0


@dataclass(frozen=True, kw_only=True)
class Part:
    """One thing that is given, and how it is to be held.

    Attributes:
        weight: how much it counts; 1 is as the model learnt, 0 not at all. For the control channels
            it is a guidance scale, for gradients the weight of the loss; loudness is brought that
            share of the way, at most all of it.
        span: the seconds, from and to, in which alone it counts; None is everywhere.
        by: a route: the model's control channels, a gradient of a loss, or both.

    Raises:
        UserError: a weight, a span or a route that cannot be.
    """

    weight: float = 1.0
    span: tuple[float, float] | None = None
    by: str = "channels"

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= LOUDEST_WEIGHT:
            raise UserError(f"a weight is from 0 to {LOUDEST_WEIGHT:g}, not {self.weight:g}")
        if self.span is not None and not 0 <= self.span[0] < self.span[1] < math.inf:
            start, end = self.span
            raise UserError(f"a span is FROM:TO, FROM before TO, not {start:g}:{end:g}")
        if self.by not in ROUTES:
            raise UserError(f"a control is held by {' or '.join(ROUTES)}, not {self.by!r}")

    def covers(self, seconds: float) -> bool:
        """Whether the part counts at that time."""
        return self.span is None or self.span[0] <= seconds < self.span[1]

    @property
    def in_channels(self) -> bool:
        """Whether the control channels are told of it."""
        return self.by != "gradient" and self.weight != 0

    @property
    def in_gradient(self) -> bool:
        """Whether a gradient follows it."""
        return self.by != "channels" and self.weight != 0


@dataclass(frozen=True, kw_only=True)
class Melody(Part):
    """A tune: start, end and MIDI pitch of each note, one after the other."""

    notes: tuple[tuple[float, float, int], ...]

    def heard(self) -> tuple[tuple[float, float, int], ...]:
        """The notes within the span, cut where it cuts them."""
        return tuple(_cut(self.notes, self.span))

    @property
    def end(self) -> float:
        """When it is over, in seconds."""
        return max(end for _, end, _ in self.notes)


@dataclass(frozen=True, kw_only=True)
class Chords(Part):
    """Start, end and name of each chord, one after the other."""

    spans: tuple[tuple[float, float, str], ...]

    def heard(self) -> tuple[tuple[float, float, str], ...]:
        """The chords within the span, cut where it cuts them."""
        return tuple(_cut(self.spans, self.span))

    def sounds_at(self, seconds: float) -> bool:
        """Whether there is a chord at that time."""
        return any(start <= seconds < end for start, end, _ in self.spans)


@dataclass(frozen=True, kw_only=True)
class Rhythm(Part):
    """Times of the beats, of those that begin a bar, and of the strokes.

    ``strokes`` is empty where only the beat was given.
    """

    beats: tuple[float, ...]
    downbeats: tuple[float, ...]
    strokes: tuple[float, ...] = ()

    @property
    def tempo(self) -> float:
        """Beats a minute, by the median gap."""
        return 60 / self._gap(self.beats)

    @property
    def meter(self) -> int:
        """Beats a bar, by the median gaps; 4 where there is only one bar."""
        if len(self.downbeats) < 2:
            return 4
        return max(1, round(self._gap(self.downbeats) / self._gap(self.beats)))

    @staticmethod
    def _gap(times: tuple[float, ...]) -> float:
        return median(later - sooner for sooner, later in pairwise(times))


@dataclass(frozen=True, kw_only=True)
class Curve(Part):
    """Points (seconds, value), straight lines between them, even beyond the first and the last."""

    points: tuple[tuple[float, float], ...]

    @property
    def end(self) -> float:
        """The time of the last point."""
        return self.points[-1][0]


@dataclass(frozen=True, kw_only=True)
class Timbre(Part):
    """How another recording sounds: of each mel band, low to high, relative to its loudness.

    Attributes:
        mean: of the natural logarithm of its level over time.
        spread: that logarithm's standard deviation.
    """

    mean: tuple[float, ...]
    spread: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Sketch:
    """All that is given; None where nothing is.

    Attributes:
        dynamics: level, dB.
        like: the timbre of a reference.
        brightness: spectral centroid, Hz.
        stereo_width: 0 (mono) to 1, see :class:`audiodiff.spectrogram.StereoMel`.
        noisiness: spectral flatness, 0 (a tone) to 1 (white noise).
        onset_density: sounds that begin in a second.
    """

    melody: Melody | None = None
    chords: Chords | None = None
    rhythm: Rhythm | None = None
    dynamics: Curve | None = None
    like: Timbre | None = None
    brightness: Curve | None = None
    stereo_width: Curve | None = None
    noisiness: Curve | None = None
    onset_density: Curve | None = None

    def parts(self) -> Mapping[str, Part]:
        """Name -> what is given."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: part for name, part in found.items() if part is not None}


def _cut(items, span: tuple[float, float] | None):
    for start, end, value in items:
        if span is not None:
            start, end = max(start, span[0]), min(end, span[1])
        if end > start:
            yield start, end, value
