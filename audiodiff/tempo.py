"""Onsets and tempo of audio: what taps its foot. No torch, no librosa; some milliseconds a clip."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import fft

from audiodiff.labels import SAMPLE_RATE

ONSET_RATE = 100  # values of the onset strength a second
SLOWEST, FASTEST = 50.0, 200.0  # beats a minute that are told apart
PRIOR_TEMPO = 110.0  # the commonest tempo
PRIOR_WIDTH = 0.8  # standard deviation of tempi round it, octaves
PHASES = 48  # parts of a beat at which steady beats may begin
CANDIDATES = 481  # tempi tried, 0.3 % apart
# What a correlation of 1 at so many beats' distance says for a tempo, a logarithm of odds: learnt
# by `python -m audiodiff.tempo_fit`.
COMB = {
    1 / 4: -1.6,
    1 / 3: 0.2,
    1 / 2: -2.0,
    2 / 3: 1.9,
    1: 3.0,
    4 / 3: -4.1,
    3 / 2: 2.0,
    2: 3.2,
    3: 4.3,
    4: 10.5,
}
EDGE = 5  # values of the onset strength at the start, where everything seems to begin
WINDOW = 2048  # samples a spectrum at 44.1 kHz; what is shorter hears no bass
BANDS = 40  # in which onsets are looked for, evenly spaced in the logarithm of frequency
LOWEST, HIGHEST = 40.0, 16000.0  # Hz
AT_ONCE = 256  # spectra computed together, lest long recordings take much memory
COMPRESSION = 300.0  # of magnitudes relative to the loudest: log(1 + COMPRESSION * magnitude)
LEAD = 0.35  # of a spectrum: so long before its middle a sound that begins already shows


def spectra(samples: np.ndarray, n_fft: int, centres: np.ndarray) -> np.ndarray:
    """Root of the channels' mean power at given moments, under a Hann window.

    Channels are added as powers, so that what cancels in a mono mix is still heard.

    Args:
        samples: (c s).
        n_fft: samples a spectrum.
        centres: the middle sample of each spectrum (t,).

    Returns:
        (t, n_fft / 2 + 1) float32.
    """
    padded = np.pad(np.asarray(samples, dtype=np.float32), ((0, 0), (n_fft, 2 * n_fft)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft, axis=1)
    window = np.hanning(n_fft + 1)[:-1].astype(np.float32)
    starts = np.round(centres).astype(int) + n_fft // 2
    power = np.zeros((len(starts), n_fft // 2 + 1), dtype=np.float32)
    for first in range(0, len(starts), AT_ONCE):
        some = slice(first, first + AT_ONCE)
        for channel in frames:
            power[some] += np.abs(np.asarray(fft.rfft(channel[starts[some]] * window))) ** 2
    return np.sqrt(power / len(padded))


@lru_cache
def _bands(sample_rate: int, n_fft: int) -> np.ndarray:
    """Triangles over the spectrum, (BANDS, n_fft / 2 + 1); none narrower than two bins."""
    bins = np.fft.rfftfreq(n_fft, 1 / sample_rate)
    edges = np.geomspace(LOWEST, min(HIGHEST, sample_rate / 2), BANDS + 2)
    width = np.maximum(edges[2:] - edges[:-2], 2 * bins[1])[:, None] / 2
    triangles = np.clip(1 - abs(bins - edges[1:-1, None]) / width, 0, None)
    return (triangles / triangles.sum(axis=1, keepdims=True)).astype(np.float32)


def onset_strength(samples: np.ndarray, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """How much begins at each moment: rise of the compressed spectrum, summed over its bands.

    Spectral flux: Dixon 2006, "Onset detection revisited", section 2.1, on compressed bands.

    Args:
        samples: (c s).
        sample_rate: in Hz.

    Returns:
        (t,) float32, `ONSET_RATE` a second; value i stands for the time ``i / ONSET_RATE``.
        Zero where nothing sounds at all.
    """
    n_fft = 2 * round(WINDOW * sample_rate / SAMPLE_RATE / 2)
    hop = sample_rate / ONSET_RATE
    # One spectrum half a hop before each moment, and one after the last.
    centres = (np.arange(int(samples.shape[1] / hop) + 2) - 0.5) * hop - LEAD * n_fft
    magnitude = spectra(samples, n_fft, centres) @ _bands(sample_rate, n_fft).T
    loudest = magnitude.max(initial=0)
    if loudest <= 0:
        return np.zeros(len(centres) - 1, dtype=np.float32)
    level = np.log1p(COMPRESSION / loudest * magnitude)
    return np.clip(np.diff(level, axis=0), 0, None).sum(axis=1)


def tempo(samples: np.ndarray, sample_rate: int = SAMPLE_RATE) -> float | None:
    """Beats a minute of audio (c s); None where it has no beat to speak of."""
    return onset_tempo(onset_strength(samples, sample_rate))


def blurred(onsets: np.ndarray) -> np.ndarray:
    """An onset strength (t,) seen through 30 ms, for players are not exact."""
    kernel = np.array([0.25, 0.5, 1, 0.5, 0.25])
    return np.convolve(onsets, kernel / kernel.sum(), mode="same")


def onset_tempo(onsets: np.ndarray) -> float | None:
    """Beats a minute that explain an onset strength best.

    Each tempo is a comb of lags laid over the autocorrelation (Scheirer 1998, "Tempo and beat
    analysis of acoustic musical signals", uses such combs): `COMB` tells what a correlation there
    says for the tempo or, where beats are divided otherwise, against it. To that comes how common
    the tempo is, a normal density of its logarithm round `PRIOR_TEMPO` (Ellis 2007, "Beat tracking
    by dynamic programming", equation 6).

    Args:
        onsets: (t,) as of `onset_strength`.

    Returns:
        A tempo from `SLOWEST` to `FASTEST`; None where nothing repeats, or in less than a second.
    """
    if len(onsets) < ONSET_RATE or not np.ptp(onsets[EDGE:]):
        return None
    values = lag_values(onsets)
    repeats = values[[beats >= 1 and beats == int(beats) for beats in COMB]].mean(axis=0)
    if repeats.max() <= 0:
        return None
    return float(tempi()[np.argmax(np.array(list(COMB.values())) @ values + log_prior())])


def tempi() -> np.ndarray:
    """The tempi that are tried, beats a minute (`CANDIDATES`,)."""
    return np.geomspace(SLOWEST, FASTEST, CANDIDATES)


def log_prior() -> np.ndarray:
    """How common each of :func:`tempi` is, a logarithm but for a constant."""
    return -0.5 * (np.log2(tempi() / PRIOR_TEMPO) / PRIOR_WIDTH) ** 2


def lag_values(onsets: np.ndarray) -> np.ndarray:
    """An onset strength's autocorrelation at the lags of `COMB`, for each of :func:`tempi`.

    Args:
        onsets: (t,) as of `onset_strength`, a second or more, not constant.

    Returns:
        (lags, `CANDIDATES`), 1 where it repeats exactly.
    """
    lags = len(onsets)
    smooth = blurred(onsets)
    smooth[:EDGE] = 0
    smooth -= smooth.mean()
    power = np.abs(np.asarray(fft.rfft(smooth, 2 * lags))) ** 2
    correlation = np.asarray(fft.irfft(power))[:lags]
    # Few products are behind long lags; more than twice as heavy they are not made.
    correlation /= np.maximum(np.arange(lags, 0, -1), lags / 2) * correlation[0] / lags
    wanted = np.array(list(COMB))[:, None] * (60 * ONSET_RATE / tempi())
    return np.interp(wanted, np.arange(lags), correlation, right=0)


def steady_beats(onsets: np.ndarray, bpm: float) -> np.ndarray:
    """The times of even beats of a tempo, seconds, that an onset strength supports best.

    All phases are tried; the mean strength at the beats decides. Where the tempo is known and does
    not change, this is far surer than trackers that have to find it.

    Args:
        onsets: (t,) as of `onset_strength`.
    """
    strength = blurred(onsets)
    strength[:EDGE] = 0
    end, period = len(onsets) / ONSET_RATE, 60 / bpm
    times = np.arange(0, end, period) + np.arange(PHASES)[:, None] * period / PHASES
    inside = times < end
    known = inside & (times * ONSET_RATE >= EDGE)  # a beat at the very start is not heard
    values = np.interp(times * ONSET_RATE, np.arange(len(onsets)), strength) * known
    phase = int(np.argmax(values.sum(axis=1) / np.maximum(known.sum(axis=1), 1)))
    return times[phase][inside[phase]]


def same_tempo(estimate: float | None, true: float, octaves: bool, tolerance: float = 0.04) -> bool:
    """Whether an estimate is within the tolerance of the true tempo.

    Args:
        octaves: whether half, double, a third or three times the tempo counts as well, as people
            tap either.
    """
    if estimate is None:
        return False
    factors = (1 / 3, 1 / 2, 1, 2, 3) if octaves else (1,)
    return any(abs(estimate / (true * factor) - 1) <= tolerance for factor in factors)
