"""Sound as its file holds it, to the bit: what is edited in part keeps the rest of its samples."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from audiodiff.audio_file import FORMATS, Tags, read_audio
from shared.errors import UserError
from shared.files import whole_file
from shared.naming import choose

LOSSY = (".mp3", ".ogg")
BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
MOST_CHANNELS = 2


@dataclass(frozen=True, eq=False)
class Sound:
    """The sound of a file.

    Attributes:
        values: (c s) as the file has them: int32 whose highest bits are the file's, or float64.
        sample_rate: in Hz.
        subtype: libsndfile's name of how a sample is held; of a lossy file "FLOAT".
    """

    values: np.ndarray
    sample_rate: int
    subtype: str

    @property
    def length(self) -> int:
        """Samples."""
        return self.values.shape[1]

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.length / self.sample_rate

    @cached_property
    def samples(self) -> np.ndarray:
        """(c s) float32 in [-1, 1]."""
        if self.values.dtype == np.int32:
            return (self.values / 2.0**31).astype(np.float32)
        return self.values.astype(np.float32)

    def with_part(self, start: int, samples: np.ndarray) -> Sound:
        """With the part from ``start`` on replaced by ``samples`` (c n) in [-1, 1]."""
        values = self.values.copy()
        values[:, start : start + samples.shape[1]] = self.as_values(samples)
        return replace(self, values=values)

    def extended(self, samples: int, before: bool) -> Sound:
        """With so many samples of silence before it or after it."""
        widths = ((0, 0), (samples, 0) if before else (0, samples))
        return replace(self, values=np.pad(self.values, widths))

    def as_values(self, samples: np.ndarray) -> np.ndarray:
        """Samples (c s) in [-1, 1] as this file's values; what is beyond is cut at full scale."""
        if self.values.dtype != np.int32:
            return samples.astype(np.float64)
        scale = 2 ** (BITS[self.subtype] - 1)
        steps = np.clip(np.rint(samples.astype(np.float64) * scale), -scale, scale - 1)
        return (steps.astype(np.int64) << (32 - BITS[self.subtype])).astype(np.int32)


def read_sound(path: Path) -> Sound:
    """The sound of a file, mono or stereo.

    Raises:
        UserError: no such file, no audio file, a damaged one, or one with more channels.
    """
    import soundfile

    decoded, rate = read_audio(path)
    if len(decoded) > MOST_CHANNELS:
        raise UserError(f"{str(path)!r} has {len(decoded)} channels; mono and stereo can be edited")
    with soundfile.SoundFile(path) as file:
        subtype = file.subtype
        whole = subtype in BITS
        values = file.read(dtype="int32" if whole else "float64", always_2d=True).T
    if not whole and subtype != "DOUBLE":
        subtype = "FLOAT"
    return Sound(np.ascontiguousarray(values), rate, subtype)


def suffixes_for(path: Path) -> list[str]:
    """Suffixes that an edit of ``path`` can be written with; first one that keeps its samples."""
    own = path.suffix.lower()
    first = own if own in FORMATS and own not in LOSSY else ".wav"
    return sorted(FORMATS, key=lambda suffix: suffix != first)


def check_holds(suffix: str, sound: Sound) -> None:
    """Raise UserError unless files of that suffix hold such sound; lossy ones hold any of a rate.

    An edit is to keep the samples that it does not touch, so nothing is rounded silently.
    """
    _encoding(suffix, sound)
    if suffix in LOSSY:
        from audiodiff.clip import check_format

        check_format(suffix, sound.sample_rate)


def write_sound(path: Path, sound: Sound, tags: Tags, overwrite: bool = False) -> None:
    """Write ``sound``, whole or not at all, each sample as it is unless the format is lossy.

    Raises:
        UserError: another suffix, a format that does not hold such samples, a file in the way, or
            the system refuses to write.
    """
    import soundfile

    suffix = path.suffix.lower()
    kind = choose("audio format", suffix, FORMATS)
    content = io.BytesIO()
    channels = len(sound.values)
    try:
        with soundfile.SoundFile(
            content, "w", sound.sample_rate, channels, _encoding(suffix, sound),
            format=kind.container,
        ) as file:  # fmt: skip
            if kind.container == "WAV" and tags.comment:
                file.comment = tags.comment
            file.write(sound.samples.T if suffix in LOSSY else sound.values.T)
    except soundfile.LibsndfileError as error:
        raise UserError(
            f"cannot write {suffix} with {channels} channels at {sound.sample_rate} Hz: "
            f"{error.error_string.strip()}"
        ) from None
    content.seek(0)
    kind.tag(content, tags)
    with whole_file(path, overwrite) as target:
        target.write(content.getbuffer())


def _encoding(suffix: str, sound: Sound) -> str:
    """libsndfile's name of how a file of that suffix holds these samples."""
    import soundfile

    kind = choose("audio format", suffix, FORMATS)
    if suffix in LOSSY:
        return kind.encoding
    # The same 8 bits have a sign in one format and none in the other.
    eight = {"PCM_S8", "PCM_U8"}
    names = eight if sound.subtype in eight else {sound.subtype}
    for name in sorted(names):
        if soundfile.check_format(kind.container, name):
            return name
    raise UserError(
        f"{suffix} files cannot hold samples of {_told(sound.subtype)} as they are; .wav can"
    )


def _told(subtype: str) -> str:
    floats = {"FLOAT": "32-bit floating point", "DOUBLE": "64-bit floating point"}
    return floats.get(subtype) or f"{BITS[subtype]} bits"
