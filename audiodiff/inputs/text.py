"""Controls written as text: notes, chords, steps and curves. No numpy.

Every error says which option, the place in the text and what was expected there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar

from audiodiff.inputs.grid import Grid
from audiodiff.theory import ACCIDENTALS, LETTERS, Chord, parse_chord
from shared.errors import UserError

RESTS = ("-", "r", "R")
STROKES, GAPS = "xX", ".-_"
STEPS_A_BEAT = 4
LONGEST = 10_000  # words; more is no chart that anyone wrote
Value = TypeVar("Value")

_NOTE = re.compile(r"([A-Ga-g])([#♯b♭]?)(-?\d)")


@dataclass(frozen=True)
class Beats(Generic[Value]):
    """What lasts some beats: a MIDI pitch or a chord, or None for a rest."""

    value: Value | None
    beats: float


def read_notes(text: str, option: str) -> list[Beats[int]]:
    """Notes one after the other with their beats: "C4:1 E4:1.5 -:1/2 | G4:2"; bars count nothing.

    Raises:
        UserError: a word that is no note or rest, or no note at all.
    """
    found: list[Beats[int]] = []
    for place, word in _words(text, option):
        name, beats = _with_beats(word, 1.0, place, option, "C4:1.5")
        if name in RESTS:
            found.append(Beats(None, beats))
            continue
        note = _NOTE.fullmatch(name)
        if note is None:
            raise UserError(
                f"{option}: {place}: expected a note with its octave, such as C4, F#3 or Bb5, "
                "or - for a rest"
            )
        letter, accidental, octave = note.groups()
        pitch = LETTERS[letter.upper()] + ACCIDENTALS[accidental] + 12 * (int(octave) + 1)
        if not 0 <= pitch <= 127:
            raise UserError(f"{option}: {place}: expected a note from C-1 to G9")
        found.append(Beats(pitch, beats))
    if all(item.value is None for item in found):
        raise UserError(f"{option}: expected at least one note, such as C4:1")
    return found


def read_chords(text: str, option: str, meter: int) -> list[Beats[Chord]]:
    """Chords one after the other, a bar each or with their beats: "Am F", "Am7/G:2 N:2".

    "N" or "-" stands for no chord.

    Raises:
        UserError: a word that is no chord, or no chord at all.
    """
    found: list[Beats[Chord]] = []
    for place, word in _words(text, option):
        name, beats = _with_beats(word, float(meter), place, option, "Am:2")
        if name in ("N", *RESTS):
            found.append(Beats(None, beats))
            continue
        try:
            found.append(Beats(parse_chord(name), beats))
        except UserError as error:
            raise UserError(f"{option}: {place}: {error}") from None
    if all(item.value is None for item in found):
        raise UserError(f"{option}: expected at least one chord, such as Am")
    return found


def placed(items: Sequence[Beats[Value]], grid: Grid) -> list[tuple[float, float, Value]]:
    """Start and end in seconds of what sounds, from beat 0 on."""
    starts = [0.0]
    for item in items:
        starts.append(starts[-1] + item.beats)
    return [
        (round(grid.seconds(start), 4), round(grid.seconds(end), 4), item.value)
        for item, (start, end) in zip(items, pairwise(starts), strict=True)
        if item.value is not None
    ]


def read_pattern(text: str, option: str) -> tuple[int, list[int]]:
    """A step pattern, "x..x..x.": how many steps, sixteenths, it has, and which are strokes.

    Raises:
        UserError: another sign, or no stroke.
    """
    steps = []
    for place, sign in enumerate(text, start=1):
        if sign in "| ":
            continue
        if sign not in STROKES + GAPS:
            raise UserError(
                f"{option}: character {place}, {sign!r}: expected x for a stroke or . for none, "
                "a sixteenth each, or the name of an audio or MIDI file"
            )
        steps.append(sign in STROKES)
    strokes = [number for number, stroke in enumerate(steps) if stroke]
    if not strokes:
        raise UserError(f"{option}: expected at least one stroke, as in x...x...x...x...")
    return len(steps), strokes


def strokes_of(pattern: tuple[int, list[int]], grid: Grid, seconds: float) -> tuple[float, ...]:
    """The times of a pattern's strokes, over and over from beat 0 on, in a clip of that length."""
    steps, strokes = pattern
    length = steps / STEPS_A_BEAT
    first, last = math.floor(grid.beat(0.0) / length), math.ceil(grid.beat(seconds) / length)
    times = (
        grid.seconds(turn * length + stroke / STEPS_A_BEAT)
        for turn in range(first, last + 1)
        for stroke in strokes
    )
    return tuple(round(time, 4) for time in times if 0 <= time < seconds)


def read_points(
    text: str, option: str, unit: str, limits: tuple[float, float]
) -> tuple[tuple[float, float], ...]:
    """A curve: "0:-30 4:-12" (seconds:value, ascending), or one value alone for everywhere.

    Raises:
        UserError: no such points, or a value beyond the limits.
    """
    points: list[tuple[float, float]] = []
    words = _words(text, option)
    for place, word in words:
        left, colon, right = word.partition(":")
        time, value = (_number(left), _number(right)) if colon else (0.0, _number(left))
        if time is None or value is None or (not colon and len(words) > 1):
            raise UserError(
                f"{option}: {place}: expected SECONDS:{unit}, such as 4:{limits[1]:g}"
                + ("" if len(words) > 1 else ", one value alone, or the name of a file")
            )
        if time < 0 or (points and time <= points[-1][0]):
            raise UserError(f"{option}: {place}: expected a later time than the point before")
        if not limits[0] <= value <= limits[1]:
            low, high = limits
            raise UserError(f"{option}: {place}: expected {low:g} to {high:g} {unit}")
        points.append((time, value))
    return tuple(points)


def read_span(text: str, option: str) -> tuple[float, float]:
    """ "2:4" -> (2.0, 4.0), seconds.

    Raises:
        UserError: it is no such pair.
    """
    left, _, right = text.partition(":")
    start, end = _number(left), _number(right)
    if start is None or end is None or not 0 <= start < end:
        raise UserError(f"{option}: {text!r}: expected FROM:TO in seconds, such as 2:4")
    return start, end


def _words(text: str, option: str) -> list[tuple[str, str]]:
    """The words of a text, each with its place as people count; bar lines are left out."""
    words = [word for word in text.replace("|", " ").replace(",", " ").split() if word]
    if not words:
        raise UserError(f"{option} is empty")
    if len(words) > LONGEST:
        raise UserError(f"{option} has {len(words)} words; at most {LONGEST} are read")
    return [(f"word {number}, {word!r}", word) for number, word in enumerate(words, start=1)]


def _with_beats(
    word: str, default: float, place: str, option: str, example: str
) -> tuple[str, float]:
    name, colon, length = word.partition(":")
    if not colon:
        return name, default
    above, slash, below = length.partition("/")
    upper, lower = _number(above), _number(below) if slash else 1.0
    if upper is None or not lower or upper / lower <= 0:
        raise UserError(
            f"{option}: {place}: expected a number of beats after the colon, as in {example}"
        )
    return name, upper / lower


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
