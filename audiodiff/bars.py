"""Which beats begin bars: where the bass begins and chords change."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy import signal

from audiodiff.labels import FRAME_SECONDS, SAMPLE_RATE
from audiodiff.tempo import EDGE, ONSET_RATE, onset_strength

BASS = 150.0  # Hz; what begins below it mostly begins a bar


def first_downbeat(
    samples: np.ndarray, chords: np.ndarray, times: Sequence[float], meter: int
) -> int:
    """Which of the first ``meter`` beats begins a bar.

    Bars are those beats, one in ``meter``, at which the bass begins and the chord changes most;
    both are the commonest signs of a bar (Goto 2001, "An audio-based real-time beat tracking system
    for music with or without drum-sounds").

    Args:
        samples: (c s) at 44.1 kHz.
        chords: its chroma in latent frames (t 12), of :func:`audiodiff.metrics.hear`.
        times: of the beats, seconds, two or more.
    """
    beats = np.asarray(times, np.float64)
    low_pass = signal.butter(4, BASS, fs=SAMPLE_RATE, output="sos")
    low = np.asarray(signal.sosfilt(low_pass, samples.mean(axis=0)), np.float32)
    onsets = onset_strength(low[None])
    bass = np.interp(beats * ONSET_RATE, np.arange(len(onsets)), onsets)
    bass[beats * ONSET_RATE < EDGE] = np.nan
    changes = np.append(np.nan, _changes(chords, beats))
    meter = min(meter, len(beats))
    return int(np.argmax(_by_phase(bass, meter) + _by_phase(changes, meter)))


def _by_phase(sign: np.ndarray, meter: int) -> np.ndarray:
    """The mean of a sign of beats (n,) for each beat that bars may begin at, over that of all.

    What cannot be heard, as nothing went before, is NaN, and does not count: a clip that begins
    with its bar would otherwise be heard as beginning elsewhere.
    """
    known = np.isfinite(sign)
    if not np.nansum(sign) > 0:
        return np.ones(meter)
    relative = sign / sign[known].mean()
    phases = [relative[first::meter][known[first::meter]] for first in range(meter)]
    return np.array([phase.mean() if phase.size else 1.0 for phase in phases])


def _changes(chords: np.ndarray, beats: np.ndarray) -> np.ndarray:
    """How much the chroma changes at each beat but the first (n - 1,): one less the cosine."""
    edges = np.clip(np.round(beats / FRAME_SECONDS).astype(int), 0, len(chords))
    spans = pairwise([*edges.tolist(), len(chords)])
    means = np.stack([chords[first : max(first + 1, last)].sum(axis=0) for first, last in spans])
    sizes = np.maximum(np.linalg.norm(means, axis=1), 1e-9)
    alike = (means[1:] * means[:-1]).sum(axis=1) / (sizes[1:] * sizes[:-1])
    return 1 - alike
