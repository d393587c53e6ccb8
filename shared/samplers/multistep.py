"""Solvers of the probability-flow ODE that remember: high order at one evaluation a step.

They hold a polynomial through what the last steps found. The first steps, with less to remember,
are of lower order; with evenly graded steps from the noisiest level down that costs little, since
there the ODE is nearly straight.
"""

import math

import torch
from torch import Tensor

from shared.denoiser import DenoiseFn
from shared.errors import UserError
from shared.noise import NoiseFn
from shared.samplers.common import (
    Callback,
    combine,
    denoise_at,
    exponential_target,
    lagrange_integrals,
    steps,
)
from shared.samplers.ode import heun_step


def sample_dpmpp_2m(
    denoise: DenoiseFn,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """DPM-Solver++(2M), second-order multistep (Lu et al. 2022, arXiv 2211.01095, Algorithm 2).

    With ``h = log(sigma / sigma_next)`` and r = h_last / h the ODE is solved exactly for a denoised
    signal extrapolated from the last two, ``D = denoised + (denoised - denoised_last) / (2 r)``:
    ``x_next = D + sigma_next / sigma * (x - D)``. The first step and the step to 0 are first order.
    Deterministic: ``noise`` is not used.
    """
    denoised_last, h_last = None, 0.0
    for step, sigma, sigma_next in steps(sigmas):
        denoised = denoise_at(denoise, x, sigma)
        if callback is not None:
            callback(step, x, sigma, denoised)
        h = math.log(sigma / sigma_next) if sigma_next > 0 else math.inf
        if denoised_last is None or h == math.inf:
            x = torch.lerp(denoised, x, sigma_next / sigma)
        else:
            extrapolated = torch.lerp(denoised, denoised_last, -h / (2 * h_last))
            x = torch.lerp(extrapolated, x, sigma_next / sigma)
        denoised_last, h_last = denoised, h
    return x


def sample_lms(
    denoise: DenoiseFn,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn | None = None,
    callback: Callback | None = None,
    order: int = 4,
) -> Tensor:
    """Linear multistep: Adams and Bashforth's method for uneven steps in sigma.

    ``x_next = x + integral of P(sigma)`` over the step, P the polynomial through the last ``order``
    slopes ``(x - denoised) / sigma`` (Hairer, Norsett & Wanner, Solving ODEs I, section III.5, on
    Eq. 1 of Karras et al. 2022, arXiv 2206.00364); the integral is exact. It is also
    rho-AB-DEIS (Zhang & Chen 2022, arXiv 2204.13902), as rho is sigma in this coordinate.
    Deterministic: ``noise`` is not used.

    Raises:
        UserError: order outside 1 .. 4.
    """
    _check_order("LMS", order, (1, 2, 3, 4))
    slopes: list[Tensor] = []
    levels: list[float] = []
    for step, sigma, sigma_next in steps(sigmas):
        denoised = denoise_at(denoise, x, sigma)
        if callback is not None:
            callback(step, x, sigma, denoised)
        slopes, levels = [(x - denoised) / sigma, *slopes][:order], [sigma, *levels][:order]
        if len(slopes) == 1:
            x = torch.lerp(denoised, x, sigma_next / sigma)  # exact at 0
        else:
            x = x + combine(lagrange_integrals(levels, sigma, sigma_next, rate=0), slopes)
    return x


# Adams and Bashforth's weights for even steps, newest slope first.
_EVEN_STEPS = {
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}


def sample_plms(
    denoise: DenoiseFn,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Pseudo linear multistep, PNDM's (Liu et al. 2022, arXiv 2202.09778, Eq. 12 and 11).

    The weights of Adams and Bashforth for even steps, whatever the steps in sigma are, on the
    predicted noise ``(x - denoised) / sigma``; then DDIM's step with it, here
    ``x_next = x + (sigma_next - sigma) eps``. Second order on a grid even in t, as the paper shows;
    on a grid even in sigma the fourth.

    It begins as latent diffusion's PLMS and diffusers' PNDMScheduler with ``skip_prk_steps`` do:
    one step of Heun's method (one evaluation more), then 2 and 3 slopes; the paper's own
    beginning, three pseudo Runge-Kutta steps, takes nine more. Of a network that predicts v
    diffusers mixes the v of several steps; the paper's noise is mixed here. Deterministic:
    ``noise`` is not used.
    """
    slopes: list[Tensor] = []
    for step, sigma, sigma_next in steps(sigmas):
        denoised = denoise_at(denoise, x, sigma)
        if callback is not None:
            callback(step, x, sigma, denoised)
        slopes = [(x - denoised) / sigma, *slopes][:4]
        if len(slopes) == 1:
            x = heun_step(denoise, x, denoised, sigma, sigma_next)
        else:
            slope = combine(_EVEN_STEPS[len(slopes)], slopes)
            x = x.add(slope, alpha=sigma_next - sigma)
    return x


def sample_deis(
    denoise: DenoiseFn,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn | None = None,
    callback: Callback | None = None,
    order: int = 3,
) -> Tensor:
    """Diffusion exponential integrator sampler, tAB-DEIS in log rho (Zhang & Chen 2022, arXiv
    2204.13902, Eq. 14-15).

    ``x_next = x + integral of P(log sigma) d sigma`` over the step, P the polynomial through the
    last ``order`` predicted noises ``(x - denoised) / sigma``. The paper's rho is sigma in this
    coordinate; its polynomials are in t, which a grid of sigmas does not have, so they are in
    log rho, as in diffusers. (In rho itself it is :func:`sample_lms`.) With a grid that ends at 0
    the order falls by one in each of the last steps, to 1 in the step to 0. With one that ends
    above, the order stays: nothing is singular there. diffusers lowers it then too, below 15 steps,
    unless ``lower_order_final`` is off. Deterministic: ``noise`` is not used.

    Raises:
        UserError: order outside 1 .. 3.
    """
    _check_order("DEIS", order, (1, 2, 3))
    slopes: list[Tensor] = []
    logs: list[float] = []
    for step, sigma, sigma_next in steps(sigmas):
        denoised = denoise_at(denoise, x, sigma)
        if callback is not None:
            callback(step, x, sigma, denoised)
        slopes, logs = [(x - denoised) / sigma, *slopes][:order], [math.log(sigma), *logs][:order]
        used = _usable(len(slopes), step, sigmas)
        if used == 1:
            x = torch.lerp(denoised, x, sigma_next / sigma)
        else:
            # d sigma = sigma_next exp(s - log sigma_next) ds
            end = math.log(sigma_next)
            weights = lagrange_integrals(logs[:used], logs[0], end, rate=1)
            x = x.add(combine(weights, slopes[:used]), alpha=sigma_next)
    return x


def sample_unipc(
    denoise: DenoiseFn,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn | None = None,
    callback: Callback | None = None,
    order: int = 2,
) -> Tensor:
    """UniPC, a predictor and a corrector from the same evaluations (Zhao et al. 2023, arXiv
    2302.04867, Algorithms 1-2, data prediction, B2(h) = e^h - 1).

    The predictor of order p solves the ODE exactly, in log sigma, for a polynomial through the last
    p denoised signals; when the next one is there, the corrector repeats that step with it as one
    more point, which raises the order to p + 1 and costs no evaluation. Solving Eq. 10 for all its
    weights gives that same polynomial whatever B is. With one unknown (p = 2 predicting, p = 1
    correcting) the paper sets it to 1/2 and B matters; so here.

    ``callback`` sees the predicted x, for which denoised was found. With a grid that ends at 0 the
    order falls by one in each of the last steps, to 1 in the step to 0, as in diffusers.
    Deterministic: ``noise`` is not used.

    Raises:
        UserError: order outside 1 .. 3.
    """
    _check_order("UniPC", order, (1, 2, 3))
    past: list[Tensor] = []  # denoised signals, newest first
    logs: list[float] = []  # their -log sigma
    before, used = x, 0  # the corrected state a step ago, and the order of the prediction from it
    for step, sigma, sigma_next in steps(sigmas):
        denoised = denoise_at(denoise, x, sigma)
        if callback is not None:
            callback(step, x, sigma, denoised)
        now = -math.log(sigma)
        if used:
            target = _unipc_target([denoised, *past[:used]], [now, *logs[:used]], logs[0], now)
            x = torch.lerp(target, before, math.exp(logs[0] - now))
        past, logs = [denoised, *past][:order], [now, *logs][:order]
        used = _usable(len(past), step, sigmas)
        before = x
        if used == 1:
            x = torch.lerp(denoised, x, sigma_next / sigma)
        else:
            target = _unipc_target(past[:used], logs[:used], now, -math.log(sigma_next))
            x = torch.lerp(target, x, sigma_next / sigma)
    return x


def _unipc_target(denoised: list[Tensor], nodes: list[float], start: float, end: float) -> Tensor:
    """What x is drawn towards in a step: ``x_next = target + exp(start - end) (x - target)``."""
    if len(nodes) == 2:
        # The paper's 1/2: the polynomial's value in the middle of the step.
        middle = (start + end) / 2
        return torch.lerp(denoised[0], denoised[1], (middle - nodes[0]) / (nodes[1] - nodes[0]))
    return exponential_target(denoised, nodes, start, end, rate=1)


def _usable(points: int, step: int, sigmas: Tensor) -> int:
    """How many of the points to use: fewer near the end of a grid that ends at 0."""
    left = len(sigmas) - 1 - step
    return min(points, left) if sigmas[-1] == 0 else points


def _check_order(who: str, order: int, allowed: tuple[int, ...]) -> None:
    if order not in allowed:
        raise UserError(f"the order of {who} is one of {', '.join(map(str, allowed))}, not {order}")
