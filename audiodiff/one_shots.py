"""Single sounds cut out of clips: from where they begin to where nothing of them is left."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import maximum_filter1d

BEGINS_DB = -30.0  # below the peak: where a sound is taken to begin
ENDS_DB = -50.0  # below the peak: what comes after is cut off
AHEAD = 0.002  # seconds that are kept before the beginning
WINDOW = 0.005  # seconds over which a peak counts
FADE = 0.02  # seconds, at the end, of what is not silent there


def onset(samples: np.ndarray, sample_rate: int) -> int:
    """The sample at which a sound (c s) first comes within 30 dB of its peak; 0 for silence."""
    level = np.abs(samples).max(axis=0, initial=0)
    return int(np.argmax(level >= level.max(initial=0) * 10 ** (BEGINS_DB / 20)))


def one_shot(samples: np.ndarray, sample_rate: int, most: float | None = None) -> np.ndarray:
    """A sound (c s) from just before it begins until it has died away, with a peak of 1.

    Args:
        most: seconds, beyond which it is faded out.

    Returns:
        (c n) float32; silence comes back as it is.
    """
    peak = float(np.abs(samples).max(initial=0))
    if peak == 0:
        return samples.astype(np.float32)
    first = max(0, onset(samples, sample_rate) - round(AHEAD * sample_rate))
    level = maximum_filter1d(np.abs(samples).max(axis=0), round(WINDOW * sample_rate))
    last = int(np.flatnonzero(level >= peak * 10 ** (ENDS_DB / 20))[-1]) + 1
    if most is not None:
        last = min(last, first + round(most * sample_rate))
    cut = samples[:, first:last].astype(np.float32)
    ahead = min(round(AHEAD * sample_rate), cut.shape[1])
    cut[:, :ahead] *= np.linspace(0, 1, ahead, endpoint=False, dtype=np.float32)
    fade = min(round(FADE * sample_rate), cut.shape[1])
    cut[:, cut.shape[1] - fade :] *= np.cos(np.linspace(0, np.pi / 2, fade, dtype=np.float32))
    return cut / max(float(np.abs(cut).max()), peak * 1e-6)
