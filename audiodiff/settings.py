"""What makes one clip, complete: the same settings on the same machine give the same samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from audiodiff.sketch import Sketch
from audiodiff.theory import parse_key
from shared.errors import UserError
from shared.settings import SampleSettings

DEFAULT_GUIDANCE_SCALE = 3.0
DEFAULT_LOUDNESS = -16.0
DEFAULT_SECONDS = 6.0
SECONDS = (0.5, 600.0)
BPM = (30.0, 300.0)
SAMPLE_RATES = (8_000, 192_000)
METERS = (2, 12)  # beats a bar
BARS = (1, 256)  # of a loop
LOUDNESS = (-60.0, -6.0)  # LUFS; louder music is not, with its peaks below full scale


@dataclass(frozen=True, kw_only=True)
class MusicSettings(SampleSettings):
    """Everything that makes one clip; the JSON record in its file holds it.

    Attributes:
        seconds: length; the clip has round(seconds * sample_rate) samples.
        bpm: beats a minute, whatever the prompt says; None leaves it to the prompt.
        key: such as "A minor", likewise.
        sample_rate: of the clip in Hz.
        loudness: of the clip in LUFS.
        meter: beats a bar, whatever the prompt says; None leaves it to the prompt.
        loop: bars of a clip whose end goes on at its beginning; None for one that ends. Its
            ``seconds`` are those bars at the tempo that bpm or prompt state.
        sketch: what of the clip was laid down beforehand.

    Raises:
        UserError: a number that cannot be, or a key that is none.
    """

    seconds: float
    bpm: float | None
    key: str | None
    sample_rate: int
    loudness: float
    meter: int | None = None
    loop: int | None = None
    sketch: Sketch | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seconds(self.seconds)
        check_wishes(self.bpm, self.key, self.meter, self.loop)
        check_output(self.sample_rate, self.loudness)

    def measures(self) -> Mapping[str, object]:
        """Length, tempo, key, what was given, rate and loudness, as far as they are set."""
        values: dict[str, object] = {"Seconds": self.seconds, "BPM": self.bpm, "Key": self.key}
        values |= {"Meter": self.meter, "Loop": self.loop and f"{self.loop} bars"}
        values["Controls"] = self.sketch and ", ".join(self.sketch.parts())
        stated = {name: value for name, value in values.items() if value is not None}
        return stated | {"Sample rate": self.sample_rate, "Loudness": f"{self.loudness:g} LUFS"}


def check_seconds(seconds: float) -> None:
    """Raise UserError unless a clip can have that length."""
    _within("seconds", seconds, SECONDS)


def check_wishes(
    bpm: float | None, key: str | None, meter: int | None = None, loop: int | None = None
) -> None:
    """Raise UserError unless there are such a tempo, key, meter and loop; None is no wish."""
    if bpm is not None:
        _within("bpm", bpm, BPM)
    if key is not None:
        parse_key(key)
    if meter is not None:
        _within("meter", meter, METERS)
    if loop is not None:
        _within("the bars of a loop", loop, BARS)


def check_output(sample_rate: int, loudness: float) -> None:
    """Raise UserError unless a clip can have that sample rate (Hz) and loudness (LUFS)."""
    _within("sample rate", sample_rate, SAMPLE_RATES)
    _within("loudness", loudness, LOUDNESS)


def _within(what: str, value: float, limits: tuple[float, float]) -> None:
    low, high = limits
    if not low <= value <= high:  # NaN is refused as well
        raise UserError(f"{what} must be from {low:g} to {high:g}, not {value:g}")
