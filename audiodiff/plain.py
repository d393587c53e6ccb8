"""A sketch played plainly: chords by a piano over a bass, the tune by a flute, drums on the beats.

What a measure says of it is the most that it can say of that sketch: nothing is there but what was
asked for. It is the ceiling of controls that nobody ever played.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from audiodiff.controls_midi import voiced
from audiodiff.fader import ride
from audiodiff.render import render
from audiodiff.score import Note, Part, Score
from audiodiff.sketch import Rhythm, Sketch
from audiodiff.theory import parse_chord, parse_key

PIANO, FINGERED_BASS, FLUTE, KIT = 0, 33, 73, 0  # General MIDI programs
KICK, SNARE = 36, 38  # notes of its kit
VELOCITY, ACCENT = 80, 112
STRUCK = 0.2  # beats that a drum's note lasts


def played(sketch: Sketch, soundfont: Path, seconds: float, tempo: float = 120.0) -> np.ndarray:
    """The tune, chords and beats of a sketch, (2 s) at 44.1 kHz; loudness runs as it asks.

    Args:
        tempo: beats a minute, of a sketch without beats.

    Raises:
        UserError: no soundfont, or FluidSynth is not installed.
    """
    beat = 60 / (sketch.rhythm.tempo if sketch.rhythm else tempo)
    parts: list[Part] = []
    if sketch.chords is not None:
        spans = [
            (a / beat, (b - a) / beat, voiced(parse_chord(n))) for a, b, n in sketch.chords.spans
        ]
        upper = tuple(Note(a, d, note, VELOCITY) for a, d, (_, *notes) in spans for note in notes)
        bass = tuple(Note(a, d, notes[0], ACCENT) for a, d, notes in spans)
        parts += [
            _part("piano", PIANO, "chords", upper),
            _part("electric bass", FINGERED_BASS, "bass", bass),
        ]
    if sketch.melody is not None:
        tune = tuple(
            Note(a / beat, (b - a) / beat, pitch, ACCENT) for a, b, pitch in sketch.melody.notes
        )
        parts.append(_part("flute", FLUTE, "melody", tune))
    if sketch.rhythm is not None:
        parts.append(_part("drums", KIT, "drums", _drums(sketch.rhythm, beat)))
    beats = int(np.ceil(seconds / beat))
    key = parse_key("C")
    score = Score("plain", "plain", 60 / beat, 4, key, (), tuple(parts), ((0, "all"),), beats, "")
    samples = render(score, soundfont, seconds=seconds)
    return samples if sketch.dynamics is None else ride(samples, sketch.dynamics)


def _drums(rhythm: Rhythm, beat: float) -> tuple[Note, ...]:
    def is_bar(time: float) -> bool:
        return any(abs(time - downbeat) < beat / 2 for downbeat in rhythm.downbeats)

    return tuple(
        Note(
            time / beat,
            STRUCK,
            KICK if is_bar(time) else SNARE,
            ACCENT if is_bar(time) else VELOCITY,
        )
        for time in rhythm.beats
        if time >= 0
    )


def _part(instrument: str, program: int, role: str, notes: tuple[Note, ...]) -> Part:
    return Part(instrument, program, role, notes, 0.0, 0.8, 0.2)
