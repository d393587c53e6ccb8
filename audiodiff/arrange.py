"""From patterns and chords to what each role plays in one section.

Every function returns strokes on the written grid, from beat 0 of the section; `audiodiff.perform`
makes them swing and breathe.
"""

import itertools
import random
from collections.abc import Sequence

from audiodiff.harmony import scale_over, voiced
from audiodiff.instruments import DRUM_KEYS
from audiodiff.melody import Stroke, onsets
from audiodiff.rhythms import STRENGTH, Groove
from audiodiff.theory import QUALITIES, Chord, Key

STEP = 0.25  # beats: patterns count in sixteenths
FILL_BEATS = 2
OCTAVE = 12
VOICING_SPAN = 24


def drum_section(
    rng: random.Random,
    groove: Groove,
    fills: Sequence[Groove],
    bars: int,
    meter: int,
    *,
    crash: bool,
) -> list[Stroke]:
    """A groove for ``bars`` bars, fills at the ends of four bars now and then and of the section.

    Args:
        rng: all chance comes from here.
        groove: one bar or several, going round.
        fills: of two beats, to draw from; () plays none.
        bars: the section's length.
        meter: beats a bar.
        crash: whether a cymbal marks the beginning.
    """
    strokes = [Stroke(0.0, 1.0, DRUM_KEYS["crash"], 1.0)] if crash else []
    for bar in range(bars):
        last = bar == bars - 1
        filling = fills and rng.random() < (0.85 if last else 0.35 if bar % 4 == 3 else 0.0)
        until = meter - FILL_BEATS if filling else meter
        strokes += _drum_bar(rng, groove, bar, meter, bar * meter, until)
        if filling:
            fill = rng.choice(fills)
            strokes += _drum_bar(rng, fill, 0, FILL_BEATS, bar * meter + until, FILL_BEATS)
    return strokes


def _drum_bar(
    rng: random.Random, groove: Groove, bar: int, meter: int, first: float, until: float
) -> list[Stroke]:
    strokes = []
    steps = int(meter / STEP)
    for voice, pattern in groove.items():
        for step in range(int(until / STEP)):
            mark = pattern[(bar * steps + step) % len(pattern)]
            if mark in STRENGTH and (mark != "o" or rng.random() < 0.5):
                start = first + step * STEP
                strokes.append(Stroke(start, STEP, DRUM_KEYS[voice], STRENGTH[mark]))
    return strokes


def thinned(rng: random.Random, groove: Groove) -> Groove:
    """A groove of which only some voices play: for introductions and breaks."""
    kept = {voice: pattern for voice, pattern in groove.items() if rng.random() < 0.5}
    if not kept:
        voice = rng.choice(list(groove))
        kept = {voice: groove[voice]}
    return kept


def bass_section(
    rng: random.Random, patterns: Sequence[str], chords: Sequence[Chord], key: Key, low: int
) -> list[Stroke]:
    """A bass line; roots lie within a tenth or so from ``low``, and held notes follow the chords.

    Args:
        rng: all chance comes from here.
        patterns: of one bar; the first is played most, the others for variation.
        chords: one a beat, whole bars.
        key: of the piece.
        low: the lowest MIDI pitch.
    """
    strokes: list[Stroke] = []
    steps = len(patterns[0])
    bar_beats = int(steps * STEP)
    previous = float(low + 5)
    for bar in range(len(chords) // bar_beats):
        pattern = patterns[0] if rng.random() < 0.7 else rng.choice(patterns)
        first = bar * bar_beats
        for step, length, mark in onsets(pattern):
            start, end = first + step * STEP, first + (step + length) * STEP
            # A note held over a change of chord is struck again on the new root.
            for piece, until in _split_at_changes(start, end, chords):
                chord = chords[int(piece)]
                after = chords[(int(piece) + 1) % len(chords)]
                told = mark if piece == start else "1"
                pitch = _bass_pitch(rng, told, chord, after, key, low, previous)
                accent = 1.05 if piece % bar_beats == 0 else 0.95
                strokes.append(Stroke(piece, (until - piece) * 0.93, pitch, accent))
                previous = pitch
    return strokes


def _split_at_changes(
    start: float, end: float, chords: Sequence[Chord]
) -> list[tuple[float, float]]:
    cuts = [
        beat
        for beat in range(int(start) + 1, len(chords))
        if start < beat < end and chords[beat] != chords[beat - 1]
    ]
    edges = [start, *map(float, cuts), end]
    return list(itertools.pairwise(edges))


def _bass_pitch(
    rng: random.Random,
    mark: str,
    chord: Chord,
    after: Chord,
    key: Key,
    low: int,
    previous: float,
) -> int:
    high = low + 16
    steps = QUALITIES[chord.quality]
    if mark == "w":
        near = [
            pitch
            for pitch in range(low, high + 1)
            if 1 <= abs(pitch - previous) <= 4 and pitch % 12 in scale_over(chord, key)
        ]
        tones = [pitch for pitch in near if pitch % 12 in chord.pitch_classes]
        target = _near(after.bass, previous, low, high)
        onward = [pitch for pitch in tones or near if (pitch - previous) * (target - previous) >= 0]
        return rng.choice(onward or tones or near or [target])
    if mark == "a":
        target = _near(after.bass, previous, low, high)
        scale = scale_over(after, key)
        steps_away = [step for step in (-1, 1, -2, 2) if (target + step) % 12 in scale]
        return target + rng.choice([*steps_away, -1])
    if mark == "8":
        return _near(chord.bass, low + 2, low, high) + OCTAVE
    tone = {
        "1": chord.bass,
        "3": chord.root + steps[1],
        "5": chord.root + (7 if 7 in steps else steps[-1]),
        "7": chord.root + next((step for step in steps if step >= 9), 0),
    }[mark]
    return _near(tone % 12, previous, low, high)


def _near(tone: int, pitch: float, low: int, high: int) -> int:
    return min((p for p in range(low, high + 1) if p % 12 == tone), key=lambda p: abs(p - pitch))


def voicings(chords: Sequence[Chord], low: int, voices: int) -> list[tuple[int, ...]]:
    """The pitches of every beat's chord, each led from the one before."""
    found: list[tuple[int, ...]] = []
    for beat, chord in enumerate(chords):
        if beat and chord == chords[beat - 1]:
            found.append(found[-1])
        else:
            before = found[-1] if found else ()
            found.append(voiced(chord, before, low, low + VOICING_SPAN, voices))
    return found


def comping_section(
    rng: random.Random,
    patterns: Sequence[str],
    chords: Sequence[Chord],
    low: int,
    *,
    voices: int = 4,
    strum: float = 0.0,
) -> list[Stroke]:
    """Chords in a rhythm; a held chord changes with the harmony.

    Args:
        rng: all chance comes from here.
        patterns: of one bar; the first is played most.
        chords: one a beat, whole bars.
        low: the lowest MIDI pitch.
        voices: notes a chord at most.
        strum: beats between the notes of one chord, from below.
    """
    strokes = []
    pitches = voicings(chords, low, voices)
    bar_beats = int(len(patterns[0]) * STEP)
    for bar in range(len(chords) // bar_beats):
        pattern = patterns[0] if rng.random() < 0.75 else rng.choice(patterns)
        for step, length, mark in onsets(pattern):
            if mark == "o" and rng.random() < 0.5:
                continue
            start = bar * bar_beats + step * STEP
            for piece, until in _split_at_changes(start, start + length * STEP, chords):
                for voice, pitch in enumerate(pitches[int(piece)]):
                    delay = min(voice * strum, (until - piece) / 2)
                    length_left = (until - piece) * 0.95 - delay
                    strokes.append(Stroke(piece + delay, length_left, pitch, STRENGTH[mark] * 0.9))
    return strokes


def arpeggio_section(
    rng: random.Random, patterns: Sequence[str], chords: Sequence[Chord], low: int
) -> list[Stroke]:
    """Chords broken up: a pattern's digits count voices from below, on into the next octave."""
    strokes = []
    pitches = voicings(chords, low, 4)
    bar_beats = int(len(patterns[0]) * STEP)
    for bar in range(len(chords) // bar_beats):
        pattern = patterns[0] if rng.random() < 0.85 else rng.choice(patterns)
        for step, length, mark in onsets(pattern):
            start = bar * bar_beats + step * STEP
            voicing = pitches[int(start)]
            octave, voice = divmod(int(mark), len(voicing))
            accent = 1.0 if start % 1 == 0 else 0.85
            pitch = voicing[voice] + OCTAVE * octave
            strokes.append(Stroke(start, length * STEP * 0.95, pitch, accent))
    return strokes
