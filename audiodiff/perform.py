"""From written strokes to played notes: dynamics, swing, human timing, instruments' ranges."""

import bisect
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from audiodiff.melody import Stroke
from audiodiff.score import Note

LONGEST_STRAY_MS = 15.0
SHORTEST_NOTE = 0.05  # beats


@dataclass(frozen=True)
class Feel:
    """How a piece is played.

    Attributes:
        tempo: beats a minute.
        meter: beats a bar.
        swing: where in its pair the second note falls, 0.5 is straight.
        swing_pair: the pair's length in beats.
        looseness: standard deviation from the grid, ms.
    """

    tempo: float
    meter: int
    swing: float
    swing_pair: float
    looseness: float


def swung(beat: float, swing: float, pair: float) -> float:
    """Where a written position is played: halves of each ``pair`` become ``swing`` and the rest.

    Beats stay where they are, as a pair is a beat or half of one.
    """
    first, within = divmod(beat, pair)
    within /= pair
    bent = 2 * swing * within if within < 0.5 else swing + (within - 0.5) * 2 * (1 - swing)
    return (first + bent) * pair


def curve(points: Sequence[tuple[float, float]]) -> Callable[[float], float]:
    """A level over beats, straight between ``points`` and constant outside them."""
    beats = [beat for beat, _ in points]

    def level(beat: float) -> float:
        after = bisect.bisect_right(beats, beat)
        if after == 0:
            return points[0][1]
        if after == len(points):
            return points[-1][1]
        (start, low), (end, high) = points[after - 1], points[after]
        return low + (high - low) * (beat - start) / (end - start)

    return level


def perform(
    rng: random.Random,
    strokes: Sequence[Stroke],
    feel: Feel,
    level: Callable[[float], float],
    pitches: tuple[int, int],
    *,
    monophonic: bool,
    length: float,
) -> tuple[Note, ...]:
    """Play strokes: the notes come back sorted, inside ``pitches`` and before ``length`` beats.

    Notes out of range move by octaves. Notes of one pitch never overlap, and of a monophonic part
    no two notes at all.
    """
    played = []
    ms = feel.tempo / 60000  # beats
    unsteady = min(0.08, 0.012 * feel.looseness)
    for start, duration, pitch, strength in sorted(strokes):
        stray = max(-LONGEST_STRAY_MS, min(LONGEST_STRAY_MS, rng.gauss(0, feel.looseness)))
        begin = max(0.0, swung(start, feel.swing, feel.swing_pair) + stray * ms)
        if begin >= length:
            continue
        end = min(length, swung(start + duration, feel.swing, feel.swing_pair))
        accent = 1.06 if start % feel.meter == 0 else 1.0 if start % 1 == 0 else 0.94
        velocity = 127 * level(start) * strength * accent * (1 + rng.uniform(-unsteady, unsteady))
        pitch = _within(pitch, *pitches)
        end = max(begin + SHORTEST_NOTE, end)
        played.append((begin, pitch, end, max(10, min(127, round(velocity)))))
    played.sort()
    return tuple(
        Note(begin, end - begin, pitch, velocity)
        for begin, pitch, end, velocity in _apart(played, monophonic)
    )


def _within(pitch: int, low: int, high: int) -> int:
    while pitch < low:
        pitch += 12
    while pitch > high:
        pitch -= 12
    return pitch


Played = tuple[float, int, float, int]  # start, pitch, end, velocity


def _apart(notes: Sequence[Played], monophonic: bool) -> list[Played]:
    """Shorten what would overlap the next note (of the same pitch); drop what falls on it."""
    apart: list[Played] = []
    last: dict[int, int] = {}  # voice -> index of its latest note in `apart`
    for note in notes:
        begin, pitch = note[:2]
        voice = 0 if monophonic else pitch
        before = last.get(voice)
        if before is not None and apart[before][2] > begin:
            struck, held, _, velocity = apart[before]
            if begin - struck < SHORTEST_NOTE:
                continue
            apart[before] = (struck, held, begin, velocity)
        last[voice] = len(apart)
        apart.append(note)
    return apart
