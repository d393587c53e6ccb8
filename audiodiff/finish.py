"""The last step of a clip: decoded samples as its settings want them."""

from __future__ import annotations

import numpy as np

from audiodiff.audio_file import resample
from audiodiff.loudness import normalize
from audiodiff.settings import MusicSettings

EDGE_SECONDS = 0.005  # of fading in and out, so that a clip cut out of music does not click
FADED = 0.02  # of the power beside it, what is left in the last quarter of a fade
AUDIBLE = 1e-7  # power below which an end is silent, faded or not


def finish(samples: np.ndarray, sample_rate: int, settings: MusicSettings) -> np.ndarray:
    """Decoded samples (2, s) as the settings want them: rate, length to the sample, loudness.

    What it lacks of dynamics that were asked for is ridden, but in loops, which would get a seam.
    """
    length = round(settings.seconds * settings.sample_rate)
    if settings.loop is not None:
        return _finish_loop(samples, length, settings.sample_rate, settings.loudness)
    dynamics = settings.sketch and settings.sketch.dynamics
    if dynamics:
        from audiodiff.fader import ride

        samples = ride(samples, dynamics)
    if settings.sample_rate != sample_rate:
        samples = resample(samples, sample_rate, settings.sample_rate)
    samples = samples[:, :length].copy()
    edge = round(EDGE_SECONDS * settings.sample_rate)
    ramp = np.sin(np.linspace(0, np.pi / 2, edge, dtype=np.float32)) ** 2
    samples[:, :edge] *= ramp
    samples[:, -edge:] *= ramp[::-1]
    return normalize(samples, settings.sample_rate, settings.loudness).astype(np.float32)


def faded_edge(samples: np.ndarray, sample_rate: int, start: bool = False) -> int:
    """How many samples at the end of (c s), or at its start, a fade like that of clips takes: 0 if
    there is none.

    In the last quarter of such a fade at most a seventh of the amplitude is left.
    """
    count = round(EDGE_SECONDS * sample_rate)
    if samples.shape[1] < 5 * count or count < 4:
        return 0
    ordered = samples if start else samples[:, ::-1]
    edge, inside = ordered[:, : count // 4], ordered[:, count : 5 * count]
    power, usual = (float(np.square(part, dtype=np.float64).mean()) for part in (edge, inside))
    return count if power <= FADED * usual and usual > AUDIBLE else 0


def _finish_loop(samples: np.ndarray, length: int, sample_rate: int, lufs: float) -> np.ndarray:
    """One round (2 s) as (2 length), at that loudness, still without a seam."""
    if samples.shape[1] != length:
        from scipy.signal import resample

        samples = np.asarray(
            resample(samples, length, axis=1), np.float32
        )  # by a circular transform
    # Gain and limiter hear what comes before and after.
    three = normalize(np.tile(samples, 3), sample_rate, lufs)
    return three[:, length : 2 * length].astype(np.float32)
