"""Guidance: functions that make a ``DenoiseFn`` of a denoiser and what should steer it."""

import math

import torch
from torch import Tensor

from shared.conditioning import Conditioning, concatenate
from shared.denoiser import DenoiseFn, Denoiser


def plain(denoiser: Denoiser, cond: Conditioning) -> DenoiseFn:
    """Bind the conditioning and do nothing else."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return denoiser(x, sigma, cond)

    return denoise


def classifier_free(
    denoiser: Denoiser,
    cond: Conditioning,
    uncond: Conditioning,
    scale: float,
    sigma_range: tuple[float, float] = (0.0, math.inf),
) -> DenoiseFn:
    """Push the result away from what the network would say without the prompt.

    ``denoised = D(uncond) + scale * (D(cond) - D(uncond))`` (Ho & Salimans 2022, arXiv 2207.12598,
    with its w = scale - 1), one network call on the doubled batch.

    Args:
        cond, uncond: (b ...) each; the same fields set in both.
        scale: 1 is off: the conditional result itself, at half the cost.
        sigma_range: guide only where low < sigma <= high (Kynkäänniemi et al. 2024, arXiv
            2404.07724); elsewhere as with scale 1.
    """
    conditional = plain(denoiser, cond)
    if scale == 1:
        return conditional
    low, high = sigma_range
    both = concatenate([uncond, cond])  # b of each -> 2b

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        denoised = denoiser(torch.cat([x, x]), torch.cat([sigma, sigma]), both)  # 2b c h w
        without, with_cond = denoised.chunk(2)
        return torch.add(without, with_cond - without, alpha=scale)

    if low <= 0 and high == math.inf:
        return guided  # no look at sigma's value, which on a GPU would wait for the device

    def guided_in_range(x: Tensor, sigma: Tensor) -> Tensor:
        inside = (sigma > low) & (sigma <= high)  # b
        if not inside.any():
            return conditional(x, sigma)
        if inside.all():
            return guided(x, sigma)
        return torch.where(inside[:, None, None, None], guided(x, sigma), conditional(x, sigma))

    return guided_in_range
