"""The probability-flow ODE by an adaptive solver, and the exact likelihood that it gives.

In u = log sigma the ODE of Karras et al. 2022 (arXiv 2206.00364, Eq. 1) is

    dx / du = x - denoised(x, exp(u))

It carries data to noise and back without loss, and by the change of variables (Song et al. 2021,
arXiv 2011.13456, Eq. 39) the density of where it ends to that of where it began:

    log p(x at sigma_min) = log p(x at sigma_max) + integral of div(x - denoised) du

The solver is scipy's Runge-Kutta of order 5(4). It computes in float64 and chooses its own steps;
the denoiser gets the dtype of the state it was called with.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from shared.denoiser import DenoiseFn
from shared.errors import UserError
from shared.noise import NoiseFn

Slope = Callable[[float, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Likelihood:
    """What :func:`log_likelihood` finds.

    Attributes:
        log_p: (b,) float64, the log density of each sample in nats.
        bits_per_dim: (b,) float64, the same as bits a dimension (see :func:`bits_per_dim`).
        encoded: (b c h w), the state at ``sigma_max`` that the ODE carries each sample to.
        evaluations: how many times the denoiser was called.
    """

    log_p: Tensor
    bits_per_dim: Tensor
    encoded: Tensor
    evaluations: int


def probability_flow(
    denoise: DenoiseFn,
    x: Tensor,
    sigma_from: float,
    sigma_to: float,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Tensor:
    """The state (b c h w) at one noise level carried to another along the ODE, up or down.

    From data at a small level to ``sigma_max`` it encodes, back it decodes, and from fresh noise
    ``sigma_max * noise`` it samples. ``rtol`` and ``atol`` bound the error of each step relative to
    the state and beside it.

    Raises:
        UserError: a level not above 0 (0 itself is infinitely far in log sigma: stop at a small
            one), or a solver that cannot go on.
    """

    @torch.no_grad()
    def slope(u: float, flat: Tensor) -> Tensor:
        state = flat.reshape(x.shape).to(x)
        return (state - denoise(state, state.new_full((len(x),), math.exp(u)))).flatten()

    flat, _ = _solve(slope, x.double().flatten(), len(x), sigma_from, sigma_to, rtol, atol)
    return flat.reshape(x.shape).to(x)


def log_likelihood(
    denoise: DenoiseFn,
    x0: Tensor,
    *,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    data_mean: Tensor | float = 0.0,
    data_std: float = 1.0,
    noise: NoiseFn | None = None,
    probes: int = 1,
    bin_width: float = 1.0,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Likelihood:
    """The log density of samples x0 (b c h w) under the model, by the ODE.

    x0 is taken as the state at ``sigma_min``, so what is found is the density of data with that
    much noise. At ``sigma_max`` the density is taken as a Gaussian's around ``data_mean`` (a number
    or (c h w)) of variance ``sigma_max^2 + data_std^2``: a variance-preserving model's unit
    Gaussian with 0 and 1, Song et al.'s for a variance-exploding one with 0 and 0. Data around
    another mean m then cost up to some ``|m| / sigma_max`` nats of error a standard deviation.

    Without ``noise`` the divergence is the exact trace of the denoiser's Jacobian: c * h * w
    backward passes an evaluation, for few dimensions. With it, it is Hutchinson's estimate (FFJORD,
    Grathwohl et al. 2018, arXiv 1810.01367; Song et al. 2021, Eq. 40): unbiased, from ``probes``
    vectors of random signs, probe k those of ``noise(k)``, kept along the whole path.

    Args:
        denoise: must let gradients through to x.
        bin_width: see :func:`bits_per_dim`.
        rtol, atol: as in :func:`probability_flow`.

    Raises:
        UserError: not 0 < sigma_min < sigma_max, probes below 1, data_std below 0, or a solver that
            cannot go on.
    """
    if sigma_max <= sigma_min:
        raise UserError(f"sigma_max must be above sigma_min, not {sigma_max} and {sigma_min}")
    if probes < 1 or data_std < 0:
        raise UserError(f"needs probes >= 1 and data_std >= 0, not {probes} and {data_std}")
    signs = [] if noise is None else [noise(k).to(x0).sign() for k in range(probes)]

    def slope(u: float, packed: Tensor) -> Tensor:
        state = packed[: x0.numel()].reshape(x0.shape).to(x0).requires_grad_()
        with torch.enable_grad():
            denoised = denoise(state, state.new_full((len(x0),), math.exp(u)))
            trace = _hutchinson(denoised, state, signs) if signs else _trace(denoised, state)
        divergence = x0[0].numel() - trace.double()
        return torch.cat([(state - denoised).detach().double().flatten(), divergence])

    start = torch.cat([x0.double().flatten(), torch.zeros(len(x0)).double().to(x0.device)])
    end, evaluations = _solve(slope, start, len(x0), sigma_min, sigma_max, rtol, atol)
    encoded, change = end[: x0.numel()].reshape(x0.shape), end[x0.numel() :]
    variance = sigma_max**2 + data_std**2
    dimensions = x0[0].numel()
    distance = (encoded - data_mean).square().flatten(1).sum(1)
    prior = -dimensions / 2 * math.log(2 * math.pi * variance) - distance / (2 * variance)
    log_p = prior + change
    return Likelihood(
        log_p=log_p,
        bits_per_dim=bits_per_dim(log_p, dimensions, bin_width),
        encoded=encoded.to(x0),
        evaluations=evaluations,
    )


def bits_per_dim(log_p: Tensor, dimensions: int, bin_width: float = 1.0) -> Tensor:
    """Log densities in nats as bits a dimension, lower is better: any shape to that shape.

    Of numbers rounded to bins (and given uniform noise of a bin's width before they were
    measured), ``bin_width`` gives the bits of the bin: 2 / 256 for 8-bit pixels in -1 .. 1.

    Raises:
        UserError: bin_width not above 0.
    """
    if not 0 < bin_width < math.inf:
        raise UserError(f"bin_width must be above 0, not {bin_width}")
    return -log_p / (dimensions * math.log(2)) - math.log2(bin_width)


def _trace(denoised: Tensor, state: Tensor) -> Tensor:
    """The trace of d denoised / d state of each sample, (b,)."""
    outputs = denoised.flatten(1).sum(0)  # samples do not mix, so one pass serves them all
    rows = (
        torch.autograd.grad(output, state, retain_graph=True)[0].flatten(1)[:, i]
        for i, output in enumerate(outputs)
    )
    return torch.stack(list(rows)).sum(0)


def _hutchinson(denoised: Tensor, state: Tensor, signs: list[Tensor]) -> Tensor:
    """The mean of ``sign^T (d denoised / d state) sign`` over the probes, (b,)."""
    products = (
        (torch.autograd.grad(denoised, state, sign, retain_graph=True)[0] * sign).flatten(1).sum(1)
        for sign in signs
    )
    return torch.stack(list(products)).mean(0)


def _solve(
    slope: Slope,
    start: Tensor,
    samples: int,
    sigma_from: float,
    sigma_to: float,
    rtol: float,
    atol: float,
) -> tuple[Tensor, int]:
    """The flat float64 state at sigma_to and how many slopes that took."""
    if not (0 < sigma_from < math.inf and 0 < sigma_to < math.inf):
        raise UserError(f"noise levels must be above 0 and finite, not {sigma_from}, {sigma_to}")
    if not start.isfinite().all():
        raise UserError("the ODE starts from finite numbers only")
    from scipy.integrate import solve_ivp  # slow to import

    def packed(u: float, state: np.ndarray) -> np.ndarray:
        slopes = slope(u, torch.from_numpy(state).to(start.device)).double().cpu().numpy()
        if not np.isfinite(slopes).all():  # scipy would shorten its steps for ever
            raise UserError(f"the denoiser gave infinite or no numbers at sigma {math.exp(u):g}")
        return slopes

    # scipy holds the mean square error of all numbers to the tolerance, in which one sample's could
    # hide among many: by sqrt(samples) less, each sample's own is held to it.
    tighter = 1 / math.sqrt(samples)
    solution = solve_ivp(
        packed,
        (math.log(sigma_from), math.log(sigma_to)),
        start.cpu().numpy(),
        method="RK45",
        t_eval=[math.log(sigma_to)],
        rtol=rtol * tighter,
        atol=atol * tighter,
    )
    if not solution.success:
        raise UserError(f"the ODE solver stopped: {solution.message}")
    return torch.from_numpy(solution.y[:, -1]).to(start.device), solution.nfev
