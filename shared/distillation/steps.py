"""Single steps of the probability-flow ODE, each sample between levels of its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from shared.denoiser import DenoiseFn

Loss = Callable[[DenoiseFn, DenoiseFn, Tensor, Tensor, Tensor], Tensor]
"""(student, teacher, x0 (b c h w), noise (b c h w), sigmas (b k) descending) -> (b,).

``sigmas[:, 0]`` is where the student is asked. Only the student is differentiated.
"""


def per_sample(values: Tensor) -> Tensor:
    """(b,) -> (b 1 1 1)"""
    return values[:, None, None, None]


def snr_weighted(error: Tensor, sigma: Tensor) -> Tensor:
    """Mean square of an error of denoised (b c h w), weighted by SNR + 1 = 1 + 1/sigma^2: (b,).

    The weighting of Salimans & Ho 2022 (arXiv 2202.00512, section 4) that is v's own: for a network
    that predicts v it is the plain mean square error of its output.
    """
    return error.square().flatten(1).mean(1) * (1 + 1 / sigma.square())


def ddim_step(x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """DDIM's step, Euler's: x (b c h w) at sigma (b,) to sigma_next (b,); denoised where that is 0.

    ``x_next = denoised + sigma_next / sigma * (x - denoised)`` (Song et al. 2020, 2010.02502).
    """
    return torch.lerp(denoised, x, per_sample(sigma_next / sigma))


def heun_step(denoise: DenoiseFn, x: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """Heun's step (Karras et al. 2022, arXiv 2206.00364, Algorithm 1); to 0, DDIM's."""
    denoised = denoise(x, sigma)
    euler = ddim_step(x, denoised, sigma, sigma_next)
    # At 0 there is no slope: any level does there, its result is not used.
    level = torch.where(sigma_next > 0, sigma_next, sigma)
    slope = (x - denoised) / per_sample(sigma)
    slope_next = (euler - denoise(euler, level)) / per_sample(level)
    heun = x + per_sample(sigma_next - sigma) * (slope + slope_next) / 2
    return torch.where(per_sample(sigma_next > 0), heun, euler)
