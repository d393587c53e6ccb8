"""Keys and chords: their names, and the pitch classes that they stand for.

A pitch class is an int from 0 (C) to 11 (B). Everything is in twelve-tone equal temperament, so
that C# and Db are one; `PITCH_CLASSES` says which of the two spellings is printed.
"""

import re
from dataclasses import dataclass, replace

from shared.errors import UserError

PITCH_CLASSES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
ACCIDENTALS = {"": 0, "#": 1, "♯": 1, "sharp": 1, "b": -1, "♭": -1, "flat": -1}

# Semitones above the tonic.
MODES: dict[str, tuple[int, ...]] = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "harmonic minor": (0, 2, 3, 5, 7, 8, 11),
    "major pentatonic": (0, 2, 4, 7, 9),
    "minor pentatonic": (0, 3, 5, 7, 10),
}
MODE_ALIASES = {
    "": "major",
    "maj": "major",
    "ionian": "major",
    "m": "minor",
    "min": "minor",
    "natural minor": "minor",
    "aeolian": "minor",
    "pentatonic": "major pentatonic",
    "pentatonic major": "major pentatonic",
    "pentatonic minor": "minor pentatonic",
}

# Semitones above the root.
QUALITIES: dict[str, tuple[int, ...]] = {
    "": (0, 4, 7),
    "m": (0, 3, 7),
    "7": (0, 4, 7, 10),
    "maj7": (0, 4, 7, 11),
    "m7": (0, 3, 7, 10),
    "mmaj7": (0, 3, 7, 11),
    "dim": (0, 3, 6),
    "dim7": (0, 3, 6, 9),
    "m7b5": (0, 3, 6, 10),
    "aug": (0, 4, 8),
    "sus2": (0, 2, 7),
    "sus4": (0, 5, 7),
    "7sus4": (0, 5, 7, 10),
    "5": (0, 7),
    "6": (0, 4, 7, 9),
    "m6": (0, 3, 7, 9),
    "add9": (0, 2, 4, 7),
    "madd9": (0, 2, 3, 7),
    "9": (0, 2, 4, 7, 10),
    "maj9": (0, 2, 4, 7, 11),
    "m9": (0, 2, 3, 7, 10),
    "7b9": (0, 1, 4, 7, 10),
    "7#9": (0, 3, 4, 7, 10),
    "13": (0, 4, 7, 9, 10),
}
QUALITY_ALIASES = {
    "M": "",
    "maj": "",
    "min": "m",
    "-": "m",
    "M7": "maj7",
    "Maj7": "maj7",
    "Δ": "maj7",
    "Δ7": "maj7",
    "min7": "m7",
    "-7": "m7",
    "mM7": "mmaj7",
    "mMaj7": "mmaj7",
    "°": "dim",
    "o": "dim",
    "°7": "dim7",
    "o7": "dim7",
    "ø": "m7b5",
    "ø7": "m7b5",
    "min7b5": "m7b5",
    "-7b5": "m7b5",
    "+": "aug",
    "sus": "sus4",
    "7sus": "7sus4",
    "min6": "m6",
    "M9": "maj9",
    "min9": "m9",
}

_PITCH_CLASS = re.compile(r"([A-Ga-g])([#♯b♭]| ?-?(?:sharp|flat)\b)?")


@dataclass(frozen=True)
class Key:
    """A tonic (pitch class) and a mode (a name out of `MODES`)."""

    tonic: int
    mode: str

    @property
    def name(self) -> str:
        """ "A minor"."""
        return f"{PITCH_CLASSES[self.tonic]} {self.mode}"

    @property
    def pitch_classes(self) -> tuple[int, ...]:
        """The scale, from the tonic up: A minor -> (9, 11, 0, 2, 4, 5, 7)."""
        return tuple((self.tonic + step) % 12 for step in MODES[self.mode])


@dataclass(frozen=True)
class Chord:
    """A root (pitch class), a quality (a name out of `QUALITIES`) and what lies in the bass.

    ``bass`` is a pitch class, and the root itself unless the chord is a slash chord.
    """

    root: int
    quality: str
    bass: int

    @property
    def name(self) -> str:
        """ "Am7", or "Am7/G" where something else than the root is in the bass."""
        name = PITCH_CLASSES[self.root] + self.quality
        return name if self.bass == self.root else f"{name}/{PITCH_CLASSES[self.bass]}"

    @property
    def pitch_classes(self) -> tuple[int, ...]:
        """The chord's own notes, root first; a foreign bass note is not among them."""
        return tuple((self.root + step) % 12 for step in QUALITIES[self.quality])


def parse_key(text: str) -> Key:
    """Read a key: "A minor", "Am", "F# major", "B flat", "Bbm", "C", "d dorian".

    A letter alone is major. Case does not matter, but for "M" (major) against "m" (minor).

    Raises:
        UserError: it is no key that `MODES` can tell.
    """
    found = _split(text.strip())
    if found is not None:
        tonic, rest = found
        mode = "major" if rest == "M" else " ".join(rest.lower().split())
        mode = MODE_ALIASES.get(mode, mode)
        if mode in MODES:
            return Key(tonic, mode)
    raise UserError(
        f"unknown key {text!r}; write a note from A to G, # or b if need be, and one of: "
        f"{', '.join(MODES)} (as in 'A minor', 'F# major', 'Bbm')"
    )


def nearest_diatonic(key: Key) -> Key:
    """The major or minor key nearest to one in another mode: of its third, on its tonic."""
    if key.mode in ("major", "minor"):
        return key
    minor = (key.tonic + 3) % 12 in key.pitch_classes and (key.tonic + 4) % 12 not in (
        key.pitch_classes
    )
    return replace(key, mode="minor" if minor else "major")


def parse_chord(text: str) -> Chord:
    """Read a chord: "C", "Am", "F#m7b5", "Am7/G".

    The root is a capital letter, as chord charts have it.

    Raises:
        UserError: it is no chord that `QUALITIES` can tell.
    """
    body, slash, below = text.strip().partition("/")
    found = _split(body) if body[:1].isupper() else None
    bass = _split(below) if slash else (0, "")
    if found is not None and bass is not None and not bass[1]:
        root, quality = found
        quality = QUALITY_ALIASES.get(quality, quality)
        if quality in QUALITIES:
            return Chord(root, quality, bass[0] if slash else root)
    raise UserError(
        f"unknown chord {text!r}; write a root from A to G, # or b if need be, and one of: "
        f"{', '.join(name or 'nothing (major)' for name in QUALITIES)} (as in 'Am7', 'C/E')"
    )


def _split(text: str) -> tuple[int, str] | None:
    """Take the pitch class off the front: "F#m7" -> (6, "m7"); None if there is none."""
    found = _PITCH_CLASS.match(text)
    if found is None:
        return None
    letter, accidental = found.groups()
    shift = ACCIDENTALS[(accidental or "").strip(" -")]
    return (LETTERS[letter.upper()] + shift) % 12, text[found.end() :].strip()
