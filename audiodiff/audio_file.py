"""Audio files: read whatever libsndfile reads; write WAV, FLAC, Ogg Vorbis and MP3 with records.

A record is the JSON text that tells what made the file, kept inside it under the key "duotone"; a
comment beside it says the same for people and other programs. FLAC and Ogg Vorbis hold both as
Vorbis comments, MP3 and WAV as ID3 frames (TXXX and COMM); WAV has the comment a second time where
most programs look for it, in LIST/INFO. A loop is told as well, see `audiodiff.loop_points`.
"""

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from audiodiff.loop_points import LoopPoints, from_tags, read_chunks, to_tags, with_chunks
from shared.errors import UserError
from shared.files import whole_file
from shared.naming import choose

if TYPE_CHECKING:
    from mutagen._file import FileType  # pyright: ignore[reportMissingTypeStubs]

RECORD = "duotone"
COMMENT = "comment"
LONGEST = 1_000_000  # samples a second that a file may claim


@dataclass(frozen=True)
class Tags:
    """What a file tells beside its samples; empty texts are not written.

    Attributes:
        record: JSON that tells what made it.
        comment: the same for people.
        loop: where it repeats; None if it does not.
    """

    record: str = ""
    comment: str = ""
    loop: LoopPoints | None = None


@dataclass(frozen=True)
class Format:
    """A file format that can be written.

    Attributes:
        container: libsndfile's name of it.
        encoding: libsndfile's name of how it holds samples.
        bits: of each sample, or None if the format is lossy.
        tag: writes tags into a whole file, in place.
    """

    container: str
    encoding: str
    bits: int | None
    tag: Callable[[io.BytesIO, Tags], None]


def _tag_vorbis_comments(file: io.BytesIO, tags: Tags) -> None:
    tagged = _open_tags(file)
    assert tagged is not None
    if tagged.tags is None:
        tagged.add_tags()
    for name, text in ((RECORD, tags.record), (COMMENT, tags.comment)):
        if text:
            tagged[name] = text
    if tags.loop is not None:
        tagged.update(to_tags(tags.loop))
    file.seek(0)
    tagged.save(file)


def _tag_ogg(file: io.BytesIO, tags: Tags) -> None:
    from mutagen.ogg import OggPage

    _tag_vorbis_comments(file, tags)
    # libsndfile numbers the stream at random; equal clips are to be equal bytes.
    file.seek(0)
    pages = []
    while file.tell() < len(file.getbuffer()):
        pages.append(OggPage(file))
    file.seek(0)
    for page in pages:
        page.serial = 0
        file.write(page.write())
    file.truncate()


def _tag_id3(file: io.BytesIO, tags: Tags) -> None:
    from mutagen.id3 import (  # pyright: ignore[reportPrivateImportUsage]
        COMM,
        TBPM,
        TXXX,
        Encoding,  # pyright: ignore[reportPrivateImportUsage]
    )

    tagged = _open_tags(file)
    assert tagged is not None
    if tagged.tags is None:
        tagged.add_tags()
    id3: Any = tagged.tags  # in files of these two formats
    if tags.record:
        id3.add(TXXX(encoding=Encoding.UTF8, desc=RECORD, text=[tags.record]))
    if tags.comment:
        id3.add(COMM(encoding=Encoding.UTF8, lang="eng", desc="", text=[tags.comment]))
    for name, text in ({} if tags.loop is None else to_tags(tags.loop)).items():
        if name == "BPM":  # ID3's own frame for it holds whole numbers only
            id3.add(TBPM(encoding=Encoding.UTF8, text=[str(round(float(text)))]))
        id3.add(TXXX(encoding=Encoding.UTF8, desc=name, text=[text]))
    file.seek(0)
    tagged.save(file)


def _tag_wav(file: io.BytesIO, tags: Tags) -> None:
    _tag_id3(file, Tags(tags.record, tags.comment))
    if tags.loop is not None:
        (rate,) = struct.unpack_from("<I", file.getvalue(), 24)
        whole = with_chunks(file.getvalue(), tags.loop, rate)
        file.seek(0)
        file.write(whole)


FORMATS: dict[str, Format] = {
    ".wav": Format("WAV", "PCM_16", 16, _tag_wav),  # 16 bits: what every program opens
    ".flac": Format("FLAC", "PCM_16", 16, _tag_vorbis_comments),
    ".mp3": Format("MP3", "MPEG_LAYER_III", None, _tag_id3),
    ".ogg": Format("OGG", "VORBIS", None, _tag_ogg),
}


def to_16_bit(samples: np.ndarray) -> np.ndarray:
    """Samples in [-1, 1] as int16, the same shape; what is beyond is cut at full scale."""
    return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)


def write_audio(
    path: Path,
    samples: np.ndarray,
    sample_rate: int,
    tags: Tags | None = None,
    overwrite: bool = False,
) -> None:
    """Write ``samples`` to ``path``, whole or not at all, in the format of its suffix.

    WAV and FLAC keep 16 bits of each sample, so those read back differ by at most 2^-16. MP3 and
    Ogg Vorbis lose more; libsndfile reads them back with as many samples as were written, other
    programs may find an MP3 longer by its encoder's delay. Equal arguments give equal bytes.

    Args:
        path: ends in one of `FORMATS`.
        samples: (c s), within [-1, 1].
        sample_rate: Hz.
        tags: what made the clip, and where it repeats.
        overwrite: replace a file of that name.

    Raises:
        UserError: another suffix, a sample rate that the format does not know, a file in the way,
            or the system refuses to write.
    """
    import soundfile

    kind = choose("audio format", path.suffix.lower(), FORMATS)
    if not np.isfinite(samples).all():
        raise ValueError("samples are not finite")
    content = io.BytesIO()
    data = to_16_bit(samples) if kind.bits else np.clip(samples, -1, 1).astype(np.float32)
    try:
        with soundfile.SoundFile(
            content, "w", sample_rate, len(samples), kind.encoding, format=kind.container
        ) as file:
            if kind.container == "WAV" and tags is not None and tags.comment:
                file.comment = tags.comment
            file.write(data.T)
    except soundfile.LibsndfileError as error:
        raise UserError(
            f"cannot write {path.suffix} with {len(samples)} channels at {sample_rate} Hz: "
            f"{error.error_string.strip()}"
        ) from None
    if tags is not None:
        content.seek(0)
        kind.tag(content, tags)
    with whole_file(path, overwrite) as target:
        target.write(content.getbuffer())


def read_audio(path: Path, sample_rate: int | None = None) -> tuple[np.ndarray, int]:
    """The samples of an audio file, (c s) float32 in [-1, 1], and their rate in Hz.

    Args:
        path: a file that libsndfile reads: WAV, FLAC, Ogg, MP3, AIFF and more.
        sample_rate: resample to this rate, Hz; by default the file's own is kept.

    Raises:
        UserError: no such file, no audio file, an empty or damaged one.
    """
    import soundfile

    with _open(path) as file:
        try:
            with soundfile.SoundFile(file) as sound:
                rate, claimed = sound.samplerate, sound.frames
                samples = sound.read(dtype="float32", always_2d=True).T
        except soundfile.LibsndfileError as error:
            if "lost sync" in error.error_string or "malformed" in error.error_string:
                raise _cut_short(path) from None
            raise _not_audio(path) from None
        except (RuntimeError, MemoryError, ValueError):
            raise _not_audio(path) from None
        if samples.shape[1] < claimed or not _ends_properly(file):
            raise _cut_short(path)
    if not samples.shape[1]:
        raise UserError(f"{str(path)!r} is an audio file without any sound in it")
    if not np.isfinite(samples).all():
        raise UserError(f"{str(path)!r} holds samples that are not numbers")
    if sample_rate is None or sample_rate == rate:
        return np.ascontiguousarray(samples), rate
    return resample(samples, rate, sample_rate), sample_rate


def _open(path: Path) -> BinaryIO:
    try:
        if path.is_dir():
            raise UserError(f"{str(path)!r} is a folder, not an audio file")
        return path.open("rb")
    except FileNotFoundError:
        raise UserError(f"there is no file {str(path)!r}") from None
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror}") from None


def _not_audio(path: Path) -> UserError:
    known = ", ".join(suffix[1:] for suffix in FORMATS)
    return UserError(f"{str(path)!r} is not an audio file that can be read ({known} can)")


def _cut_short(path: Path) -> UserError:
    return UserError(f"{str(path)!r} is damaged: it ends before its sound does")


def _ends_properly(file: BinaryIO) -> bool:
    """Whether a WAV or Ogg file is all there, which libsndfile does not tell."""
    file.seek(0)
    head = file.read(12)
    size = file.seek(0, io.SEEK_END)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        claimed = struct.unpack("<I", head[4:8])[0]
        return claimed in (0, 0xFFFFFFFF) or size >= claimed + 8  # programs that pipe write those
    if head[:4] == b"OggS":
        from mutagen.ogg import OggPage

        file.seek(0)
        last = OggPage.find_last(file, OggPage(file).serial)
        return last is not None and last.last
    return True


def resample(samples: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """``samples`` (c s) at another rate, by band-limited interpolation: round(s * to / from) long.

    Raises:
        UserError: a rate that is not positive or not below a million.
    """
    import soxr

    for rate in (from_rate, to_rate):
        if not 0 < rate <= LONGEST:
            raise UserError(f"the sample rate is {rate} Hz; 1 to {LONGEST} are allowed")
    if from_rate == to_rate:
        return samples
    length = round(samples.shape[1] * to_rate / from_rate)
    there = soxr.resample(np.ascontiguousarray(samples.T, np.float32), from_rate, to_rate).T
    return np.pad(there, ((0, 0), (0, max(0, length - there.shape[1]))))[:, :length]


def read_record(path: Path) -> str | None:
    """The record in the audio file at ``path``, as it was given to `write_audio`, or None.

    Raises:
        UserError: no such file, or no audio file.
    """
    return _read_tag(path, RECORD, f"TXXX:{RECORD}")


def read_parameters(path: Path) -> str | None:
    """The comment in the audio file at ``path``, by whatever program, or None.

    Raises:
        UserError: no such file, or no audio file.
    """
    return _read_tag(path, COMMENT, "COMM")


def read_loop(path: Path) -> LoopPoints | None:
    """Where the audio file at ``path`` repeats, by whatever program; None if it does not say.

    Raises:
        UserError: no such file, or no audio file.
    """
    with _open(path) as file:
        if file.read(4) == b"RIFF":
            return read_chunks(b"RIFF" + file.read())
    names = ("LOOPSTART", "LOOPLENGTH", "BPM")
    found = {name: _read_tag(path, name, f"TXXX:{name}") for name in names}
    return from_tags({name: text for name, text in found.items() if text is not None})


def _read_tag(path: Path, vorbis_key: str, id3_key: str) -> str | None:
    from mutagen.id3 import ID3  # pyright: ignore[reportPrivateImportUsage]

    with _open(path) as file:
        tagged = _open_tags(file)
    if tagged is None:
        raise _not_audio(path)
    if tagged.tags is None:
        return None
    if isinstance(tagged.tags, ID3):
        frames = tagged.tags.getall(id3_key)
        return str(frames[0].text[0]) if frames and frames[0].text else None
    try:
        return str(tagged.tags[vorbis_key][0])
    except (KeyError, IndexError):
        return None


def _open_tags(file: BinaryIO) -> "FileType | None":
    """mutagen's view of a file of any format it knows, None if it knows none."""
    import mutagen

    try:
        return mutagen.File(file)  # pyright: ignore[reportPrivateImportUsage]
    except mutagen.MutagenError:  # pyright: ignore[reportPrivateImportUsage]
        return None
