"""From mel spectrograms to samples with no training: Griffin & Lim's phases, and a stereo image.

The levels of all bands are spread over linear frequencies; phases are found for both sides
together, beginning with those of the sinusoids that make the peaks, and from the lowest
frequencies up; each side gets its share of the magnitude, and the two are turned against each other
as far as the width asks; last, a few iterations of left and right apart settle what remains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from audiodiff.spectrogram import (
    FrontEnd,
    StereoMel,
    hann_window,
    mel_filters,
    mix_rows,
    mostly_zeros,
    overlap_add,
    unpack,
    within_margins,
)

MOMENTUM = 0.99
LADDER = ((16, 64), (4, 8), (2, 2))
"""Iterations of both sides together: which part of the frequencies, the lowest, and how many."""


@torch.no_grad()
def griffin_lim(
    mel: Tensor,
    front_end: FrontEnd,
    ladder: Sequence[tuple[int, int]] = LADDER,
    stereo_iterations: int = 4,
) -> Tensor:
    """A normalised mel (b 2 f t) -> samples (b 2 t*hop_length), float32.

    Fast Griffin-Lim (Perraudin, Balazs & Søndergaard 2013) from the phases of single-pass
    spectrogram inversion (Beauregard, Harish & Wyse 2015). The same mel gives the same samples,
    whatever else is in the batch. They have no gradient: losses look at the mel.

    The lowest sixteenth of the frequencies holds most of the music and takes a sixteenth of the
    time: as spectra of a signal at a sixteenth of the sample rate. Going up from there leaves about
    as little to settle as sixteen iterations at the full rate (docs/training.md).

    Args:
        ladder: of both sides together: (part, iterations) one after the other, on the lowest
            1/part of the frequencies. One whose double does not divide the hop is left out.
        stereo_iterations: of left and right apart, at the full rate, after that.
    """
    spectra = (linear(unpack(each[None].float(), front_end), front_end) for each in mel)
    return torch.stack(
        [samples_of(*each, front_end, ladder, stereo_iterations) for each in spectra]
    )


@torch.no_grad()
def samples_of(
    level: Tensor,
    pan: Tensor,
    width: Tensor,
    front_end: FrontEnd,
    ladder: Sequence[tuple[int, int]] = LADDER,
    stereo_iterations: int = 4,
) -> Tensor:
    """Level, pan and width of linear frequencies (1 bins t) -> samples (2 t*hop_length).

    As :func:`griffin_lim`. One clip at a time stays in a processor's cache.
    """
    # Frames are rows here, (t bins), as that is how transforms want them.
    level, pan, width = (part[0].mT.contiguous() for part in (level, pan, width))
    shared = _sinusoids(level, front_end)
    for part, iterations in ladder:
        if front_end.hop_length % (2 * part) == 0:  # frames' middles must be kept
            _iterate_lowest(part, level, shared, iterations, front_end)
    cosine, sine = _half_turn_between(pan, width)
    sides = []
    for sign in (1, -1):  # left, right: half of the memory that both at once would go through
        share = 1 + sign * pan
        spectra = shared * torch.complex(cosine * share, sine * share * sign)
        _iterate(level * share, spectra, stereo_iterations, front_end)
        sides.append(_samples(spectra, front_end))
    return within_margins(torch.stack(sides), front_end)


def linear(mel: StereoMel, front_end: FrontEnd) -> tuple[Tensor, Tensor, Tensor]:
    """Level, pan and width (b bins t) of linear frequencies.

    Levels by least squares, kept above 0: iterations towards the exact non-negative solution cost
    more than Griffin-Lim and gain nothing that is heard.
    """
    inverse = _inverse(front_end, mel.level.device)
    return (inverse @ mel.level).clamp(min=0), *linear_stereo(mel, front_end)


def linear_stereo(mel: StereoMel, front_end: FrontEnd) -> tuple[Tensor, Tensor]:
    """Pan and width (b bins t) of linear frequencies: those of the bands around."""
    spread = _spread(front_end, mel.pan.device)
    return mix_rows(spread, mel.pan), mix_rows(spread, mel.width)


def _half_turn_between(pan: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """Half the phase between left and right, its cosine and sine, that gives pan p its width w.

    With |l| = 1 + p and |r| = 1 - p, the side's share of the power w^2 is
    |l - r|^2 / (2 |l|^2 + 2 |r|^2), so the whole phase has cos = (1 - 2 w^2) (1 + p^2) / (1 - p^2).
    All bins turn the same way: neighbours that turned apart would cancel each other.
    """
    square = pan.square()
    cosine = (1 - 2 * width.square()) * (1 + square) / (1 - square).clamp(min=1e-3)
    cosine = cosine.clamp(-1, 1)
    return ((1 + cosine) / 2).sqrt(), ((1 - cosine) / 2).sqrt()


def _iterate_lowest(
    part: int, magnitudes: Tensor, spectra: Tensor, iterations: int, front_end: FrontEnd
) -> None:
    """:func:`_iterate` on the lowest 1/part of the frequencies of ``spectra``, in their place.

    These bins are the spectra of the same sound at 1/part of the sample rate: frames of as many
    seconds, at the same places, under the same window.
    """
    slower = replace(
        front_end, n_fft=front_end.n_fft // part, hop_length=front_end.hop_length // part
    )
    lowest = spectra[:, : slower.bins].contiguous()
    _iterate(magnitudes[:, : slower.bins].contiguous(), lowest, iterations, slower)
    spectra[:, : slower.bins] = lowest


def _iterate(magnitudes: Tensor, spectra: Tensor, iterations: int, front_end: FrontEnd) -> None:
    """Let the phases of ``spectra`` (t bins), of these magnitudes, fit each other better."""
    n_fft, hop = front_end.n_fft, front_end.hop_length
    window = hann_window(front_end, magnitudes.device)
    parts = torch.view_as_real(spectra)  # complex numbers times real ones would be copied first
    previous = None
    for _ in range(iterations):
        frames = _samples(spectra, front_end).unfold(-1, n_fft, hop) * window
        rebuilt = torch.view_as_real(torch.fft.rfft(frames))
        if previous is None:
            parts.copy_(rebuilt)
        else:
            torch.add(rebuilt, previous, alpha=-MOMENTUM / (1 + MOMENTUM), out=parts)
        previous = rebuilt
        power = spectra.real.square().addcmul_(spectra.imag, spectra.imag)
        parts.mul_(power.add_(1e-20).rsqrt_().mul_(magnitudes)[..., None])


def _samples(spectra: Tensor, front_end: FrontEnd) -> Tensor:
    """Spectra by rows (t bins) -> samples between margins; see :func:`overlap_add`."""
    window = hann_window(front_end, spectra.device)
    return overlap_add(torch.fft.irfft(spectra, front_end.n_fft).mul_(window), front_end)


def _sinusoids(level: Tensor, front_end: FrontEnd) -> Tensor:
    """Spectra of the magnitudes ``level`` (t bins) if each of their peaks is a sinusoid.

    A peak goes on from the phase that its bin had in the frame before, by its frequency; the bins
    around follow it, with alternating signs, as a window's transform has around its middle.
    """
    # Frame after frame of a thousand numbers each: on the CPU, where a call costs least.
    nearest, frequencies = _peaks(level.cpu().numpy())
    frequencies *= np.float32(front_end.hop_length / front_end.n_fft)
    generator = torch.Generator().manual_seed(0)  # equal phases would add up to a click
    phases = torch.rand(level.shape[1], generator=generator)
    frames = _walked(phases.numpy(), nearest, frequencies)
    frames[:, 1::2] += 0.5
    angles = torch.from_numpy(frames).to(level.device).mul_(2 * math.pi)
    return torch.complex(angles.cos().mul_(level), angles.sin().mul_(level))


def _walked(phases: np.ndarray, nearest: np.ndarray, advance: np.ndarray) -> np.ndarray:
    """Phases (t bins), in turns, from those (bins) before the first frame, all float32.

    Half of the way goes at the frequency of the frame before, half at the new one.
    """
    walked = np.empty_like(advance)
    before = advance[0]
    for peak, step, here in zip(nearest, advance, walked, strict=True):
        phases = phases[peak] + (before[peak] + step) / 2
        phases = np.subtract(phases, np.floor(phases), out=here)
        before = step
    return walked


def _peaks(level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each bin of (t bins) its frame's nearest peak: the bin and the frequency, in bins.

    Frequencies between bins come from the peak and its larger neighbour, exact for a sinusoid under
    a Hann window (Grandke 1983). In frames without peaks each bin is one.
    """
    frames, count = level.shape
    is_peak = np.zeros(level.shape, bool)
    np.greater(level[:, 1:-1], level[:, :-2], out=is_peak[:, 1:-1])
    is_peak[:, 1:-1] &= level[:, 1:-1] >= level[:, 2:]
    is_peak[~is_peak.any(1)] = True
    places = np.flatnonzero(is_peak)
    row, peak = np.divmod(places, count)
    flat = level.ravel()
    left, right = flat[np.maximum(places - 1, 0)], flat[np.minimum(places + 1, flat.size - 1)]
    ratio = np.maximum(left, right) / np.maximum(flat[places], np.float32(1e-12))
    offset = np.clip((2 * ratio - 1) / (ratio + 1), 0, 0.5)
    offset[(peak == 0) | (peak == count - 1)] = 0
    frequency = (peak + np.where(left > right, -offset, offset)).astype(np.float32)
    # A peak's bins end in the middle to the next one of its frame, or with the frame.
    ends = (places[:-1] + places[1:]) // 2 + 1
    ends = np.append(np.where(row[:-1] == row[1:], ends, (row[:-1] + 1) * count), flat.size)
    bins = np.diff(ends, prepend=0)
    return (
        np.repeat(peak, bins).reshape(frames, count),
        np.repeat(frequency, bins).reshape(frames, count),
    )


@lru_cache(maxsize=2)
@torch.inference_mode(False)
def _inverse(front_end: FrontEnd, device: torch.device) -> Tensor:
    """What mel levels are spread over linear frequencies by (bins n_mels)."""
    return torch.linalg.pinv(mel_filters(front_end)).to(device)


@lru_cache(maxsize=2)
@torch.inference_mode(False)
def _spread(front_end: FrontEnd, device: torch.device) -> Tensor:
    """What values of pairs of bands are spread by (bins n_mels/2)."""
    pairs = mel_filters(front_end).unflatten(0, (-1, 2)).sum(1)
    return mostly_zeros(shares_of_bands(pairs), device)


def shares_of_bands(filters: Tensor) -> Tensor:
    """The share of each band in a bin (bins f), of filters (f bins); rows sum to 1.

    A bin outside of all bands goes with the one that is nearest.
    """
    count, bins = filters.shape
    nearest = torch.where(torch.arange(bins) < bins // 2, 0, count - 1)
    inside = filters.sum(0) > 0
    weights = torch.where(inside, filters, F.one_hot(nearest, count).mT)
    return (weights / weights.sum(0)).mT.contiguous()
