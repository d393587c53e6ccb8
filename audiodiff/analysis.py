"""What a recording tells of itself: length, loudness, and guesses at its tempo and key."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from audiodiff.key import estimate_key
from audiodiff.loudness import loudness
from audiodiff.tempo import tempo

HEARD_SECONDS = 120.0  # from the middle of a recording: enough to tell tempo and key


@dataclass(frozen=True)
class Analysis:
    """What was measured, and two guesses.

    Attributes:
        seconds: duration.
        sample_rate: in Hz.
        channels: 1 is mono.
        loudness: integrated, LUFS (ITU-R BS.1770); None for silence.
        tempo: beats a minute, as likely as not half or double what one would tap; None for what
            has no beat.
        key: the likeliest major or minor key; None for what has no pitch.
    """

    seconds: float
    sample_rate: int
    channels: int
    loudness: float | None
    tempo: float | None
    key: str | None

    def record(self) -> dict[str, Any]:
        """The analysis as JSON knows it."""
        return asdict(self)

    def lines(self) -> dict[str, str]:
        """The analysis as people read it: name -> value with its unit."""

        def told(value: object, form: str) -> str:
            return "none found" if value is None else form.format(value)

        return {
            "duration": f"{self.seconds:.3f} s",
            "sample rate": f"{self.sample_rate} Hz",
            "channels": str(self.channels),
            "loudness": "silent" if self.loudness is None else f"{self.loudness:.1f} LUFS",
            "tempo": told(self.tempo, "about {:.0f} bpm"),
            "key": told(self.key, "probably {}"),
        }


def analyse(samples: np.ndarray, sample_rate: int) -> Analysis:
    """Listen to a recording (c, s)."""
    level = loudness(samples, sample_rate)
    middle = middle_part(samples, sample_rate, HEARD_SECONDS)
    beats = tempo(middle, sample_rate)
    key = estimate_key(middle, sample_rate)
    return Analysis(
        seconds=samples.shape[1] / sample_rate,
        sample_rate=sample_rate,
        channels=len(samples),
        loudness=round(level, 2) if np.isfinite(level) else None,
        tempo=None if beats is None else round(beats, 1),
        key=None if key is None else key.name,
    )


def middle_part(samples: np.ndarray, sample_rate: int, seconds: float) -> np.ndarray:
    """At most ``seconds`` from the middle of a recording (c, s)."""
    kept = min(samples.shape[1], round(seconds * sample_rate))
    start = (samples.shape[1] - kept) // 2
    return samples[:, start : start + kept]
