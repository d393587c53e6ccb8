"""From a score to sound: FluidSynth plays its notes on the instruments of a soundfont."""

import contextlib
import ctypes
import io
import struct
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np

from audiodiff.score import DRUM_CHANNEL, Part, Score, channels
from shared.errors import UserError

SAMPLE_RATE = 44100  # Hz
TAIL_SECONDS = 2.0  # for the last notes to fade when no length is asked for
BLOCK = 64  # samples; FluidSynth takes notice of events between blocks of this size only
GAIN = 0.3  # about full scale for a band; the samples are floats, so louder ones are not cut
LOWEST = 20.0  # Hz; below it there is nothing but offsets of a soundfont's samples
DRUM_BANK = 128
PROGRAM_MISSING = -1

SOUNDFONTS = (
    Path("/usr/share/sounds/sf2/FluidR3_GM.sf2"),  # Debian, Ubuntu
    Path("/usr/share/soundfonts/FluidR3_GM.sf2"),  # Arch, Fedora
)


def find_soundfont(path: Path | None = None) -> Path:
    """The soundfont at ``path``, or the system's FluidR3 GM.

    Raises:
        UserError: there is none, or ``path`` is no soundfont; tells what to install.
    """
    if path is None:
        found = next((place for place in SOUNDFONTS if place.is_file()), None)
        if found is None:
            raise UserError(
                "no soundfont found; install Debian's fluid-soundfont-gm or pass --soundfont PATH"
            )
        return found
    try:
        with path.open("rb") as file:
            head = file.read(12)
            size = file.seek(0, io.SEEK_END)
    except FileNotFoundError:
        raise UserError(
            f"there is no soundfont {str(path)!r}; Debian's fluid-soundfont-gm has one"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read the soundfont {str(path)!r}: {error.strerror}") from None
    if head[:4] != b"RIFF" or head[8:] != b"sfbk":
        raise UserError(f"{str(path)!r} is not a soundfont; a .sf2 or .sf3 file is needed")
    if size < struct.unpack("<I", head[4:8])[0] + 8:
        raise UserError(f"the soundfont {str(path)!r} is cut short")
    return path


@lru_cache(maxsize=1)
def _library() -> tuple[ModuleType, Any]:
    """pyfluidsynth, quietened, and FluidSynth's function that renders floats.

    Raises:
        UserError: it or FluidSynth itself is not installed.
    """
    try:
        # On CI machines the module prints where it found the library.
        with contextlib.redirect_stdout(io.StringIO()):
            import fluidsynth
    except ModuleNotFoundError:
        raise UserError("pyfluidsynth is not installed; pip install 'duotone[audio]'") from None
    except (ImportError, OSError):
        raise UserError(
            "the FluidSynth library is not installed; apt-get install fluidsynth"
        ) from None
    # pyfluidsynth renders 16-bit samples only: dithered, cut at full scale.
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    write_float = fluidsynth.cfunc(
        "fluid_synth_write_float",
        integer,
        ("synth", pointer, 1),
        ("len", integer, 1),
        ("lout", pointer, 1),
        ("loff", integer, 1),
        ("lincr", integer, 1),
        ("rout", pointer, 1),
        ("roff", integer, 1),
        ("rincr", integer, 1),
    )
    set_log_function = fluidsynth.cfunc(
        "fluid_set_log_function",
        pointer,
        ("level", integer, 1),
        ("fun", pointer, 1),
        ("data", pointer, 1),
    )
    assert write_float is not None and set_log_function is not None  # both as old as 2.0
    for level in range(5):  # what matters comes as return values, and as UserError from here
        set_log_function(level, None, None)
    return fluidsynth, write_float


class Renderer:
    """Plays scores with one soundfont, which stays in memory until `close` or the ``with`` ends.

    Equal scores give equal bytes, whatever was rendered before: each gets a new synthesizer. (One
    that is reset keeps, for instance, the phases of its chorus.) FluidSynth shares a soundfont's
    samples between the synthesizers of a process, so a new one costs about 0.05 s.

    Raises:
        UserError: no soundfont, a broken one, or FluidSynth is not installed.
    """

    def __init__(self, soundfont: Path) -> None:
        self.soundfont = find_soundfont(soundfont)
        self._keeper, _ = self._synth(SAMPLE_RATE)  # keeps the samples loaded

    def __enter__(self) -> "Renderer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the soundfont's memory back; nothing can be rendered afterwards."""
        if self._keeper is not None:
            self._keeper.delete()
            self._keeper = None

    def render(
        self, score: Score, sample_rate: int = SAMPLE_RATE, seconds: float | None = None
    ) -> np.ndarray:
        """What `render` gives, without loading the soundfont."""
        length = score.seconds + TAIL_SECONDS if seconds is None else seconds
        samples = round(length * sample_rate)
        blocks = -(-samples // BLOCK)
        synth, font = self._synth(sample_rate)
        try:
            placed = list(zip(channels(score.parts), score.parts, strict=True))
            for channel, part in reversed(placed):  # the first drum part's kit counts
                self._set_up(synth, font, channel, part)
            seconds_per_beat = 60 / score.tempo
            blocks_per_beat = seconds_per_beat * sample_rate / BLOCK
            events = sorted(
                event
                for channel, part in placed
                for event in _events(part, channel, blocks_per_beat)
            )
            return _without_offset(_play(synth, events, blocks)[:, :samples], sample_rate)
        finally:
            synth.delete()

    def _synth(self, sample_rate: int) -> tuple[Any, int]:
        """A new synthesizer and the soundfont's number in it."""
        fluidsynth, _ = _library()
        synth = fluidsynth.Synth(gain=GAIN, samplerate=sample_rate, channels=16)
        font = synth.sfload(str(self.soundfont))
        if font < 0:
            synth.delete()
            raise UserError(f"{str(self.soundfont)!r} is a broken soundfont")
        return synth, font

    def _set_up(self, synth: Any, font: int, channel: int, part: Part) -> None:
        bank = DRUM_BANK if channel == DRUM_CHANNEL else 0
        if synth.program_select(channel, font, bank, part.program) == PROGRAM_MISSING:
            raise UserError(
                f"{str(self.soundfont)!r} has no program {part.program} in bank {bank}; a complete "
                "General MIDI soundfont is needed, such as Debian's fluid-soundfont-gm"
            )
        for control, value in (
            (7, part.volume * 127),
            (10, (part.pan + 1) * 63.5),
            (91, part.reverb * 127),
        ):
            synth.cc(channel, control, min(127, max(0, round(value))))


def _events(
    part: Part, channel: int, blocks_per_beat: float
) -> list[tuple[int, int, int, int, int]]:
    """(block, 1 for on or 0 for off, channel, pitch, velocity): ends sort before starts."""
    events = []
    for note in part.notes:
        start = max(0, round(note.start * blocks_per_beat))
        end = max(start + 1, round(note.end * blocks_per_beat))
        events.append((start, 1, channel, note.pitch, note.velocity))
        events.append((end, 0, channel, note.pitch, 0))
    return events


def _play(synth: Any, events: list[tuple[int, int, int, int, int]], blocks: int) -> np.ndarray:
    """Render ``blocks`` blocks, (2, samples) float32, with the events at the blocks they name."""
    _, write_float = _library()
    out = np.zeros((2, blocks * BLOCK), np.float32)
    left, right = (row.ctypes.data for row in out)
    now = 0
    for block, on, channel, pitch, velocity in [*events, (blocks, 0, 0, 0, 0)]:
        block = min(block, blocks)
        if block > now:
            at, count = now * BLOCK, (block - now) * BLOCK
            write_float(synth.synth, count, left, at, 1, right, at, 1)
            now = block
        if now == blocks:
            break
        if on:
            synth.noteon(channel, pitch, velocity)
        else:
            synth.noteoff(channel, pitch)
    return out


def _without_offset(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Samples (2, s) without what is below 20 Hz: a Butterworth high-pass of the fourth order."""
    from scipy.signal import butter, sosfilt

    high_pass = butter(4, LOWEST, "high", fs=sample_rate, output="sos")
    return np.asarray(sosfilt(high_pass, samples), np.float32)


@lru_cache(maxsize=1)
def loaded(soundfont: Path) -> Renderer:
    """The process's renderer of a soundfont, which stays in memory.

    Raises:
        UserError: see `Renderer`.
    """
    return Renderer(soundfont)


def render(
    score: Score,
    soundfont: Path,
    sample_rate: int = SAMPLE_RATE,
    seconds: float | None = None,
) -> np.ndarray:
    """Play a score; the soundfont stays loaded for the next call.

    Events are at the nearest of FluidSynth's blocks of 64 samples, so at most 0.73 ms off at
    44.1 kHz. Notes and tails that reach past the end are cut there.

    Args:
        score: what to play.
        soundfont: file, see `find_soundfont`.
        sample_rate: Hz.
        seconds: the length; by default the score's, and 2 s more for the last notes to fade.

    Returns:
        (2, round(seconds * sample_rate)) float32, left and right, without what is below 20 Hz. Full
        scale is 1, but nothing is cut there: see `audiodiff.loudness.normalize`.

    Raises:
        UserError: no soundfont, one that lacks an instrument, or FluidSynth is not installed.
    """
    return loaded(soundfont).render(score, sample_rate, seconds)


def render_part(
    score: Score,
    part: Part,
    soundfont: Path,
    sample_rate: int = SAMPLE_RATE,
    seconds: float | None = None,
) -> np.ndarray:
    """Play only ``part`` of a score, as `render` plays the whole."""
    return render(replace(score, parts=(part,)), soundfont, sample_rate, seconds)
