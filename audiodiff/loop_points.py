"""Where a file's loop lies and what it counts, as samplers and audio workstations read it.

WAV files hold it in two chunks: ``smpl`` (Microsoft's Multimedia Programming Interface 1.0: which
samples to repeat) and ``acid`` (Sonic Foundry's, not published: tempo, beats, root note). FLAC, Ogg
and MP3 hold it in tags: LOOPSTART and LOOPLENGTH in samples, as game engines read them, and the
usual ones for tempo and key.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from audiodiff.theory import PITCH_CLASSES, Key

C4 = 60  # MIDI note of the octave that root notes are written in
_SMPL = struct.Struct("<9I6I")  # header and one loop
_ACID = struct.Struct("<IHHfIHHf")
_ROOT_SET, _STRETCHED = 2, 4  # of acid's flags


@dataclass(frozen=True)
class LoopPoints:
    """A loop in a file; what it does not tell is None.

    Attributes:
        start: the first sample that is repeated.
        length: how many are.
        bpm: beats a minute.
        beats: in the loop.
        meter: beats a bar.
        root: pitch class of the tonic, C is 0.
    """

    start: int
    length: int
    bpm: float | None = None
    beats: int | None = None
    meter: int | None = None
    root: int | None = None

    def lines(self) -> dict[str, str]:
        """What it says for people."""
        told = {"loop": f"samples {self.start} to {self.start + self.length - 1}"}
        if self.bpm is not None:
            told["loop tempo"] = f"{self.bpm:g} bpm"
        if self.beats is not None:
            meter = "" if self.meter is None else f", {self.meter} a bar"
            told["loop beats"] = f"{self.beats}{meter}"
        if self.root is not None:
            told["loop root"] = PITCH_CLASSES[self.root]
        return told


def loop_points(length: int, bars: int, meter: int, bpm: float, key: Key | None) -> LoopPoints:
    """Those of a file that is one loop of ``length`` samples."""
    return LoopPoints(0, length, bpm, bars * meter, meter, None if key is None else key.tonic)


def with_chunks(wav: bytes, loop: LoopPoints, sample_rate: int) -> bytes:
    """A WAV file with the chunks that tell of the loop, after all others."""
    root = C4 if loop.root is None else C4 + loop.root
    end = loop.start + loop.length - 1  # the last sample that is played
    smpl = _SMPL.pack(
        *(0, 0, round(1e9 / sample_rate), root, 0, 0, 0, 1, 0),
        *(0, 0, loop.start, end, 0, 0),  # forwards, for ever
    )
    flags = _STRETCHED | (0 if loop.root is None else _ROOT_SET)
    acid = _ACID.pack(
        flags, root, 0x8000, 0.0, loop.beats or 0, 4, loop.meter or 4, loop.bpm or 0.0
    )
    added = b"".join(name + struct.pack("<I", len(data)) + data for name, data in (
        (b"smpl", smpl), (b"acid", acid)
    ))  # fmt: skip
    return wav[:4] + struct.pack("<I", len(wav) + len(added) - 8) + wav[8:] + added


def read_chunks(wav: bytes) -> LoopPoints | None:
    """What the chunks of a WAV file tell; None without a loop in them."""
    found = dict(_chunks(wav))
    smpl, acid = found.get(b"smpl", b""), found.get(b"acid", b"")
    if len(smpl) < _SMPL.size:
        return None
    numbers = _SMPL.unpack(smpl[: _SMPL.size])
    if not numbers[7]:
        return None
    loop = LoopPoints(numbers[11], numbers[12] - numbers[11] + 1)
    if len(acid) < _ACID.size:
        return loop
    flags, root, _, _, beats, _, meter, bpm = _ACID.unpack(acid[: _ACID.size])
    return LoopPoints(
        loop.start,
        loop.length,
        bpm=bpm or None,
        beats=beats or None,
        meter=meter or None,
        root=root % 12 if flags & _ROOT_SET else None,
    )


def _chunks(wav: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(wav):
        (size,) = struct.unpack_from("<I", wav, at + 4)
        yield wav[at : at + 4], wav[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def to_tags(loop: LoopPoints) -> dict[str, str]:
    """As tags by their names in Vorbis comments."""
    tags = {"LOOPSTART": str(loop.start), "LOOPLENGTH": str(loop.length)}
    return tags if loop.bpm is None else tags | {"BPM": f"{loop.bpm:g}"}


def from_tags(tags: Mapping[str, str]) -> LoopPoints | None:
    """The inverse of :func:`to_tags`; None without a loop, or with one that is none."""
    try:
        bpm = float(tags["BPM"]) if "BPM" in tags else None
        return LoopPoints(int(tags["LOOPSTART"]), int(tags["LOOPLENGTH"]), bpm)
    except (KeyError, ValueError):
        return None
