"""Reading prompts: the tempo, the key and the chords that their words state."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from audiodiff.theory import Chord, Key, parse_chord, parse_key
from shared.errors import UserError

_TEMPO = re.compile(
    r"(?<![\d.,])(\d{2,3}(?:\.\d+)?)\s*-?(?:bpm|beats (?:per|a) minute)\b"
    r"|\btempo(?:\s*[:=]|\s+of|\s+is)?\s*(\d{2,3}(?:\.\d+)?)\b(?!\s*%)",
    re.IGNORECASE,
)
PLAUSIBLE = (30.0, 300.0)  # beats a minute

_NOTE = r"(?:[#♯b♭]|[ -](?:sharp|flat)\b)?"
_MODE = (
    r"(?:(?:natural |harmonic )?(?i:minor|major|min|maj)(?: pentatonic)?|(?i:dorian|mixolydian"
    r"|phrygian|lydian|ionian|aeolian|pentatonic(?: major| minor)?))\b"
)
# What may follow a key: its end, a comma, or a word that cannot belong to an article's noun.
_AFTER = r"(?=\s*(?:$|[^\w\s'-]|-\s|(?:at|with|and|by|for|featuring|over|on|played|\d)))"
# From the surest to the least; "a" and "A" may be articles wherever they could open a noun phrase.
_KEYS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"\b(?i:key)(?i:\s+of)?\s*[:=]?\s+([A-Ga-g]{_NOTE}[ -]?{_MODE})",
        rf"\b(?i:key)(?i:\s+of|\s*[:=])\s*([A-G]{_NOTE}m?)(?![\w#♯♭'])",
        rf"\b(?i:key)(?i:\s+of|\s*[:=])\s*([a-g]{_NOTE}m?)(?![\w#♯♭']){_AFTER}",
        rf"\b(?i:in)\s+((?:[B-Gb-g]{_NOTE}|[Aa](?:[#♯b♭]|[ -](?:sharp|flat)\b)|A)[ -]?{_MODE})",
        rf"\b(?i:in)\s+(a {_MODE}){_AFTER}",
        rf"\b(?i:in)\s+([A-G]{_NOTE}m)(?![\w#♯♭'])",
        rf"(?<![\w#♯♭/-])((?:[B-Gb-g]{_NOTE}|[Aa][#♯♭]|Ab|[Aa][ -](?:sharp|flat)\b)[ -]?{_MODE})",
        rf"(?<=[a-z0-9,;:(] )(A[ -]?{_MODE})",
        rf"^\s*(A[ -]?{_MODE}){_AFTER}",
        rf"(?<=[.!?\n] )(A[ -]?{_MODE}){_AFTER}",
        rf"\b(?i:in)\s+([B-G]{_NOTE}|A(?:[#♯b♭]|[ -](?:sharp|flat)\b))(?![\w#♯♭'/-])",
        rf"\b(?i:in)\s+(A)(?![\w#♯♭'/-]){_AFTER}",
    )
)
_CHORD_LIST = re.compile(
    r"\b(?i:chord progression|progression|chords?)\b(?:\s+(?:are|of|is))?\s*([:=]?)\s*"
)
_CHORDS_BEFORE = re.compile(
    r"((?:[A-G]\S*?\s*[-–—,|→>]\s*)+[A-G]\S*)\s+(?i:chords|chord prog|prog)"
)
_BETWEEN = re.compile(r"(?:\s*[-–—,|→>]\s*|\s+)")
_CHORD = re.compile(r"[A-G][^\s,|–—→>;.!?)(-]*(?:b5)?")


@dataclass(frozen=True)
class PromptFacts:
    """What a prompt states outright; None where it does not."""

    tempo: float | None = None
    key: Key | None = None
    chords: tuple[Chord, ...] | None = None


def read_prompt(prompt: str) -> PromptFacts:
    """Read the tempo ("96 bpm"), the key ("in F# minor") and chords ("chords Am F C G") stated.

    Only what is stated outright: no tempo is read out of "slow", and no key out of "a minor
    change" or "in a minor key".
    """
    chords, rest = _read_chords(prompt)
    return PromptFacts(_read_tempo(rest), _read_key(rest), chords)


def _read_tempo(prompt: str) -> float | None:
    for found in _TEMPO.finditer(prompt):
        tempo = float(found[1] or found[2])
        if PLAUSIBLE[0] <= tempo <= PLAUSIBLE[1]:
            return tempo
    return None


def _read_key(prompt: str) -> Key | None:
    for pattern in _KEYS:
        for found in pattern.finditer(prompt):
            try:
                return parse_key(_spelled(found[1]))
            except UserError:
                continue
    return None


def _spelled(text: str) -> str:
    """ "F-sharp minor" -> "F sharp minor", "A-minor" -> "A minor"."""
    return text.replace("-", " ").replace("Pentatonic", "pentatonic")


def _read_chords(prompt: str) -> tuple[tuple[Chord, ...] | None, str]:
    """The chords that a prompt lists, and the prompt without them."""
    for found in _CHORD_LIST.finditer(prompt):
        chords, end = _chord_run(prompt, found.end())
        # One chord alone may be a word, unless a colon says what it is.
        if len(chords) >= (1 if found[1] else 2):
            return chords, f"{prompt[: found.start()]} {prompt[end:]}"
    for found in _CHORDS_BEFORE.finditer(prompt):
        chords, end = _chord_run(prompt, found.start(1))
        if len(chords) >= 2 and end >= found.end(1):
            return chords, f"{prompt[: found.start()]} {prompt[found.end() :]}"
    return None, prompt


def _chord_run(prompt: str, start: int) -> tuple[tuple[Chord, ...], int]:
    """The chords that follow one another from ``start`` on, and where they end."""
    chords, end = [], start
    for chord, begin, stop in _candidates(prompt, start):
        article = prompt[begin:stop] == "A" and not re.match(
            rf"(?:{_AFTER}|\s*(?:[A-G|–→>-]|in\b))", prompt[stop:]
        )
        if article:
            break
        chords.append(chord)
        end = stop
    return tuple(chords), end


def _candidates(prompt: str, start: int) -> Iterator[tuple[Chord, int, int]]:
    position = start
    while True:
        found = _CHORD.match(prompt, position)
        if found is None:
            return
        try:
            chord = parse_chord(found[0])
        except UserError:
            return
        yield chord, found.start(), found.end()
        gap = _BETWEEN.match(prompt, found.end())
        if gap is None:
            return
        position = gap.end()
