"""A part that is added to a clip: what the clip lays down for it, and the two together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from audiodiff.audio_file import Tags, read_audio, resample, write_audio
from audiodiff.ground import Ground, listen
from audiodiff.inputs.audio import SILENT_DB
from audiodiff.inputs.read import HALF_FRAME, SAME_TEMPO, Outline
from audiodiff.labels import SAMPLE_RATE
from audiodiff.loudness import loudness, loudness_curve, normalize
from audiodiff.mix_settings import MixSettings, check_balance
from audiodiff.settings import DEFAULT_LOUDNESS, SECONDS, MusicSettings
from audiodiff.sketch import Chords, Rhythm, Sketch
from audiodiff.tempo import same_tempo
from shared import provenance
from shared.errors import UserError
from shared.sources import file_hash

if TYPE_CHECKING:
    from audiodiff.clip import Clip


@dataclass(frozen=True, eq=False)
class Backing:
    """A clip that exists.

    Attributes:
        samples: (2 s) at its own rate.
        ground: what was heard in it.
    """

    path: Path
    hash: str
    samples: np.ndarray
    sample_rate: int
    ground: Ground

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.samples.shape[1] / self.sample_rate

    def at(self, sample_rate: int) -> np.ndarray:
        """Its samples (2 s) at another rate."""
        return resample(self.samples, self.sample_rate, sample_rate)


def read_backing(path: Path, bpm: float | None = None, meter: int | None = None) -> Backing:
    """The clip of a file.

    Args:
        bpm, meter: if they are known.

    Raises:
        UserError: it cannot be read, is silent, too short or too long, beats at another tempo, or
            has more than two channels.
    """
    digest = file_hash(path)
    samples, rate = read_audio(path)
    samples = stereo(samples, path)
    low, high = SECONDS
    if not low <= samples.shape[1] / rate <= high:
        raise UserError(
            f"--with: {str(path)!r} lasts {samples.shape[1] / rate:.2f} s; clips last {low:g} to "
            f"{high:g}"
        )
    here = resample(samples, rate, SAMPLE_RATE)
    if loudness_curve(here).max() <= SILENT_DB:
        raise UserError(f"--with: {str(path)!r} is silent; there is nothing to play along with")
    ground = listen(here, meter or 4)
    if bpm is not None and ground.tempo is not None:
        if not same_tempo(ground.tempo, bpm, octaves=True, tolerance=SAME_TEMPO):
            raise UserError(
                f"--bpm {bpm:g} contradicts --with {str(path)!r}, which beats at "
                f"{ground.tempo:.1f}; leave it out"
            )
        ground = listen(here, meter or 4, bpm)
    return Backing(path, digest, samples, rate, ground)


def stereo(samples: np.ndarray, path: Path) -> np.ndarray:
    """A recording (c s) as (2 s).

    Raises:
        UserError: it has more channels.
    """
    if len(samples) > 2:
        raise UserError(f"{str(path)!r} has {len(samples)} channels; mono and stereo can be mixed")
    return np.ascontiguousarray(np.broadcast_to(samples, (2, samples.shape[1])))


def read_along(
    path: Path,
    seconds: float | None,
    bpm: float | None,
    meter: int | None,
    loop: int | None,
    balance: float,
) -> Backing:
    """The clip that a part is added to, where what is asked for goes with it.

    Raises:
        UserError: it does not, or the clip cannot be read.
    """
    if loop is not None:
        raise UserError("--with says how long the part is; --loop cannot be given with it")
    check_balance(balance)
    backing = read_backing(path, bpm, meter)
    check_length(backing, seconds)
    return backing


def check_length(backing: Backing, seconds: float | None) -> None:
    """Raise UserError where another length is asked for than the clip has."""
    if seconds is not None and abs(seconds - backing.seconds) > HALF_FRAME:
        raise UserError(
            f"--with: {str(backing.path)!r} lasts {backing.seconds:.2f} s, and so does the part "
            f"that is added to it, not {seconds:g}; leave out --seconds"
        )


def laid_down(outline: Outline, backing: Backing) -> Outline:
    """The outline with the clip's beats and chords, where it has no others, and its length.

    Raises:
        UserError: a rhythm was given that beats at another tempo.
    """
    ground, seconds = backing.ground, backing.seconds
    sketch = outline.sketch or Sketch()
    if sketch.rhythm is not None and ground.tempo is not None:
        asked = sketch.rhythm.tempo
        if not same_tempo(ground.tempo, asked, octaves=True, tolerance=SAME_TEMPO):
            raise UserError(
                f"--rhythm beats at {asked:.1f}, which contradicts --with {str(backing.path)!r}: "
                f"that beats at {ground.tempo:.1f}; leave one out"
            )
    notes = [f"{str(backing.path)!r} has {ground.told()}"]
    if sketch.chords is None and ground.chords:
        sketch = replace(sketch, chords=Chords(spans=ground.chords))
    bpm = outline.bpm
    if sketch.rhythm is None and ground.grid is not None and ground.tempo is not None:
        beats, downbeats = ground.grid.beats(seconds)
        rhythm = Rhythm(beats=beats, downbeats=downbeats)
        sketch = replace(sketch, rhythm=rhythm)
        bpm = bpm or round(ground.tempo, 2)
    return replace(
        outline,
        sketch=sketch if sketch.parts() else None,
        seconds=seconds,
        bpm=bpm,
        notes=(*outline.notes, *notes),
    )


def samples_of(path: Path, settings: MixSettings) -> np.ndarray:
    """The samples (2 s) of a mix's clip at the mix's rate.

    Raises:
        UserError: it cannot be read.
    """
    return stereo(read_audio(path, settings.sample_rate)[0], path)


def mix_settings(settings: MusicSettings, backing: Backing, balance: float) -> MixSettings:
    """A part's settings as those of its mix."""
    return MixSettings(
        **vars(settings), backing=str(backing.path), backing_hash=backing.hash, balance=balance
    )


def mixed(part: np.ndarray, backing: np.ndarray, sample_rate: int, balance: float) -> np.ndarray:
    """A part (2 s) and a clip (2 s) together, (2 s) as long as the clip.

    The part is as loud as the clip, and ``balance`` dB more; the sum is as loud as the clip, with
    its peaks below -1 dBFS.
    """
    level = loudness(backing, sample_rate)
    own = loudness(part, sample_rate)
    gain = 10 ** ((level + balance - own) / 20) if np.isfinite([level, own]).all() else 1.0
    length = backing.shape[1]
    fitted = np.pad(part, ((0, 0), (0, max(0, length - part.shape[1]))))[:, :length]
    together = (backing + np.float32(gain) * fitted).astype(np.float32)
    wanted = level if np.isfinite(level) else DEFAULT_LOUDNESS
    return normalize(together, sample_rate, wanted).astype(np.float32)


def save_mix(path: Path, clip: Clip, backing: np.ndarray, overwrite: bool) -> None:
    """Write a part, whose settings are :class:`MixSettings`, with its clip (2 s).

    Raises:
        UserError: a suffix that is not written, a file in the way, or the system refuses to write.
    """
    settings = clip.settings
    assert isinstance(settings, MixSettings)
    samples = mixed(clip.samples, backing, clip.sample_rate, settings.balance)
    tags = Tags(provenance.to_json(settings), settings.parameters(), None)
    write_audio(path, samples, clip.sample_rate, tags, overwrite)


def save_part_alone(path: Path, clip: Clip, overwrite: bool) -> None:
    """Write a part without its clip, with its own settings.

    Raises:
        UserError: a suffix that is not written, a file in the way, or the system refuses to write.
    """
    assert isinstance(clip.settings, MixSettings)
    replace(clip, settings=clip.settings.alone()).save(path, overwrite)
