"""Melodies: a motif that is repeated, varied and answered in phrases over chords and scale.

A phrase is two bars. A motif is the rhythm and the contour of one; a section's melody is a plan of
phrases ("a a b a"), in which the first half of every four bars asks and the second answers.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from audiodiff.harmony import scale_over
from audiodiff.rhythms import STRENGTH
from audiodiff.theory import Chord, Key

PHRASE_BARS = 2
PLANS = ("aaba", "abab", "abac", "aabc", "abaa")
STEPS = (-1, 1, 1, -1, 2, -2, 0)  # contours mostly move by step
LEAPS = (-4, -3, 3, 4)
PENTATONIC_LEAPS = (-3, -2, 2, 3)  # its steps are wider


@dataclass(frozen=True)
class Tune:
    """How a style's melodies go.

    Attributes:
        cells: rhythms of one bar (see `audiodiff.rhythms`).
        low: lowest MIDI pitch.
        high: highest MIDI pitch.
        leap: how often the contour leaps.
        gate: how much of its written length a note sounds; 1 is legato.
        pentatonic: whether steps off the chord keep to five tones.
        ornament: how often a repeated phrase is decorated.
    """

    cells: tuple[str, ...]
    low: int = 60
    high: int = 84
    leap: float = 0.15
    gate: float = 0.92
    pentatonic: bool = False
    ornament: float = 0.3


class Stroke(NamedTuple):
    """A note as written: ``start`` and ``duration`` in beats, ``strength`` about 1.

    A tuple, as a piece has thousands of them.
    """

    start: float
    duration: float
    pitch: int
    strength: float

    def later(self, beats: float) -> "Stroke":
        """The same, ``beats`` later."""
        return Stroke(self.start + beats, self.duration, self.pitch, self.strength)


@dataclass(frozen=True)
class Motif:
    """A phrase's rhythm (start, duration in beats, strength) and contour (scale steps)."""

    rhythm: tuple[tuple[float, float, float], ...]
    contour: tuple[int, ...]


def onsets(pattern: str) -> list[tuple[int, int, str]]:
    """(step, length in steps, character) of every onset of a pattern; ``_`` holds, ``.`` ends."""
    found: list[tuple[int, int, str]] = []
    for step, mark in enumerate(pattern):
        if mark == "_" and found and found[-1][0] + found[-1][1] == step:
            found[-1] = (found[-1][0], found[-1][1] + 1, found[-1][2])
        elif mark not in "_.":
            found.append((step, 1, mark))
    return found


def draw_motif(rng: random.Random, tune: Tune) -> Motif:
    """A new two-bar idea: two rhythm cells and a contour."""
    pattern = "".join(rng.choice(tune.cells) for _ in range(PHRASE_BARS))
    rhythm = tuple((step / 4, length / 4, STRENGTH[mark]) for step, length, mark in onsets(pattern))
    leaps = PENTATONIC_LEAPS if tune.pentatonic else LEAPS
    contour = []
    for _ in rhythm:
        step = rng.choice(leaps) if rng.random() < tune.leap else rng.choice(STEPS)
        # What has leapt or run one way turns back.
        recent = sum(contour[-3:])
        contour.append(-step if recent * step > 0 and abs(recent) > 2 else step)
    return Motif(rhythm, tuple(contour))


def vary(rng: random.Random, motif: Motif, tune: Tune) -> Motif:
    """The same idea told again: another end, upside down, one note more or one fewer."""
    rhythm, contour = list(motif.rhythm), list(motif.contour)
    kind = rng.random()
    if kind < 0.15:
        contour = [-step for step in contour]
    elif kind < 0.7:
        for index in range(max(0, len(contour) - 2), len(contour)):
            contour[index] = rng.choice(STEPS)
    if rng.random() < tune.ornament:
        long = [index for index, note in enumerate(rhythm) if note[1] >= 1]
        if long:
            index = rng.choice(long)
            start, length, strength = rhythm[index]
            rhythm[index : index + 1] = [
                (start, length / 2, strength),
                (start + length / 2, length / 2, strength * 0.85),
            ]
            contour[index : index + 1] = [contour[index], rng.choice((-1, 1))]
    elif len(rhythm) > 4 and rng.random() < 0.25:
        index = rng.randrange(1, len(rhythm) - 1)
        del rhythm[index], contour[index]
    return Motif(tuple(rhythm), tuple(contour))


def write_melody(
    rng: random.Random,
    motifs: dict[str, Motif],
    tune: Tune,
    chords: Sequence[Chord],
    key: Key,
    meter: int,
) -> list[Stroke]:
    """A melody over ``chords`` (one a beat), one note at a time, in the tune's register.

    Args:
        rng: all chance comes from here.
        motifs: of the plan's letters "a", "b", "c".
        tune: the style's manner.
        chords: one a beat, whole bars.
        key: of the piece.
        meter: beats a bar.
    """
    length = PHRASE_BARS * meter
    plan = rng.choice(PLANS)
    written: list[Stroke] = []
    heard: set[str] = set()
    centre = (tune.low + tune.high) / 2 + rng.uniform(-3, 3)
    for number, first in enumerate(range(0, len(chords), length)):
        letter = plan[number % len(plan)]
        motif = motifs[letter]
        if letter in heard and rng.random() < 0.6:
            motif = vary(rng, motif, tune)
        heard.add(letter)
        here = chords[first : first + length]
        # The third phrase of four is where a melody rises.
        aim = centre + (4 if number % 4 == 2 else 0)
        phrase = _sing(rng, motif, tune, here, key, aim)
        if phrase:
            answer = number % 2 == 1 or first + length >= len(chords)
            phrase = _cadence(phrase, tune, here, key, answer, final=number % 4 == 3)
        written += [note.later(first) for note in phrase]
    return written


def _sing(
    rng: random.Random, motif: Motif, tune: Tune, chords: Sequence[Chord], key: Key, aim: float
) -> list[Stroke]:
    notes: list[Stroke] = []
    previous = _nearest(aim, chords[0].pitch_classes, tune)
    for (start, length, strength), step in zip(motif.rhythm, motif.contour, strict=True):
        if start >= len(chords):
            break
        length = min(length, len(chords) - start)
        chord = chords[int(start)]
        ladder = _ladder(scale_over(chord, key), chord, tune, key)
        index = min(range(len(ladder)), key=lambda i: abs(ladder[i] - previous))
        step = step if notes else 0
        if not 0 <= index + step < len(ladder):
            step = -step
        pitch = ladder[max(0, min(len(ladder) - 1, index + step))]
        # Where it is heard as harmony, a note belongs to the chord.
        if start % 1 == 0 and (start % 2 == 0 or length >= 1 or rng.random() < 0.4):
            pitch = _nearest(pitch, chord.pitch_classes, tune)
        arc = 0.9 + 0.2 * _arch(start / len(chords))
        notes.append(Stroke(start, length * tune.gate, pitch, strength * arc))
        previous = pitch
    return notes


def _cadence(
    notes: list[Stroke],
    tune: Tune,
    chords: Sequence[Chord],
    key: Key,
    answer: bool,
    final: bool,
) -> list[Stroke]:
    """End a phrase: an answer rests on a chord tone, the tonic if it is one; a question hangs."""
    last = notes[-1]
    chord = chords[int(last.start)]
    tones = chord.pitch_classes
    if answer and key.tonic in tones:
        tones = (key.tonic,) if final else (key.tonic, chord.root)
    elif not answer:
        tones = tuple(tone for tone in tones if tone != key.tonic) or tones
    pitch = _nearest(last.pitch, tones, tune)
    duration = last.duration
    if answer and last.start + 1 < len(chords):
        duration = max(duration, min(2.0, len(chords) - last.start - 0.5))
        changes = next(
            (b for b in range(int(last.start) + 1, len(chords)) if chords[b] != chord), len(chords)
        )
        duration = min(duration, max(last.duration, changes - last.start))
    return [*notes[:-1], last._replace(pitch=pitch, duration=duration)]


def _arch(position: float) -> float:
    """0 at both ends of a phrase, 1 in the middle: it swells and falls."""
    return 4 * position * (1 - position)


def _nearest(pitch: float, tones: Sequence[int], tune: Tune) -> int:
    """The pitch in the register nearest to ``pitch`` among some pitch classes."""
    fitting = [p for p in range(tune.low, tune.high + 1) if p % 12 in tones]
    return min(fitting, key=lambda p: abs(p - pitch))


def _ladder(scale: Sequence[int], chord: Chord, tune: Tune, key: Key) -> list[int]:
    """The register's pitches that a contour steps on."""
    tones = set(scale)
    if tune.pentatonic:
        # The five tones that have no semitone among them, and whatever the chord brings.
        minor_third = (key.tonic + 3) % 12 in key.pitch_classes
        steps = (0, 3, 5, 7, 10) if minor_third else (0, 2, 4, 7, 9)
        tones = tones & {(key.tonic + step) % 12 for step in steps} | set(chord.pitch_classes)
    return [pitch for pitch in range(tune.low, tune.high + 1) if pitch % 12 in tones]
