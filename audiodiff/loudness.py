"""How loud a clip is, and making clips equally loud without clipping."""

import numpy as np

from audiodiff.labels import SAMPLES_PER_FRAME

LUFS = -16.0  # what clips are brought to: loud enough, and peaks of music seldom need limiting
PEAK_DB = -1.0  # dBFS, of samples; leaves room for what lossy formats add
FLOOR_DB = -80.0  # `loudness_curve` calls this and all below silence
BLOCK_SECONDS = 0.4  # of BS.1770's momentary loudness
LIMITER_SECONDS = 0.005  # on each side of a peak


def loudness(samples: np.ndarray, sample_rate: int) -> float:
    """Integrated loudness (ITU-R BS.1770-4) of ``samples`` (c s) in LUFS; -inf for silence.

    Clips shorter than 0.4 s count as if silence followed.
    """
    import pyloudnorm

    block = round(BLOCK_SECONDS * sample_rate)
    padded = np.pad(samples, ((0, 0), (0, max(0, block - samples.shape[1]))))
    with np.errstate(divide="ignore"):  # the logarithm of silence
        return float(pyloudnorm.Meter(sample_rate).integrated_loudness(padded.T))


def normalize(
    samples: np.ndarray, sample_rate: int, lufs: float = LUFS, peak_db: float = PEAK_DB
) -> np.ndarray:
    """Bring ``samples`` (c s) to ``lufs`` by a gain, with peaks of at most ``peak_db`` dBFS.

    Where the gain would lift peaks above that, they are turned down smoothly within 5 ms on either
    side, the same in all channels; such clips end up a little below ``lufs``. Silence stays as it
    is, as does what is too quiet to measure (below -70 LUFS).
    """
    level = loudness(samples, sample_rate)
    if not np.isfinite(level):
        return samples
    louder = samples * np.float32(10 ** ((lufs - level) / 20))
    return _limit(louder, 10 ** (peak_db / 20), round(LIMITER_SECONDS * sample_rate))


def _limit(samples: np.ndarray, ceiling: float, reach: int) -> np.ndarray:
    """Turn ``samples`` (c s) down around peaks above ``ceiling``."""
    peaks = np.abs(samples).max(axis=0)
    if not peaks.size or peaks.max() <= ceiling:
        return samples
    from scipy.ndimage import minimum_filter1d, uniform_filter1d

    gain = ceiling / np.maximum(peaks, ceiling)
    # Each value averaged is at most what the sample in the middle needs, so the average is too.
    width = 2 * reach + 1
    smooth = uniform_filter1d(minimum_filter1d(gain, width, mode="nearest"), width, mode="nearest")
    return np.clip(samples * smooth, -ceiling, ceiling).astype(np.float32)  # clip: rounding only


def loudness_curve(samples: np.ndarray) -> np.ndarray:
    """Level of each 4096 samples (a latent frame) of ``samples`` (c s): (frames,) float32 dB.

    Of the mean power of all channels, full scale being 0 dB; at least -80. A last, shorter frame
    counts the samples that it has.
    """
    power = np.square(samples, dtype=np.float64).mean(axis=0)
    starts = np.arange(0, len(power), SAMPLES_PER_FRAME)
    if not len(starts):
        return np.zeros(0, np.float32)
    lengths = np.diff(starts, append=len(power))
    mean = np.add.reduceat(power, starts) / lengths
    return (10 * np.log10(np.maximum(mean, 10 ** (FLOOR_DB / 10)))).astype(np.float32)
