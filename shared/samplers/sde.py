"""Solvers of the reverse SDE: fresh noise all the way, and a drift solved to high order.

In s = -log sigma, the reverse SDEs that share the ODE's distributions at every level are

    dx = (1 + eta) (denoised - x) ds + sqrt(2 eta) sigma dw,

``eta`` 0 being the probability-flow ODE and 1 the reverse of the process that made the noise (Song
et al. 2020, arXiv 2011.13456, Eq. 6; Lu et al. 2022, arXiv 2211.01095, SDE-DPM-Solver++). For a
constant denoised signal D a step of h = log(sigma / sigma_next) is exactly

    x_next = D + exp(-(1 + eta) h) (x - D) + sigma_next sqrt(1 - exp(-2 eta h)) noise.

Where references disagree on what ``eta`` between 0 and 1 means (k-diffusion's DPM++ SDE takes
DDIM's, its 2M SDE this one) all here take this one, under which two half steps are one whole step.

The noise of a step is drawn afresh for it: independent increments. k-diffusion cuts them from one
Brownian path instead (a virtual Brownian tree), so that its results with different numbers of steps
follow the same path. Both have the same distribution. Here a result changes with the number of
steps as a stochastic sampler's does; in return ``noise(...)`` is all that it needs, and there is no
tree to keep beside the seed.
"""

import math

import torch
from torch import Tensor

from shared.denoiser import DenoiseFn
from shared.noise import NoiseFn
from shared.samplers.common import (
    Callback,
    add_noise,
    denoise_at,
    exponential_target,
    in_turn,
    required_above_0,
    steps,
)


def sample_dpmpp_sde(
    denoise: DenoiseFn,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn | None = None,
    callback: Callback | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Tensor:
    """DPM-Solver++(2S) on the reverse SDE (Lu et al. 2022, arXiv 2211.01095), k-diffusion's "SDE".

    A first-order step to ``sqrt(sigma sigma_next)``, then the whole step with the denoised signal
    found there. Two draws a step: the noise of the first half, carried on with the drift, is part
    of the noise of the whole step, as on one path of the SDE. Second order in distribution hangs
    on that (Rössler 2010, doi 10.1137/09076636X: the stage's noise and the step's must have
    covariance h / 2); with unrelated draws it is first.

    ``eta`` 0 is DPM-Solver++(2S). The step to 0 is of first order. ``s_noise`` scales the noise.

    Raises:
        UserError: eta outside 0 .. 1, or above 0 without ``noise``.
    """
    noise = required_above_0(noise, eta, "the DPM++ SDE sampler")
    draw = None if noise is None else in_turn(noise, x)
    for step, sigma, sigma_next in steps(sigmas):
        denoised = denoise_at(denoise, x, sigma)
        if callback is not None:
            callback(step, x, sigma, denoised)
        if sigma_next == 0:
            x = denoised
            continue
        middle = math.sqrt(sigma * sigma_next)
        half = _decay(sigma, middle, eta)
        x_middle = torch.lerp(denoised, x, half)
        added = None
        if draw is not None:
            added = draw().mul(s_noise * _spread(sigma, middle, eta))
            x_middle = x_middle + added
        denoised = denoise_at(denoise, x_middle, middle)
        x = torch.lerp(denoised, x, _decay(sigma, sigma_next, eta))
        if draw is not None and added is not None:
            x = x.add(added, alpha=_decay(middle, sigma_next, eta))
            x = x.add(draw(), alpha=s_noise * _spread(middle, sigma_next, eta))
    return x


def sample_dpmpp_2m_sde(
    denoise: DenoiseFn,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn | None = None,
    callback: Callback | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Tensor:
    """SDE-DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095): 2M's extrapolation, the SDE's step.

    ``D = denoised + (denoised - denoised_last) / (2 r)`` with r = h_last / h, the midpoint form.
    ``eta`` 0 is DPM-Solver++(2M). The first step and the step to 0 are of first order. ``s_noise``
    scales the noise.

    Raises:
        UserError: eta outside 0 .. 1, or above 0 without ``noise``.
    """
    noise = required_above_0(noise, eta, "the DPM++ 2M SDE sampler")
    denoised_last, h_last = None, 0.0
    for step, sigma, sigma_next in steps(sigmas):
        denoised = denoise_at(denoise, x, sigma)
        if callback is not None:
            callback(step, x, sigma, denoised)
        h = math.log(sigma / sigma_next) if sigma_next > 0 else math.inf
        target = denoised
        if denoised_last is not None and h < math.inf:
            target = torch.lerp(denoised, denoised_last, -h / (2 * h_last))
        x = _step(x, target, sigma, sigma_next, eta, noise, step, s_noise)
        denoised_last, h_last = denoised, h
    return x


def sample_dpmpp_3m_sde(
    denoise: DenoiseFn,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn | None = None,
    callback: Callback | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Tensor:
    """DPM-Solver++'s multistep of third order on the reverse SDE, k-diffusion's "3M SDE".

    The drift is solved exactly for the parabola in s through the last three denoised signals (two
    in the second step, one in the first and in the step to 0), after Lu et al. 2022, arXiv
    2211.01095, Eq. 8 with n = 3. Third order at ``eta`` 0; at ``eta`` above 0 second in
    distribution, for the parabola cannot know the noise of its own step.

    k-diffusion and diffusers give the second difference half of that weight (their ``phi_3`` times
    ``D2 = (D1_0 - D1_1) / (r0 + r1)``, which is half a second derivative). The exact integral is
    followed here: theirs converges with order 2 at ``eta`` 0. ``s_noise`` scales the noise.

    Raises:
        UserError: eta outside 0 .. 1, or above 0 without ``noise``.
    """
    noise = required_above_0(noise, eta, "the DPM++ 3M SDE sampler")
    past: list[Tensor] = []  # denoised signals, newest first
    nodes: list[float] = []  # their s
    for step, sigma, sigma_next in steps(sigmas):
        denoised = denoise_at(denoise, x, sigma)
        if callback is not None:
            callback(step, x, sigma, denoised)
        past, nodes = [denoised, *past][:3], [-math.log(sigma), *nodes][:3]
        target = denoised
        if len(past) > 1 and sigma_next > 0:
            target = exponential_target(past, nodes, nodes[0], -math.log(sigma_next), 1 + eta)
        x = _step(x, target, sigma, sigma_next, eta, noise, step, s_noise)
    return x


def _step(
    x: Tensor,
    target: Tensor,
    sigma: float,
    sigma_next: float,
    eta: float,
    noise: NoiseFn | None,
    step: int,
    s_noise: float,
) -> Tensor:
    x = torch.lerp(target, x, _decay(sigma, sigma_next, eta))
    return add_noise(x, noise, step, s_noise * _spread(sigma, sigma_next, eta))


def _decay(sigma: float, sigma_next: float, eta: float) -> float:
    """exp(-(1 + eta) h), the share of x - D that a step leaves."""
    return (sigma_next / sigma) ** (1 + eta)


def _spread(sigma: float, sigma_next: float, eta: float) -> float:
    """sigma_next sqrt(1 - exp(-2 eta h)), the standard deviation of a step's noise."""
    return sigma_next * math.sqrt(1 - (sigma_next / sigma) ** (2 * eta))
