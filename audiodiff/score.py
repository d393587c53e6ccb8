"""A piece of music as data: notes, parts, and what is true of the whole.

Time is in beats. Swing and humanised timing are already inside the notes' starts, while the beats
themselves stay exact: beat ``n`` sounds at ``n * 60 / tempo`` seconds.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from audiodiff.theory import PITCH_CLASSES, Chord, Key
from shared.errors import UserError

if TYPE_CHECKING:
    import mido

TICKS_PER_BEAT = 480
DRUM_CHANNEL = 9  # MIDI's channel 10, counted from 0
DRUM_ROLES = ("drums", "percussion")
ROLES = (*DRUM_ROLES, "bass", "chords", "melody", "pad", "arpeggio", "effect")

EARLY = 0.06  # beats: how far before its beat a humanised note may lie
SHORTEST = 0.2  # beats: what is left of a cut note must be at least this long to be kept

# MIDI's key signatures know only major and minor; other modes are written as their relative major.
RELATIVE_MAJOR = {"dorian": 10, "mixolydian": 5, "phrygian": 8, "lydian": 7}


@dataclass(frozen=True)
class Note:
    """``start`` >= 0 and ``duration`` > 0 in beats; MIDI ``pitch`` and ``velocity`` (1 to 127)."""

    start: float
    duration: float
    pitch: int
    velocity: int

    @property
    def end(self) -> float:
        """In beats."""
        return self.start + self.duration


@dataclass(frozen=True)
class Part:
    """What one player plays.

    Attributes:
        instrument: a family out of `audiodiff.styles.INSTRUMENTS`, "saxophone".
        program: the General MIDI program, 0 to 127; of drums, the kit's.
        role: one of `ROLES`; "drums" and "percussion" go to the drum channel.
        notes: sorted by start; no two of one pitch overlap.
        pan: -1 (left) to 1 (right).
        volume: 0 to 1, MIDI's channel volume.
        reverb: 0 to 1, MIDI's reverb send.
    """

    instrument: str
    program: int
    role: str
    notes: tuple[Note, ...]
    pan: float
    volume: float
    reverb: float


@dataclass(frozen=True)
class Score:
    """A piece, or an excerpt of one.

    Attributes:
        style: a name out of `audiodiff.styles.STYLES`.
        mood: one word.
        tempo: beats a minute.
        meter: beats a bar; beat 0 is a downbeat.
        key: of the whole.
        chords: one a beat.
        parts: those that have notes.
        sections: the first beat and the name of each, in order.
        beats: the length.
        seed: what it was composed from.
    """

    style: str
    mood: str
    tempo: float
    meter: int
    key: Key
    chords: tuple[Chord, ...]
    parts: tuple[Part, ...]
    sections: tuple[tuple[int, str], ...]
    beats: int
    seed: str

    @property
    def seconds(self) -> float:
        """The length, without the last notes' release."""
        return self.beats * 60 / self.tempo

    @property
    def instruments(self) -> tuple[str, ...]:
        """The families that sound, each once, in the order of the parts."""
        return tuple(dict.fromkeys(part.instrument for part in self.parts if part.notes))

    @property
    def pitched(self) -> bool:
        """Whether anything but drums sounds, so that there is a key."""
        return any(part.role not in DRUM_ROLES for part in self.parts)

    @property
    def melody(self) -> tuple[Note, ...]:
        """The tune, whichever instruments pass it on; () if there is none."""
        notes = (note for part in self.parts if part.role == "melody" for note in part.notes)
        return tuple(sorted(notes, key=lambda note: note.start))

    def excerpt(self, first_beat: int, beats: int) -> "Score":
        """Cut out ``beats`` beats from ``first_beat`` on, which becomes beat 0.

        Notes held across either end are shortened; a rest of a note too short to be heard as one,
        and a drum stroke from before, are dropped. Parts without a note left are dropped too.

        Raises:
            UserError: the piece has no such beats.
        """
        if beats < 1 or first_beat < 0 or first_beat + beats > self.beats:
            raise UserError(
                f"no beats {first_beat} to {first_beat + beats} in a piece of {self.beats} beats"
            )
        end = first_beat + beats
        parts = (
            replace(part, notes=_cut(part.notes, part.role, first_beat, end)) for part in self.parts
        )
        before = [section for section in self.sections if section[0] <= first_beat][-1:]
        after = [section for section in self.sections if first_beat < section[0] < end]
        return replace(
            self,
            chords=self.chords[first_beat:end],
            parts=tuple(part for part in parts if part.notes),
            sections=tuple((max(0, beat - first_beat), name) for beat, name in before + after),
            beats=beats,
        )


@dataclass(frozen=True)
class MidiNote:
    """A note read from a MIDI file: ``start`` and ``duration`` in ticks, ``channel`` from 0."""

    channel: int
    program: int
    start: int
    duration: int
    pitch: int
    velocity: int


def _cut(notes: Sequence[Note], role: str, first: int, end: int) -> tuple[Note, ...]:
    kept = []
    for note in notes:
        start, stop = max(0.0, note.start - first), min(note.end, end) - first
        if note.start < first - EARLY and (role in DRUM_ROLES or stop < SHORTEST):
            continue
        if note.start >= end - EARLY or stop <= 0:  # the next beat's, played a little early
            continue
        whole = note.start >= first and note.end <= end
        duration = note.duration if whole else stop - start
        kept.append(replace(note, start=start, duration=duration))
    return tuple(sorted(kept, key=lambda note: (note.start, note.pitch)))


def channels(parts: Sequence[Part]) -> list[int]:
    """A MIDI channel from 0 for each part: its own, but for drums, which share channel 10.

    Raises:
        UserError: more than fifteen parts that are not drums.
    """
    free = [channel for channel in range(16) if channel != DRUM_CHANNEL]
    melodic = sum(part.role not in DRUM_ROLES for part in parts)
    if melodic > len(free):
        raise UserError(f"{melodic} parts beside the drums; MIDI has channels for {len(free)}")
    following = iter(free)
    return [DRUM_CHANNEL if part.role in DRUM_ROLES else next(following) for part in parts]


def score_to_midi(score: Score) -> "mido.MidiFile":
    """Write the score as a MIDI file of type 1: a track for the meter, then one for each part.

    Drum parts share a channel and therefore a kit: the first one's.
    """
    import mido

    file = mido.MidiFile(ticks_per_beat=TICKS_PER_BEAT)
    head = file.add_track(f"{score.style}, {score.key.name}")
    head.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(score.tempo)))
    head.append(mido.MetaMessage("time_signature", numerator=score.meter, denominator=4))
    head.append(mido.MetaMessage("key_signature", key=key_signature(score.key)))
    placed = list(zip(channels(score.parts), score.parts, strict=True))
    kit = next((part.program for channel, part in placed if channel == DRUM_CHANNEL), 0)
    for channel, part in placed:
        track = file.add_track(f"{part.instrument} ({part.role})")
        program = kit if channel == DRUM_CHANNEL else part.program
        track.append(mido.Message("program_change", channel=channel, program=program))
        for control, value in (
            (7, part.volume * 127),
            (10, (part.pan + 1) * 63.5),
            (91, part.reverb * 127),
        ):
            level = min(127, max(0, round(value)))
            track.append(
                mido.Message("control_change", channel=channel, control=control, value=level)
            )
        now = 0
        for tick, kind, pitch, velocity in _events(part.notes):
            name = "note_on" if kind else "note_off"
            track.append(
                mido.Message(name, channel=channel, note=pitch, velocity=velocity, time=tick - now)
            )
            now = tick
    return file


def ticks(note: Note) -> tuple[int, int]:
    """Start and end of a note in ticks, at least one apart."""
    start = round(note.start * TICKS_PER_BEAT)
    return start, max(start + 1, round(note.end * TICKS_PER_BEAT))


def _events(notes: Sequence[Note]) -> list[tuple[int, int, int, int]]:
    """(tick, 1 for on or 0 for off, pitch, velocity): at one tick, ends come before starts."""
    events = []
    for note in notes:
        start, end = ticks(note)
        events += [(start, 1, note.pitch, note.velocity), (end, 0, note.pitch, 0)]
    return sorted(events)


def key_signature(key: Key) -> str:
    """The name that MIDI files have for a key's signature."""
    if key.mode in RELATIVE_MAJOR:
        return _mido_name((key.tonic + RELATIVE_MAJOR[key.mode]) % 12, "major")
    return _mido_name(key.tonic, "minor" if "minor" in key.mode else "major")


def _mido_name(tonic: int, mode: str) -> str:
    """mido writes minor keys as "Am", and only the twelve usual spellings of each."""
    if mode == "major":
        return "Db" if tonic == 1 else PITCH_CLASSES[tonic]
    return {8: "G#"}.get(tonic, PITCH_CLASSES[tonic]) + "m"


def midi_to_notes(path: Path | str) -> list[MidiNote]:
    """Read the notes of a MIDI file, sorted by start, channel and pitch.

    Raises:
        UserError: the file cannot be read as MIDI.
    """
    import mido

    try:
        file = mido.MidiFile(str(path))
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not a MIDI file that can be read ({error})") from None
    notes = []
    for track in file.tracks:
        now, programs = 0, defaultdict(int)
        sounding: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        for message in track:
            now += message.time
            if message.type == "program_change":
                programs[message.channel] = message.program
            elif message.type == "note_on" and message.velocity > 0:
                sounding[message.channel, message.note].append((now, message.velocity))
            elif message.type in ("note_on", "note_off"):
                held = sounding[message.channel, message.note]
                if held:
                    start, velocity = held.pop(0)
                    program = programs[message.channel]
                    notes.append(
                        MidiNote(
                            message.channel, program, start, now - start, message.note, velocity
                        )
                    )
    return sorted(notes, key=lambda note: (note.start, note.channel, note.pitch))
