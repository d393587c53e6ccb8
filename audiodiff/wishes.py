"""What a prompt and the options beside it ask for outright: in words and in control channels.

Tempo, key and chords that a prompt states are read out of it, for a text encoder of this size does
not learn to count. What an option states is also said in words, so that both ways agree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audiodiff.read_prompt import read_prompt
from audiodiff.theory import Chord, Key, parse_key

if TYPE_CHECKING:
    from audiodiff.controls import Controls
    from audiodiff.settings import MusicSettings

UNSTATED_TEMPO = 100.0  # beats a minute, of chords that come without a tempo
_THREE = re.compile(r"\b(?:waltz(?:es)?|3/4|three[- ]four)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Wishes:
    """What is asked for.

    Attributes:
        text: what the text encoder reads: the prompt, and what the options add to it.
        tempo: beats a minute; None is left to the model, as are the next two.
        key: of the whole clip.
        chords: a bar each, over and over; empty for none.
        meter: beats a bar.
        notes: what to tell the user, a line each.
    """

    text: str
    tempo: float | None
    key: Key | None
    chords: tuple[Chord, ...]
    meter: int
    notes: tuple[str, ...]


def read_wishes(
    prompt: str,
    bpm: float | None = None,
    key: str | None = None,
    meter: int | None = None,
    loop: int | None = None,
) -> Wishes:
    """What ``prompt`` states, and the options ``bpm``, ``key`` and ``meter``, which win.

    A ``loop`` of so many bars needs a tempo, as chords do.

    Raises:
        UserError: ``key`` is none.
    """
    stated = read_prompt(prompt)
    said, notes = [prompt.strip()], []
    tempo, tonality, chords = stated.tempo, stated.key, stated.chords or ()
    if key is not None and (wanted := parse_key(key)) != stated.key:
        if stated.key is not None:
            notes.append(f"the prompt says {stated.key.name}; {wanted.name} is taken, as told")
        tonality = wanted
        said.append(wanted.name)
    if bpm is not None and bpm != stated.tempo:
        if stated.tempo is not None:
            notes.append(f"the prompt says {stated.tempo:g} bpm; {bpm:g} is taken, as told")
        tempo = bpm
        said.append(f"{round(bpm)} bpm")
    if (chords or loop) and tempo is None:
        tempo = UNSTATED_TEMPO
        who = "the loop needs" if loop else "the chords need"
        notes.append(f"{who} a tempo and none is stated; {tempo:g} bpm is taken")
    if meter is None:
        meter = 3 if _THREE.search(prompt) else 4
    # As captions list what they know.
    return Wishes(", ".join(said), tempo, tonality, tuple(chords), meter, tuple(notes))


def wishes_of(settings: MusicSettings) -> Wishes:
    """What the settings of a clip ask for."""
    return read_wishes(settings.prompt, settings.bpm, settings.key, settings.meter, settings.loop)


def loop_seconds(prompt: str, bpm: float | None, meter: int | None, bars: int) -> float:
    """The length of a loop of ``bars`` bars of what ``prompt`` and options state."""
    wishes = read_wishes(prompt, bpm, meter=meter, loop=bars)
    assert wishes.tempo is not None  # loops have one
    return bars * wishes.meter * 60 / wishes.tempo


def controls_of(wishes: Wishes, frames: int, bpm: float | None = None) -> Controls:
    """The wishes as control channels for a clip of ``frames`` latent frames; beats begin at 0.

    ``bpm`` takes the place of the wished tempo where that is known only nearly.
    """
    from audiodiff.controls import unknown

    controls = unknown(frames)
    tempo = wishes.tempo if bpm is None else bpm
    if tempo is not None:
        controls = controls.with_tempo(tempo, wishes.meter)
        if wishes.chords:
            controls = controls.with_chords(wishes.chords, tempo, wishes.meter)
    return controls if wishes.key is None else controls.with_key(wishes.key)
