"""The draft of a transition: two clips laid over each other, at one tempo where they have two."""

from __future__ import annotations

import numpy as np

from audiodiff.tempo import tempo

SAME_TEMPO = 0.01  # share by which tempi may differ and still count as one
MOST_STRETCH = 1.35  # beyond, a stretched clip is no longer itself


def mixed(before: np.ndarray, after: np.ndarray, sample_rate: int) -> np.ndarray:
    """From one signal (c n) to another (c n) at even power, both at the tempo between theirs."""
    rates = stretches(tempo(before, sample_rate), tempo(after, sample_rate))
    if rates is not None:
        # The end of the first and the beginning of the second stay where they are.
        before = stretched(before, rates[0])
        after = stretched(after[:, ::-1], rates[1])[:, ::-1]
    fade = np.linspace(0, np.pi / 2, before.shape[1])
    return (np.cos(fade) * before + np.sin(fade) * after).astype(np.float32)


def stretches(first: float | None, second: float | None) -> tuple[float, float] | None:
    """How much quicker either of two tempi must be played to meet in the middle; None for not.

    A tempo may be taken for its half or double: the pair that lies nearest counts.
    """
    if first is None or second is None:
        return None
    second = min((second * factor for factor in (0.5, 1, 2)), key=lambda t: abs(np.log(t / first)))
    ratio = second / first
    if abs(ratio - 1) <= SAME_TEMPO or max(ratio, 1 / ratio) > MOST_STRETCH**2:
        return None
    middle = float(np.sqrt(first * second))
    return middle / first, middle / second


def stretched(samples: np.ndarray, rate: float) -> np.ndarray:
    """Samples (c n) played ``rate`` times as quickly at the same pitch: still (c n).

    What a quicker one lacks at its end is silent.
    """
    import librosa

    n = samples.shape[1]
    played = librosa.effects.time_stretch(np.ascontiguousarray(samples, np.float32), rate=rate)
    return np.pad(played, ((0, 0), (0, max(0, n - played.shape[1]))))[:, :n]
