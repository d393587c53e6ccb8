"""How far two recordings are apart, as spectra tell; differentiable in both."""

from __future__ import annotations

import torch
from torch import Tensor

from audiodiff.spectrogram import FrontEnd, mel_bands, stft

RESOLUTIONS = ((512, 128), (1024, 256), (2048, 512))
"""n_fft and hop_length of each."""
QUIETEST = 1e-4  # magnitude of the (unscaled) transform, about what rounding to 16 bits leaves


def mr_stft_distance(samples: Tensor, target: Tensor) -> Tensor:
    """Multi-resolution STFT distance of (b c s) to its target (b c s): (b,).

    Spectral convergence and the L1 distance of log magnitudes, natural, averaged over
    ``RESOLUTIONS`` (Yamamoto et al. 2020, arXiv 1910.11480, equations 4 to 6).
    """
    total = samples.new_zeros(len(samples))
    for n_fft, hop_length in RESOLUTIONS:
        made, true = (_magnitudes(each, n_fft, hop_length) for each in (samples, target))
        # Squared first, so that a gradient exists where the two are equal.
        convergence = (made - true).square().sum(1) / true.square().sum(1)
        total = total + (convergence + 1e-12).sqrt() + (made.log() - true.log()).abs().mean(1)
    return total / len(RESOLUTIONS)


def log_mel_distance(samples: Tensor, target: Tensor, front_end: FrontEnd) -> Tensor:
    """L1 distance of the natural logarithms of mel amplitudes, each channel's own: (b,).

    Both are (b c s); the front end's ``log_floor`` is added before the logarithm.
    """
    made, true = (_log_mels(each, front_end) for each in (samples, target))
    return (made - true).abs().flatten(1).mean(1)


def _magnitudes(samples: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """(b c s) -> (b n), all of an example in one row, not below ``QUIETEST``."""
    window = torch.hann_window(n_fft, device=samples.device)
    spectra = torch.stft(
        samples.flatten(0, 1), n_fft, hop_length, window=window, pad_mode="constant",
        return_complex=True,
    )  # fmt: skip
    power = spectra.real.square() + spectra.imag.square()
    return power.clamp(min=QUIETEST**2).sqrt().reshape(len(samples), -1)


def _log_mels(samples: Tensor, front_end: FrontEnd) -> Tensor:
    spectra = stft(samples, front_end)
    # A magnitude has no gradient at 0.
    magnitudes = (spectra.real.square() + spectra.imag.square() + 1e-16).sqrt()
    return (mel_bands(magnitudes, front_end) + front_end.log_floor).log()
