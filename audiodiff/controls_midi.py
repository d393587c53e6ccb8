"""What a clip was told to keep, as a MIDI file: chords, beats, tune, to go on with elsewhere."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from audiodiff.inputs.grid import Grid, steady
from audiodiff.score import DRUM_CHANNEL, TICKS_PER_BEAT, key_signature
from audiodiff.settings import MusicSettings
from audiodiff.theory import Chord, parse_chord
from audiodiff.wishes import UNSTATED_TEMPO, Wishes, wishes_of
from shared.files import whole_file

if TYPE_CHECKING:
    import mido

BASS, TREBLE = 36, 60  # MIDI notes: the octaves of a chord's bass and of its other notes
ACCENT, BEAT = 34, 33  # General MIDI's metronome bell and click
STROKE = 37  # its side stick
VELOCITY = 90
STRUCK = 0.1  # seconds that a beat's or a stroke's note lasts

Timed = tuple[float, float, int]
"""Start and end in seconds, and a MIDI note."""


def has_controls(settings: MusicSettings) -> bool:
    """Whether there is anything to write: a tempo, chords, a tune or strokes."""
    return any(notes for _, notes in _tracks(settings))


def save_controls(path: Path, settings: MusicSettings, overwrite: bool = False) -> None:
    """Write the controls of a clip as a MIDI file of type 1, whole or not at all.

    Raises:
        UserError: a file in the way, or the system refuses to write.
    """
    content = io.BytesIO()
    controls_to_midi(settings).save(file=content)
    with whole_file(path, overwrite) as target:
        target.write(content.getbuffer())


def controls_to_midi(settings: MusicSettings) -> mido.MidiFile:
    """A track for tempo, meter and key, then one each for chords, beats, tune and strokes."""
    import mido

    wishes = wishes_of(settings)
    tempo = wishes.tempo or UNSTATED_TEMPO
    file = mido.MidiFile(ticks_per_beat=TICKS_PER_BEAT)
    head = file.add_track("Duotone")
    head.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(tempo)))
    head.append(mido.MetaMessage("time_signature", numerator=wishes.meter, denominator=4))
    if wishes.key is not None:
        head.append(mido.MetaMessage("key_signature", key=key_signature(wishes.key)))
    for channel, (name, notes) in enumerate(_tracks(settings)):
        if notes:
            drums = name in ("beats", "strokes")
            track = file.add_track(name)
            for kind, pitch, gap in _events(notes, tempo):
                where = DRUM_CHANNEL if drums else channel
                track.append(
                    mido.Message(kind, channel=where, note=pitch, velocity=VELOCITY, time=gap)
                )
    return file


def _tracks(settings: MusicSettings) -> list[tuple[str, list[Timed]]]:
    wishes, sketch, seconds = wishes_of(settings), settings.sketch, settings.seconds
    grid = None if wishes.tempo is None else steady(wishes.tempo, wishes.meter)
    rhythm = sketch and sketch.rhythm
    if sketch is not None and sketch.chords is not None:
        spans = [(start, end, parse_chord(name)) for start, end, name in sketch.chords.heard()]
    else:
        spans = [] if grid is None else _stated(wishes, grid, seconds)
    beats: Sequence[float] = rhythm.beats if rhythm else ()
    downbeats: Iterable[float] = rhythm.downbeats if rhythm else ()
    if grid is not None and not beats:
        beats, downbeats = grid.beats(seconds)
    accents = {round(time, 3) for time in downbeats}
    return [
        ("chords", [(a, b, note) for a, b, chord in spans for note in voiced(chord)]),
        ("tune", list(sketch.melody.heard()) if sketch and sketch.melody else []),
        (
            "beats",
            [
                (t, t + STRUCK, ACCENT if round(t, 3) in accents else BEAT)
                for t in beats
                if 0 <= t < seconds
            ],
        ),
        ("strokes", [(t, t + STRUCK, STROKE) for t in (rhythm.strokes if rhythm else ())]),
    ]


def voiced(chord: Chord) -> list[int]:
    """The MIDI notes of a chord in root position over its bass."""
    above = [TREBLE + chord.root + (pitch - chord.root) % 12 for pitch in chord.pitch_classes]
    return [BASS + chord.bass, *sorted(above)]


def _stated(wishes: Wishes, grid: Grid, seconds: float) -> list[tuple[float, float, Chord]]:
    """The chords that a prompt states, a bar each, over and over."""
    bars = [time for time in grid.beats(seconds)[1] if time < seconds] if wishes.chords else []
    length = wishes.meter * 60 / (wishes.tempo or UNSTATED_TEMPO)
    return [
        (start, min(start + length, seconds), wishes.chords[i % len(wishes.chords)])
        for i, start in enumerate(bars)
    ]


def _events(notes: Sequence[Timed], tempo: float) -> list[tuple[str, int, int]]:
    """(kind, note, ticks since the event before): at one tick, ends come before starts."""
    per_second = tempo / 60 * TICKS_PER_BEAT
    events = []
    for start, end, pitch in notes:
        first = round(start * per_second)
        events += [(first, 1, pitch), (max(first + 1, round(end * per_second)), 0, pitch)]
    events.sort()
    gaps = [
        tick - before for (tick, *_), (before, *_) in zip(events, [(0,), *events], strict=False)
    ]
    return [
        ("note_on" if starts else "note_off", pitch, gap)
        for (_, starts, pitch), gap in zip(events, gaps, strict=True)
    ]
