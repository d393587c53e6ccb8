"""Controls out of MIDI files: a tune, strokes, tempo and meter."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from audiodiff.score import DRUM_CHANNEL, MidiNote, midi_to_notes
from shared.errors import UserError

DEFAULT_TEMPO = 500_000  # microseconds a beat where a file says nothing, by the standard
TOGETHER = 0.06  # beats within which notes count as struck at once


@dataclass(frozen=True)
class Midi:
    """What of a MIDI file matters here.

    Attributes:
        notes: by start.
        ticks_per_beat: quarter notes being beats.
        tempi: tick and microseconds a beat of each change of tempo, the first at 0.
        states_tempo: whether the file says any.
        meter: beats a bar at its start; None if it does not say, or not in quarters.
    """

    notes: tuple[MidiNote, ...]
    ticks_per_beat: int
    tempi: tuple[tuple[int, int], ...]
    states_tempo: bool
    meter: int | None

    @property
    def bpm(self) -> float:
        """Beats a minute at its start."""
        return 60e6 / self.tempi[0][1]

    def seconds(self, tick: int) -> float:
        """The time of a tick by the file's own tempi."""
        passed = 0.0
        index = bisect_right(self.tempi, (tick, 1 << 62)) - 1
        for (start, tempo), (end, _) in zip(self.tempi[:index], self.tempi[1:], strict=False):
            passed += (end - start) * tempo
        start, tempo = self.tempi[index]
        return (passed + (tick - start) * tempo) / self.ticks_per_beat / 1e6

    def beat(self, tick: int) -> float:
        """The beat, from 0, of a tick."""
        return tick / self.ticks_per_beat


def is_midi(path: Path) -> bool:
    """Whether a file is MIDI, by its first bytes."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"MThd"
    except OSError:
        return False


def read_midi(path: Path, option: str) -> Midi:
    """A MIDI file's notes, tempo and meter.

    Raises:
        UserError: it cannot be read, has no notes, or counts in frames of film.
    """
    import mido

    try:
        file = mido.MidiFile(str(path))
    except (OSError, EOFError, ValueError, KeyError, IndexError) as error:
        raise UserError(
            f"{option}: {str(path)!r} is no MIDI file that can be read: {error}"
        ) from None
    notes = tuple(midi_to_notes(path))
    if not notes:
        raise UserError(f"{option}: {str(path)!r} is a MIDI file without notes")
    if not 0 < file.ticks_per_beat < 0x8000:
        raise UserError(f"{option}: {str(path)!r} counts in frames of film, not in beats")
    tempi, meters = {}, []
    for track in file.tracks:
        now = 0
        for message in track:
            now += message.time
            if message.type == "set_tempo":
                tempi[now] = message.tempo
            elif message.type == "time_signature" and message.denominator == 4 and now == 0:
                meters.append(message.numerator)
    return Midi(
        notes,
        file.ticks_per_beat,
        tuple(sorted(({0: DEFAULT_TEMPO} | tempi).items())),
        bool(tempi),
        meters[0] if meters else None,
    )


def tune(midi: Midi, path: Path, option: str) -> tuple[list[MidiNote], int]:
    """The notes of the part that lies highest, one at a time, and how many parts there are.

    Of notes struck together the highest is taken, and each ends where the next begins.

    Raises:
        UserError: there are only drums.
    """
    parts: dict[tuple[int, int], list[MidiNote]] = defaultdict(list)
    for note in midi.notes:
        if note.channel != DRUM_CHANNEL and note.duration > 0:
            parts[note.channel, note.program].append(note)
    if not parts:
        raise UserError(f"{option}: {str(path)!r} has only drums; a tune needs notes with a pitch")
    return _one_by_one(max(parts.values(), key=_height), midi.ticks_per_beat), len(parts)


def strokes(midi: Midi) -> list[MidiNote]:
    """The drums' notes, or all notes where there are no drums."""
    drums = [note for note in midi.notes if note.channel == DRUM_CHANNEL]
    return drums or list(midi.notes)


def _height(notes: Sequence[MidiNote]) -> float:
    """The mean pitch, long notes counting more."""
    total = sum(note.duration for note in notes)
    return sum(note.pitch * note.duration for note in notes) / total


def _one_by_one(notes: Sequence[MidiNote], ticks_per_beat: int) -> list[MidiNote]:
    slack = TOGETHER * ticks_per_beat
    kept: list[MidiNote] = []
    for note in sorted(notes, key=lambda note: (note.start, -note.pitch)):
        if kept and note.start - kept[-1].start <= slack:
            if note.pitch <= kept[-1].pitch:
                continue
            kept.pop()
        kept.append(note)
    ends = [note.start for note in kept[1:]] + [kept[-1].start + kept[-1].duration]
    return [
        MidiNote(
            note.channel,
            note.program,
            note.start,
            min(note.duration, end - note.start),
            note.pitch,
            note.velocity,
        )
        for note, end in zip(kept, ends, strict=True)
        if end > note.start
    ]
