"""Progressions in roman numerals, and how chords lie under the hands: voice leading."""

import itertools
import re
from collections.abc import Mapping
from functools import lru_cache

from audiodiff.theory import QUALITIES, Chord, Key

# Numerals count from the major scale, whatever the mode: "bVII" is a whole tone below the tonic.
# Capitals are major triads, small letters minor; a suffix is a quality; "/3" and "/5" put that
# chord member into the bass. "|" is a bar line, a space shares the bar.
Progressions = Mapping[str, tuple[str, ...]]

POP: Progressions = {
    "major": (
        "I|V|vi|IV",
        "I|vi|IV|V",
        "vi|IV|I|V",
        "I|IV|vi|V",
        "I|V/3|vi|IV",
        "I|iii|IV|V",
        "IV|I|V|vi",
    ),
    "minor": (
        "i|bVI|bIII|bVII",
        "i|bVII|bVI|bVII",
        "i|iv|bVI|v",
        "i|bIII|bVII|iv",
        "i|v|bVI|iv",
        "bVI|bVII|i|i",
    ),
    "dorian": ("i|IV|i|IV", "i|bVII|IV|i", "i|bIII|IV|i", "i|v|IV|IV"),
    "mixolydian": ("I|bVII|IV|I", "I|v|bVII|IV", "I|bVII|I|IV", "I|IV|bVII|IV"),
    "phrygian": ("i|bII|i|bII", "i|bII|bIII|bII", "i|bVI|bII|i", "i|bvii|bII|i"),
    "lydian": ("I|II|I|II", "I|II|vi|iii", "I|V|II|I", "I|I|II|vi"),
    "harmonic minor": ("i|iv|V|i", "i|bVI|iv|V", "i|iv|i|V7", "i|bVI|V7|i"),
}
CLASSICAL: Progressions = {
    "major": (
        "I|IV|V|I",
        "I|vi|ii|V",
        "I V/3|vi iii|IV I|ii V",
        "I|ii/3|V7|I",
        "I|I/3|IV|V|vi|ii|V7|I",
    ),
    "minor": ("i|iv|V|i", "i|bVI|iv|V7", "i|bVII|bIII|bVI|iv|i|V7|i", "i|V/3|i|iv|i/5|V7|i|i"),
    "harmonic minor": ("i|iv|V7|i", "i|V7|i|V7", "i|bVI|iidim/3|V7", "i|iv|i/5|V7"),
}
JAZZ: Progressions = {
    "major": (
        "ii|V7|I|vi",
        "I vi|ii V7|I vi|ii V7",
        "I|VI7|ii|V7",
        "ii V7|I|iii VI7|ii V7",
        "I|IV|iii VI7|ii V7",
        "ii|V7|I|I|iidim|V7|I|VI7",
    ),
    "minor": (
        "i|iv|iidim|V7",
        "iidim|V7|i|i",
        "i bVI|iidim V7|i|i",
        "iv|bVII|bIII|bVI|iidim|V7|i|i",
    ),
    "dorian": ("i|i|IV7|IV7", "i|IV7|i|IV7", "i|i|ii|ii", "i|bIII|ii|i"),
}
FUNK: Progressions = {
    "mixolydian": ("I9|I9|IV9|I9", "I9|IV9|I9|IV9", "I9|I9|I9|bVII9 IV9"),
    "dorian": ("im9|IV9|im9|IV9", "im7|im7|bVII|IV7", "im9|im9|iim7|IV9"),
    "minor": ("im7|im7|ivm7|im7", "im9|bVIImaj7|bVImaj7|v"),
}
BOSSA: Progressions = {
    "major": (
        "I|I|II9|II9|ii|V7|I|bII7",
        "I|vi|ii|V7",
        "I|VI7b9|ii|V7",
        "I|I6|ii|V9|iii|VI7b9|ii|V7",
    ),
    "minor": ("i|iv|iidim|V7b9", "i|i|iv|bVII|bIII|bVI|iidim|V7b9", "im6|iidim V7b9|i|iv"),
    "dorian": ("i|IV9|i|IV9", "i|ii|bIII|IV9"),
}
REGGAE: Progressions = {
    "major": ("I|IV|I|IV", "I|V|vi|IV", "I|ii|I|ii", "I|IV|V|IV"),
    "minor": ("i|iv|i|iv", "i|bVII|i|bVII", "i|bVII|bVI|bVII", "i|iv|v|i"),
    "mixolydian": ("I|bVII|I|bVII", "I|bVII|IV|I"),
}
DRONE: Progressions = {
    "major": ("I|I|IV|IV", "I|I|vi|IV", "Iadd9|Iadd9|IV|vi"),
    "minor": ("i|i|bVI|bVII", "i|i|i|bVI", "i|i|iv|bVI", "i|i|bIII|bVII"),
    "dorian": ("i|i|IV|IV", "i|i|bVII|IV"),
    "phrygian": ("i|i|bII|i", "i|i|i|bII"),
    "lydian": ("I|I|II|II", "I|I|II|vi"),
}
# Modes that a style has no progressions for borrow those of POP, pentatonics their parent's.
PARENTS = {"major pentatonic": "major", "minor pentatonic": "minor"}

DEGREES = {"I": 0, "II": 2, "III": 4, "IV": 5, "V": 7, "VI": 9, "VII": 11}
_NUMERAL = re.compile(r"(b?)([IV]+|[iv]+)([^/]*)(?:/([35]))?")

# The quality with a diatonic seventh, by the triad and the semitones from root to seventh.
SEVENTHS = {
    ("", 11): "maj7",
    ("", 10): "7",
    ("m", 10): "m7",
    ("m", 11): "mmaj7",
    ("dim", 10): "m7b5",
    ("dim", 9): "dim7",
}
NINTHS = {"maj7": "maj9", "7": "9", "m7": "m9"}


def progressions_for(table: Progressions, mode: str) -> tuple[str, ...]:
    """What a style plays in a mode; see `PARENTS` for the modes that it does not know."""
    mode = mode if mode in table else PARENTS.get(mode, mode)
    return table[mode] if mode in table else POP[mode]


@lru_cache(maxsize=4096)
def numeral_chord(numeral: str, key: Key, colour: str = "triad") -> Chord:
    """ "ii" in C major -> Dm; with colour "seventh" Dm7, with "ninth" Dm9, with "power" D5.

    The colour only goes on plain triads, and takes the tones out of the key's scale.
    """
    found = _NUMERAL.fullmatch(numeral)
    assert found is not None, numeral
    flat, degree, quality, bass = found.groups()
    if degree.islower() and not quality.startswith(("m", "dim")):
        quality = "m" + quality
    root = (key.tonic + DEGREES[degree.upper()] - len(flat)) % 12
    if colour == "power" and quality in ("", "m"):
        quality = "5"
    elif colour in ("seventh", "ninth"):
        quality = _coloured(root, quality, key, colour == "ninth")
    steps = QUALITIES[quality]
    low = {None: 0, "3": 1, "5": 2}[bass]
    return Chord(root, quality, (root + steps[low % len(steps)]) % 12)


def _coloured(root: int, quality: str, key: Key, ninth: bool) -> str:
    scale = key.pitch_classes
    for step in (10, 11, 9):
        if (root + step) % 12 in scale and (quality, step) in SEVENTHS:
            quality = SEVENTHS[quality, step]
            break
    if ninth and (root + 2) % 12 in scale:
        quality = NINTHS.get(quality, quality)
    return quality


def chords_of(progression: str, key: Key, colour: str, meter: int, bars: int) -> list[Chord]:
    """One chord a beat for ``bars`` bars, the progression going round as often as it takes."""
    chords = []
    for bar in itertools.islice(itertools.cycle(progression.split("|")), bars):
        numerals = bar.split()
        for beat in range(meter):
            numeral = numerals[beat * len(numerals) // meter]
            chords.append(numeral_chord(numeral, key, colour))
    return chords


@lru_cache(maxsize=4096)
def scale_over(chord: Chord, key: Key) -> tuple[int, ...]:
    """The key's scale bent to a chord: the chord's foreign tones replace what they alter.

    A major third or seventh is taken for a raised tone, anything else for a lowered one: over E7
    in A minor the scale has G# and no G, over Fm in C major Ab and no A. Over diatonic chords it
    is the key's own.
    """
    foreign = set(chord.pitch_classes) - set(key.pitch_classes)
    raised = {(chord.root + step) % 12 for step in (4, 11)}
    altered = {(tone + (-1 if tone in raised else 1)) % 12 for tone in foreign}
    kept = set(key.pitch_classes) - (altered - set(chord.pitch_classes))
    return tuple(sorted(kept | foreign))


@lru_cache(maxsize=16384)
def voiced(
    chord: Chord, previous: tuple[int, ...], low: int, high: int, voices: int
) -> tuple[int, ...]:
    """Pitches of a chord between ``low`` and ``high``, moving as little as can be from before.

    Close positions and drop-2 (the second voice from above an octave lower) of every inversion are
    tried. With more tones than voices the fifth goes first, then the root, which is the bass's.

    Args:
        chord: what to voice.
        previous: the pitches before, () at the start.
        low: the lowest MIDI pitch.
        high: the highest; at least two octaves above ``low`` fits everything.
        voices: how many pitches at most.
    """
    tones = list(chord.pitch_classes)
    if len(tones) > voices and len(tones) > 3:
        tones.remove((chord.root + 7) % 12) if (chord.root + 7) % 12 in tones else tones.pop(2)
    if len(tones) > voices:
        tones = tones[1:] if len(tones) > 3 else tones[:voices]
    best, cost = [], float("inf")
    centre = (low + high) / 2
    for rotation in range(len(tones)):
        order = tones[rotation:] + tones[:rotation]
        for bottom in range(low, high):
            if bottom % 12 != order[0]:
                continue
            close = [bottom]
            for tone in order[1:]:
                close.append(close[-1] + ((tone - close[-1]) % 12 or 12))
            shapes = [close]
            if len(close) > 3:
                shapes.append(sorted([*close[:-2], close[-2] - 12, close[-1]]))
            for shape in shapes:
                if shape[0] < low or shape[-1] > high:
                    continue
                total = 0.3 * abs(sum(shape) / len(shape) - centre)
                if previous:
                    total += sum(min(abs(pitch - old) for old in previous) for pitch in shape)
                    total += abs(shape[-1] - previous[-1])
                if total < cost:
                    best, cost = shape, total
    return tuple(best)
