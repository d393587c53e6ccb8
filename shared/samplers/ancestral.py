"""Samplers that solve the ODE past the next level and come back up to it with fresh noise.

Given the exact solution down to ``sigma_down``, noise of ``sigma_up`` brings it exactly to the
distribution at ``sigma_next`` (see :func:`shared.samplers.common.ancestral`): in distribution these
have the order of the ODE's solver. ``eta`` 0 is that solver alone.
"""

import math

import torch
from torch import Tensor

from shared.denoiser import DenoiseFn
from shared.naming import choose
from shared.noise import NoiseFn
from shared.samplers.common import (
    Callback,
    add_noise,
    ancestral,
    denoise_at,
    required,
    required_above_0,
    steps,
)
from shared.samplers.ode import midpoint_step

# DDPM's two variances of a step, for (sigma, sigma_next): the ends of what is right for data that
# is a single point (small) and unit noise (large), Ho et al. 2020, section 3.2.
DDPM_VARIANCES = {
    "small": lambda sigma, sigma_next: sigma_next**2 * (1 - (sigma_next / sigma) ** 2),
    "large": lambda sigma, sigma_next: (
        (1 + sigma_next**2) * (sigma**2 - sigma_next**2) / (1 + sigma**2)
    ),
}


def sample_ddpm(
    denoise: DenoiseFn,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn | None = None,
    callback: Callback | None = None,
    variance: str = "small",
) -> Tensor:
    """Ancestral sampling (DDPM, Ho et al. 2020, arXiv 2006.11239, Algorithm 2).

    Draws from ``q(x_next | x, denoised)``, Eq. 6-7, which in this coordinate has mean
    ``denoised + (sigma_next / sigma)^2 (x - denoised)``. ``variance`` "small" is the posterior's,
    beta-tilde, here ``sigma_next^2 (sigma^2 - sigma_next^2) / sigma^2``; equal to DDIM with eta 1.
    "large" is the forward step's, beta, here
    ``(1 + sigma_next^2) (sigma^2 - sigma_next^2) / (1 + sigma^2)``: more noise, which pays only
    with many steps. The step to 0 adds none (z = 0 at t = 1 in the Algorithm); diffusers' DDPM with
    "fixed_large" adds it unless its last t is 0.

    Raises:
        UserError: no ``noise``, or an unknown variance.
    """
    noise = required(noise, "the DDPM sampler")
    variance_of = choose("DDPM variance", variance, DDPM_VARIANCES)
    for step, sigma, sigma_next in steps(sigmas):
        denoised = denoise_at(denoise, x, sigma)
        if callback is not None:
            callback(step, x, sigma, denoised)
        x = torch.lerp(denoised, x, (sigma_next / sigma) ** 2)
        if sigma_next > 0:
            x = add_noise(x, noise, step, math.sqrt(variance_of(sigma, sigma_next)))
    return x


def sample_ddim(
    denoise: DenoiseFn,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn | None = None,
    callback: Callback | None = None,
    eta: float = 0.0,
) -> Tensor:
    """Denoising diffusion implicit models (Song et al. 2020, arXiv 2010.02502, Eq. 12 and 16).

    ``x_next = denoised + sigma_down / sigma * (x - denoised) + sigma_up * noise`` with
    ``sigma_up^2 = eta^2 sigma_next^2 (sigma^2 - sigma_next^2) / sigma^2`` and
    ``sigma_down^2 = sigma_next^2 - sigma_up^2``. ``eta`` 0 is deterministic and is Euler's method;
    ``eta`` 1 is DDPM.

    Raises:
        UserError: eta outside 0 .. 1, or above 0 without ``noise``.
    """
    noise = required_above_0(noise, eta, "DDIM with eta above 0")
    return _euler(denoise, x, sigmas, noise, callback, eta, s_noise=1.0)


def sample_euler_ancestral(
    denoise: DenoiseFn,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn | None = None,
    callback: Callback | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Tensor:
    """Euler's method to ``sigma_down``, then noise of ``sigma_up`` (Song et al. 2020, Eq. 12).

    Known from k-diffusion as "Euler a". In this coordinate it is DDIM with eta, so at ``eta`` 1
    DDPM; what it adds is ``s_noise``, which scales the noise.

    Raises:
        UserError: eta outside 0 .. 1, or above 0 without ``noise``.
    """
    noise = required_above_0(noise, eta, "the Euler ancestral sampler")
    return _euler(denoise, x, sigmas, noise, callback, eta, s_noise)


def sample_dpm2_ancestral(
    denoise: DenoiseFn,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn | None = None,
    callback: Callback | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Tensor:
    """DPM-Solver-2 (Lu et al. 2022, arXiv 2206.00927) to ``sigma_down``, then ``sigma_up`` noise.

    The midpoint is ``sqrt(sigma sigma_down)``; ``eta`` 0 is :func:`sample_dpm2`.

    Raises:
        UserError: eta outside 0 .. 1, or above 0 without ``noise``.
    """
    noise = required_above_0(noise, eta, "the DPM2 ancestral sampler")
    for step, sigma, sigma_next in steps(sigmas):
        denoised = denoise_at(denoise, x, sigma)
        if callback is not None:
            callback(step, x, sigma, denoised)
        sigma_down, sigma_up = ancestral(sigma, sigma_next, eta)
        x = midpoint_step(denoise, x, denoised, sigma, sigma_down)
        x = add_noise(x, noise, step, s_noise * sigma_up)
    return x


def sample_dpmpp_2s_ancestral(
    denoise: DenoiseFn,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn | None = None,
    callback: Callback | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Tensor:
    """DPM-Solver++(2S) (Lu et al. 2022, arXiv 2211.01095, Algorithm 1) to ``sigma_down``, then
    noise of ``sigma_up``.

    With r = 1/2 its two halves are ``u = denoised + middle / sigma (x - denoised)`` at
    ``middle = sqrt(sigma sigma_down)`` and, with D the denoised u,
    ``x_next = D + sigma_down / sigma (x - D)``. ``eta`` 0 is DPM-Solver++(2S) itself. The step to 0
    is of first order.

    Raises:
        UserError: eta outside 0 .. 1, or above 0 without ``noise``.
    """
    noise = required_above_0(noise, eta, "the DPM++ 2S ancestral sampler")
    for step, sigma, sigma_next in steps(sigmas):
        denoised = denoise_at(denoise, x, sigma)
        if callback is not None:
            callback(step, x, sigma, denoised)
        sigma_down, sigma_up = ancestral(sigma, sigma_next, eta)
        if sigma_down > 0:
            middle = math.sqrt(sigma * sigma_down)
            x_middle = torch.lerp(denoised, x, middle / sigma)
            denoised = denoise_at(denoise, x_middle, middle)
        x = torch.lerp(denoised, x, sigma_down / sigma)
        x = add_noise(x, noise, step, s_noise * sigma_up)
    return x


def _euler(
    denoise: DenoiseFn,
    x: Tensor,
    sigmas: Tensor,
    noise: NoiseFn | None,
    callback: Callback | None,
    eta: float,
    s_noise: float,
) -> Tensor:
    for step, sigma, sigma_next in steps(sigmas):
        denoised = denoise_at(denoise, x, sigma)
        if callback is not None:
            callback(step, x, sigma, denoised)
        sigma_down, sigma_up = ancestral(sigma, sigma_next, eta)
        x = torch.lerp(denoised, x, sigma_down / sigma)
        x = add_noise(x, noise, step, s_noise * sigma_up)
    return x
