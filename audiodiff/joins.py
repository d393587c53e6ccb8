"""Where something new meets samples that stay as they are: no click, no break in the spectrum.

A vocoder knows nothing of the phases on the other side of a join. So around each join phases are
found anew, by Griffin and Lim's iterations (1984) in which the samples that stay are put back each
time: the new sound keeps its magnitudes and its phases come to fit what is there.
In the first moments the magnitudes glide there from those that stay: a codec colours what goes
through it, and music made to go on need not do so to the millisecond. For as long, what stays is
heard to go on by linear prediction, as gaps in recordings are bridged (Kauppinen & Roth 2002,
"Audio signal extrapolation: theory and applications"), while it gives way to what is new.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from audiodiff.spectrogram import FrontEnd, istft, stft

REACH = 24  # hops on either side of a join: what may change on the new side, what is heard on both
ITERATIONS = 24
GLIDE = 8  # hops from the spectrum that stays to the new one
MOMENTUM = 0.99  # fast Griffin-Lim (Perraudin, Balazs & Søndergaard 2013)
QUIET = 1e-5  # of a magnitude; below, it makes no difference how quiet it is
GOES_ON = 4096  # samples over which what stays goes on and gives way
PREDICTED_FROM = 16384  # samples that the prediction learns from
ORDER = 2048  # of it, at most
DITHER = 1e-6  # lest silence and pure tones leave nothing to learn from
SMOOTHING = 256  # samples over which what is left of a step at the join dies away


def joined(
    whole: np.ndarray, start: int, fill: np.ndarray, before: bool, after: bool
) -> np.ndarray:
    """``fill`` (c n), made to fit where it lies in ``whole`` (c s) from ``start`` on: (c n).

    Args:
        before: whether it is to fit what comes before it; else it fades in.
        after: whether what comes after it; else it fades out.
    """
    fill = fill.astype(np.float64)
    if before:
        fill = _fitted(whole[:, :start], fill)
    if after:
        rest = whole[:, start + fill.shape[1] :]
        fill = _fitted(rest[:, ::-1], fill[:, ::-1])[:, ::-1]
    return np.ascontiguousarray(fill)


def _fitted(before: np.ndarray, fill: np.ndarray) -> np.ndarray:
    """``fill`` (c n) with a beginning that goes on from the end of ``before`` (c m)."""
    front_end = FrontEnd()  # only its frames count: they may stand for any sample rate
    hop = front_end.hop_length
    changed = min(REACH * hop, fill.shape[1] // 2 // hop * hop)
    heard = min(REACH * hop, before.shape[1] // hop * hop)
    if not changed or not heard:
        return _smoothed(before, fill)
    tail = min(REACH * hop, (fill.shape[1] - changed) // hop * hop)
    left = before[:, before.shape[1] - heard :]
    ahead = continued(before, min(GOES_ON, changed))
    share = np.sin(np.linspace(0, np.pi / 2, ahead.shape[1])) ** 2  # of what is new
    fill = fill.copy()
    fill[:, : len(share)] = _faded(ahead, fill, share)
    piece = np.concatenate([left, fill[:, : changed + tail]], axis=1)
    free = np.zeros(piece.shape[1], bool)
    free[heard : heard + changed] = True
    guess = torch.from_numpy(piece).float()
    magnitudes = _gliding(stft(guess, front_end).abs(), heard // hop)
    settled = settle(guess, torch.from_numpy(free), magnitudes, front_end).double().numpy()
    made = fill
    made[:, : changed + tail] = settled[:, heard:]
    made[:, : len(share)] = _faded(ahead, made, share)
    # Both ends of what was free: here, and where the fill's own samples go on.
    inner = _smoothed(settled[:, heard + changed :][:, ::-1], made[:, :changed][:, ::-1])
    made[:, :changed] = inner[:, ::-1]
    return _smoothed(left, made)


def continued(before: np.ndarray, count: int) -> np.ndarray:
    """What (c m) would go on like for ``count`` samples: (c count).

    An autoregression by Burg's method, driven by nothing: tones go on and die away, noise dies.
    """
    import librosa
    from scipy import signal

    heard = before[:, -PREDICTED_FROM:]
    order = min(ORDER, heard.shape[1] // 4)
    if order < 1:
        return np.zeros((len(before), count))
    noise = DITHER * np.random.default_rng(0).normal(size=heard.shape[1])
    found = []
    for channel in heard.astype(np.float64):
        weights = librosa.lpc(channel + noise, order=order)
        state = signal.lfiltic([1.0], weights, channel[::-1][:order])
        ahead = np.asarray(signal.lfilter([1.0], weights, np.zeros(count), zi=state)[0])
        most = float(np.abs(channel).max())
        found.append(np.clip(np.nan_to_num(ahead), -most, most))
    return np.stack(found)


def _faded(before: np.ndarray, after: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The first len(share) samples of (c n), with so much of the other's left."""
    return (1 - share) * before + share * after[:, : len(share)]


def _gliding(magnitudes: Tensor, first: int) -> Tensor:
    """Magnitudes (c bins t) that from frame ``first`` on glide from the last that stay."""
    kept = magnitudes[..., max(first - 3, 0)][..., None]  # its samples all lie before the join
    made = magnitudes.clone()
    here = slice(first, min(first + GLIDE, magnitudes.shape[-1]))
    share = torch.arange(1, GLIDE + 1)[: here.stop - first] / (GLIDE + 1)
    logs = torch.lerp((kept + QUIET).log(), (made[..., here] + QUIET).log(), share)
    made[..., here] = (logs.exp() - QUIET).clamp(min=0)
    return made


def settle(samples: Tensor, free: Tensor, magnitudes: Tensor, front_end: FrontEnd) -> Tensor:
    """Samples (c s) with new ones where ``free`` (s), in phase with the others.

    Args:
        samples: s a multiple of the hop; where free, what is to be fitted.
        magnitudes: (c bins t) of spectra, followed where the middle of a frame is free.
    """
    middles = free.unflatten(0, (-1, front_end.hop_length))
    inside = middles[:, front_end.hop_length // 2]  # (t) frames whose middle is free
    current, previous = samples, None
    for _ in range(ITERATIONS):
        spectra = stft(current, front_end)
        ahead = spectra
        if previous is not None:
            ahead = spectra + MOMENTUM * (spectra - previous)
        previous = spectra
        wanted = torch.where(inside, magnitudes * ahead.sgn(), spectra)
        current = torch.where(free, istft(wanted, front_end), samples)
    return current


def _smoothed(before: np.ndarray, fill: np.ndarray) -> np.ndarray:
    """``fill`` (c n) without a step from the last sample of ``before`` (c m): it dies away."""
    count = min(SMOOTHING, fill.shape[1])
    if not before.shape[1] or count < 2:
        return fill
    slope = before[:, -1:] - before[:, -2:-1] if before.shape[1] > 1 else 0
    step = before[:, -1:] + slope / 2 - (fill[:, :1] - (fill[:, 1:2] - fill[:, :1]) / 2)
    made = fill.copy()
    made[:, :count] += step * np.cos(np.linspace(0, np.pi / 2, count)) ** 2
    return made


def flux(samples: np.ndarray, places: np.ndarray) -> np.ndarray:
    """How much the spectrum of (c s) changes at moments, in samples: (len(places),).

    The mean over frequencies of the change of log(1 + magnitude) from the frame before to the frame
    after, 2048 samples each and 512 apart; magnitudes relative to a loud one of the whole.
    """
    n_fft, hop = 2048, 512
    padded = np.pad(samples, ((0, 0), (n_fft, n_fft)))
    window = np.hanning(n_fft + 1)[:-1]

    def levels(middles: np.ndarray) -> np.ndarray:
        index = (middles + n_fft // 2)[:, None] + np.arange(n_fft)
        power = sum(np.abs(np.fft.rfft(channel[index] * window)) ** 2 for channel in padded)
        return np.sqrt(power)

    everywhere = levels(np.arange(0, samples.shape[1], 4 * hop))
    scale = 300 / max(float(everywhere.max()), 1e-9)
    before, after = (np.log1p(scale * levels(places + shift)) for shift in (-hop // 2, hop // 2))
    return np.abs(after - before).mean(axis=1)


def flux_at_joins(samples: np.ndarray, joins: list[int]) -> list[float]:
    """Flux at joins, in samples, as a share of the median of the whole recording (c s)."""
    everywhere = flux(samples, np.arange(1024, max(samples.shape[1] - 1024, 1025), 512))
    median = max(float(np.median(everywhere)), 1e-12)
    return [float(value) / median for value in flux(samples, np.asarray(joins))]
