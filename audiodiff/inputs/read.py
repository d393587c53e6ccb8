"""From what a user hands in, files and texts, to a sketch, a length and a tempo."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median

from audiodiff.inputs import midi, text
from audiodiff.inputs.asked import Asked, Handling, handling, option_of
from audiodiff.inputs.grid import Grid, steady
from audiodiff.settings import (
    DEFAULT_LOUDNESS,
    DEFAULT_SECONDS,
    METERS,
    SECONDS,
    check_seconds,
    check_wishes,
)
from audiodiff.sketch import Chords, Curve, Melody, Rhythm, Sketch, Timbre
from audiodiff.wishes import UNSTATED_TEMPO, loop_seconds, read_wishes
from shared.errors import UserError

SAME_TEMPO = 0.04  # share by which two tempi may differ and still be one
HALF_FRAME = 0.05  # seconds that a control may outlast the clip: about half a latent frame
CURVES: Mapping[str, tuple[str, tuple[float, float]]] = {
    "dynamics": ("dB", (-60.0, 0.0)),
    "brightness": ("Hz", (200.0, 12_000.0)),
    "stereo_width": ("from 0 to 1", (0.0, 1.0)),
    "noisiness": ("from 0 to 1", (0.0, 1.0)),
    "onset_density": ("onsets a second", (0.0, 12.0)),
}
FILES = (".mid", ".midi", ".wav", ".flac", ".mp3", ".ogg", ".aif", ".aiff", ".m4a", ".opus")


@dataclass(frozen=True)
class Outline:
    """What came of it.

    Attributes:
        sketch: None where nothing was given.
        seconds: the clip's length: what was asked for, or as long as the controls are.
        bpm: beats a minute: what was asked for, or the tempo of a rhythm or a MIDI file.
        meter: beats a bar, if it was asked for or a MIDI file says it.
        notes: what to tell the user, a line each.
    """

    sketch: Sketch | None
    seconds: float
    bpm: float | None
    meter: int | None
    notes: tuple[str, ...] = ()

    def check_controlled(self, prompt: str, key: str | None) -> None:
        """Raise UserError where nothing is given that a clip could hold."""
        wishes = read_wishes(prompt, self.bpm, key)
        if self.sketch is None and wishes.tempo is None and wishes.key is None:
            raise UserError(
                "--best-of chooses by the controls; give one, such as --melody, --bpm or --key"
            )

    def loudness(self) -> float:
        """What to bring the clip to, LUFS: as its dynamics say, or as clips are by default."""
        if self.sketch is None or self.sketch.dynamics is None:
            return DEFAULT_LOUDNESS
        from audiodiff.curves import loudness_for

        return loudness_for(self.sketch.dynamics, self.seconds)


@dataclass
class _Reading:
    """What is known so far."""

    asked: Asked
    seconds: float | None
    bpm: float | None
    meter: int | None
    stated: float | None  # the prompt's tempo
    notes: list[str] = field(default_factory=list)
    grid: Grid | None = None  # of a rhythm or MIDI file

    def beats(self) -> Grid:
        """The grid that texts in beats are laid on."""
        if self.grid is not None:
            return self.grid
        if self.bpm is None:
            self.bpm = self.stated
        if self.bpm is None:
            self.bpm = UNSTATED_TEMPO
            self.notes.append(f"beats need a tempo and none is stated; {self.bpm:g} bpm is taken")
        return steady(self.bpm, self.meter or 4)


def read_sketch(
    asked: Asked,
    prompt: str,
    seconds: float | None = None,
    bpm: float | None = None,
    key: str | None = None,
    meter: int | None = None,
    loop: int | None = None,
) -> Outline:
    """Read all that was handed in.

    Args:
        prompt: its tempo and meter are those of texts in beats, if no option says another.
        seconds: None is as long as the controls, or 6.
        loop: the length in bars, in place of ``seconds``.

    Raises:
        UserError: what cannot be read, lasts longer than the clip, or contradicts itself.
    """
    if seconds is not None:
        if loop is not None:
            raise UserError("--loop says the length in bars; --seconds cannot be given with it")
        check_seconds(seconds)
    check_wishes(bpm, key, meter, loop)
    wishes = read_wishes(prompt, bpm, key, meter)
    reading = _Reading(asked, seconds, bpm, meter, wishes.tempo)
    if meter is None and wishes.meter != 4:
        reading.meter = wishes.meter
    held = handling(asked)
    # The rhythm first, then a MIDI tune: they may bring the tempo that texts are read with.
    struck = _rhythm(reading)
    melody = _melody(reading)
    chords = _chords(reading)
    curves = {name: _curve(reading, name) for name in CURVES}
    timbre = _timbre(reading)
    ends = {name: curve.end for name, curve in curves.items() if curve is not None}
    if melody is not None:
        ends["melody"] = melody.end
    if chords is not None:
        ends["chords"] = chords.end
    if struck is not None:
        ends["rhythm"] = struck.end
    if loop is not None:
        reading.seconds = loop_seconds(prompt, reading.bpm, reading.meter, loop)
        check_seconds(reading.seconds)
    length = _length(reading, ends, held)
    sketch = Sketch(
        melody=held.hold("melody", melody),
        chords=held.hold("chords", chords and Chords(spans=chords.until(length))),
        rhythm=held.hold("rhythm", struck and _all_beats(reading.beats(), struck, length)),
        dynamics=held.hold("dynamics", curves["dynamics"]),
        like=held.hold("like", timbre),
        brightness=held.hold("brightness", curves["brightness"]),
        stereo_width=held.hold("stereo_width", curves["stereo_width"]),
        noisiness=held.hold("noisiness", curves["noisiness"]),
        onset_density=held.hold("onset_density", curves["onset_density"]),
    )
    given = sketch.parts()
    held.check_given(given.keys())
    return Outline(
        sketch if given else None, length, reading.bpm, reading.meter, tuple(reading.notes)
    )


@dataclass(frozen=True)
class _Struck:
    """A rhythm's strokes: where they end, 0 for never, and those in a clip of a given length."""

    end: float
    within: Callable[[float], tuple[float, ...]]


@dataclass(frozen=True)
class _Progression:
    """Chords, and when the last is over, rests included."""

    spans: tuple[tuple[float, float, str], ...]
    end: float

    def until(self, seconds: float) -> tuple[tuple[float, float, str], ...]:
        """Over and over until the clip ends."""
        return tuple(
            (round(start + turn * self.end, 4), round(min(end + turn * self.end, seconds), 4), name)
            for turn in range(int(seconds // self.end) + 1)
            for start, end, name in self.spans
            if start + turn * self.end < seconds
        )


def _all_beats(grid: Grid, struck: _Struck, seconds: float) -> Rhythm:
    beats, downbeats = grid.beats(seconds)
    return Rhythm(beats=beats, downbeats=downbeats, strokes=struck.within(seconds))


def _file(value: str, option: str) -> Path | None:
    """The file that a value names, or None if it is a text.

    Raises:
        UserError: it can only be a file's name, and there is no such file.
    """
    path = Path(value)
    try:
        if path.is_file():
            return path
    except (OSError, ValueError):  # too long for a name, or with a null
        return None
    if path.suffix.lower() in FILES:
        raise UserError(f"{option}: there is no file {value!r}")
    return None


def _rhythm(reading: _Reading) -> _Struck | None:
    value, option = reading.asked.rhythm, "--rhythm"
    if value is None:
        return None
    path = _file(value, option)
    if path is None:
        pattern, grid = text.read_pattern(value, option), reading.beats()
        return _Struck(0.0, lambda seconds: text.strokes_of(pattern, grid, seconds))
    if midi.is_midi(path):
        file = midi.read_midi(path, option)
        _take_tempo(reading, file, option)
        starts = [_midi_time(reading, file, note.start) for note in midi.strokes(file)]
        return _played(starts, starts[-1])
    from audiodiff.inputs import audio

    times, length = audio.beats(path, option, reading.bpm)
    heard = 60 / median(later - sooner for sooner, later in pairwise(times))
    if reading.bpm is not None:
        _refuse_other_tempo(reading.bpm, heard, option, value)
    else:
        reading.bpm = round(heard, 1)
        check_wishes(reading.bpm, None)
        reading.notes.append(f"{option} beats at about {heard:.0f} bpm, which is taken")
    meter = reading.meter or 4
    first = min(audio.bar_begins(path, times, meter), len(times) - 2)
    reading.grid = Grid(times[first:], meter)
    return _played(audio.strokes(path), length)


def _played(times: Sequence[float], end: float) -> _Struck:
    once = tuple(dict.fromkeys(round(time, 4) for time in times))
    return _Struck(end, lambda seconds: tuple(time for time in once if 0 <= time < seconds))


def _refuse_other_tempo(bpm: float, heard: float, option: str, value: str) -> None:
    if abs(heard / bpm - 1) > SAME_TEMPO:
        raise UserError(
            f"--bpm {bpm:g} contradicts {option} {value!r}, which beats at {heard:.1f}; "
            "leave one out"
        )


def _take_tempo(reading: _Reading, file: midi.Midi, option: str) -> None:
    """Let a MIDI file's tempo and meter be the clip's, where nothing else says one."""
    low, high = METERS
    if reading.meter is None and file.meter is not None and low <= file.meter <= high:
        reading.meter = file.meter
    if reading.bpm is not None and option == "--rhythm" and file.states_tempo:
        _refuse_other_tempo(reading.bpm, file.bpm, option, reading.asked.rhythm or "")
    if reading.bpm is None and file.states_tempo:
        reading.bpm = round(file.bpm, 2)
        check_wishes(reading.bpm, None)
    reading.grid = reading.grid or reading.beats()


def _midi_time(reading: _Reading, file: midi.Midi, tick: int) -> float:
    """A tick's time: by the file's own tempi if they change, else by the clip's beats."""
    if len(file.tempi) > 1 and reading.asked.rhythm is None:
        return file.seconds(tick)
    return reading.beats().seconds(file.beat(tick))


def _melody(reading: _Reading) -> Melody | None:
    value, option = reading.asked.melody, "--melody"
    if value is None:
        return None
    path = _file(value, option)
    if path is None:
        notes = text.placed(text.read_notes(value, option), reading.beats())
        return Melody(notes=tuple(notes))
    if not midi.is_midi(path):
        from audiodiff.inputs import audio

        return Melody(notes=audio.tune(path, option))
    file = midi.read_midi(path, option)
    found, parts = midi.tune(file, path, option)
    if parts > 1:
        reading.notes.append(f"{option}: of the {parts} parts the one that lies highest is taken")
    _take_tempo(reading, file, option)
    return Melody(
        notes=tuple(
            (
                round(_midi_time(reading, file, note.start), 4),
                round(_midi_time(reading, file, note.start + note.duration), 4),
                note.pitch,
            )
            for note in found
        )
    )


def _chords(reading: _Reading) -> _Progression | None:
    value, option = reading.asked.chords, "--chords"
    if value is None:
        return None
    items = text.read_chords(value, option, reading.meter or 4)
    grid = reading.beats()
    spans = text.placed(items, grid)
    return _Progression(
        tuple((start, end, chord.name) for start, end, chord in spans),
        round(grid.seconds(sum(item.beats for item in items)), 4),
    )


def _curve(reading: _Reading, name: str) -> Curve | None:
    value, option = getattr(reading.asked, name), option_of(name)
    if value is None:
        return None
    unit, limits = CURVES[name]
    path = _file(value, option)
    if path is None:
        return Curve(points=text.read_points(value, option, unit, limits))
    if name != "dynamics":
        raise UserError(f"{option} takes points such as 0:{limits[0]:g} 4:{limits[1]:g}, no file")
    from audiodiff.inputs import audio

    return Curve(points=audio.levels(path, option))


def _timbre(reading: _Reading) -> Timbre | None:
    value = reading.asked.like
    if value is None:
        return None
    from audiodiff.inputs.timbre import read_timbre

    return read_timbre(Path(value), "--like")


def _length(reading: _Reading, ends: Mapping[str, float], held: Handling) -> float:
    """The clip's length; what lasts longer is refused, but where only a span of it counts."""
    whole = {name: end for name, end in ends.items() if name not in held.spans}
    seconds = reading.seconds
    if seconds is None:
        seconds = DEFAULT_SECONDS
        longest = max(whole, key=lambda name: whole[name], default="")
        if longest and whole[longest] > seconds:
            seconds = round(whole[longest], 3)
            if seconds > SECONDS[1]:
                raise UserError(
                    f"{option_of(longest)} lasts {seconds:g} s, a clip at most {SECONDS[1]:g}; "
                    f"take a part with --span {longest}=0:{SECONDS[1]:g}"
                )
            reading.notes.append(f"the clip is as long as {option_of(longest)}: {seconds:g} s")
    for name, end in whole.items():
        if end > seconds + HALF_FRAME:
            raise UserError(
                f"{option_of(name)} lasts {end:.2f} s, the clip {seconds:g}; ask for --seconds "
                f"{end:.2f}, or take a part with --span {name}=0:{seconds:g}"
            )
    for name, (start, end) in held.spans.items():
        if end > seconds + HALF_FRAME:
            raise UserError(
                f"--span {name}={start:g}:{end:g} goes beyond the clip, which lasts {seconds:g} s"
            )
    return seconds
