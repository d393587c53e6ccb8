"""What a recording tells of itself: length, loudness, and guesses at its tempo and key."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from audiodiff.loudness import loudness
from audiodiff.tempo import spectra, tempo
from audiodiff.theory import Key

HEARD_SECONDS = 120.0  # from the middle of a recording: enough to tell tempo and key
N_FFT = 16384  # at 44.1 kHz 2.7 Hz a bin: semitones are told apart from A2 on
A2, C7 = 45, 96  # MIDI pitches between which a key is looked for

# How common each pitch class is in music of a key, from the tonic up (Albrecht & Shanahan 2013,
# "The use of large corpora to train a new type of key-finding algorithm").
_PROFILES = {
    "major": (0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081),
    "minor": (0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052),
}


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


def chroma(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """How much of each pitch class, C first, sounds in a recording (c, s): (12,), sum 1 or 0."""
    n_fft = 2 * round(N_FFT * sample_rate / 44100 / 2)
    centres = np.arange(0, samples.shape[1], n_fft // 2)
    strength = spectra(samples, n_fft, centres).sum(axis=0)  # (n_fft / 2 + 1)
    frequencies = np.arange(1, len(strength)) * sample_rate / n_fft
    pitches = 69 + 12 * np.log2(frequencies / 440)
    heard = (pitches >= A2 - 0.5) & (pitches <= C7 + 0.5)
    # Semitones have the more bins the higher they lie: weigh each bin by its share of one.
    weights = strength[1:][heard] / frequencies[heard]
    classes = np.round(pitches[heard]).astype(int) % 12
    total = np.bincount(classes, weights, minlength=12)
    return total / total.sum() if total.sum() > 0 else np.zeros(12)


def estimate_key(samples: np.ndarray, sample_rate: int) -> Key | None:
    """The major or minor key whose profile correlates best with the pitch classes of (c, s).

    Krumhansl & Schmuckler's method (Krumhansl 1990, "Cognitive Foundations of Musical Pitch",
    chapter 4). None where nothing has a pitch. Of twelve seconds of music it is exact about every
    other time, and otherwise mostly a neighbour: the relative key, or a fifth away.
    """
    heard = chroma(samples, sample_rate)
    if heard.std() < 1e-9:
        return None
    fits = {
        Key(tonic, mode): float(np.corrcoef(heard, np.roll(profile, tonic))[0, 1])
        for mode, profile in _PROFILES.items()
        for tonic in range(12)
    }
    return max(fits, key=lambda key: fits[key])
