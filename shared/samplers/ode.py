"""Single-step solvers of the probability-flow ODE, and the way back from an image to its noise."""

import math
from itertools import pairwise

import torch
from torch import Tensor

from shared.denoiser import DenoiseFn
from shared.noise import NoiseFn
from shared.samplers.common import Callback, add_noise, denoise_at, required, steps


def sample_euler(
    denoise: DenoiseFn,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn | None = None,
    callback: Callback | None = None,
    s_churn: float = 0.0,
    s_noise: float = 1.0,
) -> Tensor:
    """Euler's method on the probability-flow ODE (Karras et al. 2022, arXiv 2206.00364, Eq. 1).

    ``dx / dsigma = (x - denoised) / sigma``. ``s_churn`` above 0 adds noise before each step
    (Algorithm 2 without its second half), scaled by ``s_noise``.

    Raises:
        UserError: ``s_churn`` above 0 without ``noise``.
    """
    for step, sigma, sigma_next in steps(sigmas):
        x, sigma = _churn(x, sigma, noise, step, s_churn / (len(sigmas) - 1), s_noise)
        denoised = denoise_at(denoise, x, sigma)
        if callback is not None:
            callback(step, x, sigma, denoised)
        # x + (sigma_next - sigma) * (x - denoised) / sigma, exactly denoised at sigma_next = 0.
        x = torch.lerp(denoised, x, sigma_next / sigma)
    return x


def sample_heun(
    denoise: DenoiseFn,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn | None = None,
    callback: Callback | None = None,
    s_churn: float = 0.0,
    s_noise: float = 1.0,
) -> Tensor:
    """Heun's second-order method on that ODE (Karras et al. 2022, Algorithms 1 and 2).

    An Euler step, then the slope averaged with the slope at its end: two evaluations a step, one
    in the step to 0, where the slope is not defined. ``s_churn`` above 0 adds noise before each
    step, scaled by ``s_noise``.

    For flows, diffusers' FlowMatchHeunDiscreteScheduler averages slopes in the flow's time and
    state instead. Both are of second order, and the numbers differ; the paper's is followed for
    every kind of model, so that a sampler does not depend on what the network predicts.

    Raises:
        UserError: ``s_churn`` above 0 without ``noise``.
    """
    for step, sigma, sigma_next in steps(sigmas):
        x, sigma = _churn(x, sigma, noise, step, s_churn / (len(sigmas) - 1), s_noise)
        denoised = denoise_at(denoise, x, sigma)
        if callback is not None:
            callback(step, x, sigma, denoised)
        x = heun_step(denoise, x, denoised, sigma, sigma_next)
    return x


def heun_step(
    denoise: DenoiseFn, x: Tensor, denoised: Tensor, sigma: float, sigma_next: float
) -> Tensor:
    """One step of Heun's method from (x, its denoised) at sigma; Euler's in a step to 0."""
    x_euler = torch.lerp(denoised, x, sigma_next / sigma)
    if sigma_next == 0:
        return x_euler
    slope_next = (x_euler - denoise_at(denoise, x_euler, sigma_next)) / sigma_next
    # x + dt * (slope + slope_next) / 2, where x_euler = x + dt * slope.
    return torch.lerp(x, x_euler, 0.5).add_(slope_next, alpha=(sigma_next - sigma) / 2)


def sample_dpm2(
    denoise: DenoiseFn,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """DPM-Solver-2, the midpoint method (Lu et al. 2022, arXiv 2206.00927, Algorithm 1).

    In this coordinate its Eq. 4.1 with r = 1/2 is an Euler step to ``sqrt(sigma sigma_next)``, the
    middle in log sigma, then the whole step with the slope found there. The step to 0 is Euler's.
    Deterministic: ``noise`` is not used.
    """
    for step, sigma, sigma_next in steps(sigmas):
        denoised = denoise_at(denoise, x, sigma)
        if callback is not None:
            callback(step, x, sigma, denoised)
        x = midpoint_step(denoise, x, denoised, sigma, sigma_next)
    return x


def midpoint_step(
    denoise: DenoiseFn, x: Tensor, denoised: Tensor, sigma: float, sigma_next: float
) -> Tensor:
    """One step of :func:`sample_dpm2` from (x, its denoised) at sigma; Euler's in a step to 0."""
    if sigma_next == 0:
        return denoised
    middle = math.sqrt(sigma * sigma_next)
    x_middle = torch.lerp(denoised, x, middle / sigma)
    slope = (x_middle - denoise_at(denoise, x_middle, middle)) / middle
    return x.add(slope, alpha=sigma_next - sigma)


def invert_ddim(
    denoise: DenoiseFn, x0: Tensor, sigmas: Tensor, *, callback: Callback | None = None
) -> Tensor:
    """Find the noise that a clean signal comes from (Song et al. 2020, 2010.02502, section 4.3).

    Walks DDIM's ODE (its Eq. 14) up the grid by Euler's method:
    ``x_up = x + (sigma_up - sigma) (x - denoised) / sigma``. At sigma 0 the slope is not defined
    and is taken at the first level above, ``x_up = x + (x - denoise(x, sigma_up))``. The way up and
    :func:`sample_ddim` down the same grid differ by an error that falls like 1 / steps.

    diffusers' DDIMInverseScheduler asks the network at the level above in every step; here it is
    asked at the level where x is, as the paper's ODE has it. Both are of first order.

    Args:
        denoise: as for a sampler.
        x0: (b c h w), the state at ``sigmas[-1]``: the clean signal if that is 0.
        sigmas: (n + 1,), descending as for a sampler, walked from its end to its beginning.
        callback: called each step with (step, x, sigma, denoised), step 0 the last of the grid.

    Returns:
        (b c h w), the state at ``sigmas[0]``: about ``sigmas[0]`` times unit noise.

    Raises:
        UserError: sigmas not descending.
    """
    x = x0
    levels = [sigma for _, sigma, _ in steps(sigmas)][::-1]
    lowest = sigmas[-1].item()
    for step, (sigma, sigma_up) in enumerate(pairwise([lowest, *levels])):
        # From 0 the whole difference is added: (sigma_up - 0) / sigma_up = 1.
        asked = sigma if sigma > 0 else sigma_up
        denoised = denoise_at(denoise, x, asked)
        if callback is not None:
            callback(step, x, asked, denoised)
        x = x.add(x - denoised, alpha=(sigma_up - sigma) / asked)
    return x


def _churn(
    x: Tensor, sigma: float, noise: NoiseFn | None, step: int, churn: float, s_noise: float
) -> tuple[Tensor, float]:
    """Raise the noise level from sigma to sigma (1 + gamma), gamma <= sqrt(2) - 1 (EDM, Alg. 2)."""
    if churn <= 0:
        return x, sigma
    noise = required(noise, "a sampler with s_churn above 0")
    sigma_hat = sigma * (1 + min(churn, math.sqrt(2) - 1))
    return add_noise(x, noise, step, s_noise * math.sqrt(sigma_hat**2 - sigma**2)), sigma_hat
