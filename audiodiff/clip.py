"""A clip of sound and what made it."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audiodiff.audio_file import FORMATS, Tags, read_parameters, read_record, write_audio
from audiodiff.edit_settings import EditSettings
from audiodiff.loop_points import LoopPoints, loop_points
from audiodiff.mix_settings import MixSettings
from audiodiff.settings import MusicSettings
from audiodiff.wishes import wishes_of
from shared import provenance
from shared.errors import UserError
from shared.naming import choose


@dataclass(frozen=True, eq=False)
class Clip:
    """One made clip.

    Attributes:
        samples: (2, s) float32 in [-1, 1].
        sample_rate: in Hz.
        settings: what made it.
        steered: whether more than that did, which a record does not hold.
    """

    samples: np.ndarray
    sample_rate: int
    settings: MusicSettings
    steered: bool = False

    def save(self, path: Path | str, overwrite: bool = False) -> None:
        """Write it, whole or not at all, with its settings inside; the suffix says the format.

        What was steered by more than its settings cannot be made again from them; its file tells
        them in a comment only.

        Raises:
            UserError: a suffix that is not written, ``path`` exists and ``overwrite`` is false, or
                the system refuses to write.
        """
        write_audio(
            Path(path),
            self.samples,
            self.sample_rate,
            Tags(record_of(self.settings, self.steered), self.settings.parameters(), self._loop()),
            overwrite,
        )

    def _loop(self) -> LoopPoints | None:
        bars = self.settings.loop
        if bars is None:
            return None
        wishes = wishes_of(self.settings)
        assert wishes.tempo is not None  # loops have one
        return loop_points(self.samples.shape[1], bars, wishes.meter, wishes.tempo, wishes.key)


def record_of(settings: MusicSettings, steered: bool) -> str:
    """The record for a file; "" where ``steered``: by it alone the clip cannot be made again."""
    return "" if steered else provenance.to_json(settings)


def read_settings(path: Path) -> MusicSettings:
    """The settings in the audio file at ``path``; those of an edit or a mix if it is one.

    Raises:
        UserError: it has no record of Duotone's, or a broken one.
    """
    record = read_record(path)
    if record is None:
        raise UserError(f"{str(path)!r} has no record of Duotone's, so it cannot be made again")
    return provenance.from_json(record, _kind(record))


def _kind(record: str) -> type[MusicSettings]:
    try:
        names = {*json.loads(record)}
    except (ValueError, TypeError, RecursionError):  # told when it is read
        return MusicSettings
    if "task" in names:
        return EditSettings
    return MixSettings if "backing" in names else MusicSettings


def what_made(path: Path) -> dict[str, Any]:
    """Whatever the audio file at ``path`` tells of how it was made; {} if nothing.

    Raises:
        UserError: it is no audio file, or its record is broken.
    """
    if read_record(path) is not None:
        return read_settings(path).record()
    comment = read_parameters(path)
    return {} if comment is None else {"comment": comment}


def check_format(suffix: str, sample_rate: int) -> None:
    """Raise UserError unless stereo files of that suffix can have that sample rate (Hz)."""
    import soundfile

    kind = choose("audio format", suffix, FORMATS)
    try:
        soundfile.SoundFile(
            io.BytesIO(), "w", sample_rate, 2, kind.encoding, format=kind.container
        ).close()
    except soundfile.LibsndfileError:
        raise UserError(
            f"{suffix} files cannot have a sample rate of {sample_rate} Hz; 44100 and 48000 can be"
        ) from None


def difference(first: np.ndarray, second: np.ndarray) -> str:
    """How far the samples (c, s) of two clips differ, in words."""
    if first.shape != second.shape:
        shapes = [f"{len(samples)} x {samples.shape[1]}" for samples in (first, second)]
        return f"differs: {shapes[0]} and {shapes[1]} samples"
    most = float(np.abs(first - second).max(initial=0))
    if most == 0:
        return "identical"
    return f"differs: by at most {20 * np.log10(most):.0f} dB of full scale"
