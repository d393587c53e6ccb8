"""The probability-flow ODE by a solver that chooses its own steps, for each sample alone."""

import math
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

from shared.denoiser import DenoiseFn
from shared.errors import UserError
from shared.noise import NoiseFn
from shared.samplers.common import Callback, combine, denoise_at, steps

# What a step aims at below the allowed error, and how much its length may change: scipy's.
_SAFETY, _SHORTEN, _LENGTHEN = 0.9, 0.2, 10.0

_Slope = Callable[[Tensor, Tensor], Tensor]  # u (b,), x (b c h w) -> dx / du
_Norm = Callable[..., Tensor]  # an error and the states it is an error of -> (b,), 1 is allowed


def sample_adaptive(
    denoise: DenoiseFn,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn | None = None,
    callback: Callback | None = None,
    rtol: float = 1e-3,
    atol: float = 1e-3,
) -> Tensor:
    """The ODE by Dormand and Prince's Runge-Kutta method of order 5(4), its steps held to an error.

    In u = log sigma the ODE of Karras et al. 2022 (arXiv 2206.00364, Eq. 1) is
    ``dx / du = x - denoised``; that an adaptive solver samples by it is Song et al. 2020 (arXiv
    2011.13456, section 4.3). It goes from the first level of the grid to the last one above 0, from
    where the step to 0 is ``denoised`` itself. Levels between are no steps: there ``callback`` gets
    what the polynomial through a step has, at no cost; its ``denoised`` is less exact than its x.

    Tableau, first step, control of the steps and that polynomial are those of scipy's ``RK45``
    (Hairer, Nørsett & Wanner, Solving Ordinary Differential Equations I, section II.4), which can
    only solve for a whole batch at once. Here every sample has its own steps, so that it does not
    depend on its batch: ``denoise`` gets another sigma for each, 6 times a step, until the slowest
    is there.

    Args:
        rtol, atol: bound the root mean square error of each step, relative to the state and beside.

    Raises:
        UserError: infinite or no numbers from the denoiser, or a tolerance that is not above 0.
    """
    if not (rtol > 0 and atol > 0):
        raise UserError(f"rtol and atol must be above 0, not {rtol} and {atol}")
    grid = list(steps(sigmas))
    levels = [sigma for _, sigma, _ in grid]
    to_zero = grid[-1][2] == 0
    if to_zero and len(levels) == 1:
        denoised = denoise_at(denoise, x, levels[0])
        if callback is not None:
            callback(0, x, levels[0], denoised)
        return denoised

    def slope_at(u: Tensor, state: Tensor) -> Tensor:
        slope = state - denoise(state, u.exp().to(state))
        if not slope.isfinite().all():  # steps would be shortened for ever
            raise UserError("the denoiser gave infinite or no numbers")
        return slope

    def norm(error: Tensor, *states: Tensor) -> Tensor:
        allowed = atol + rtol * torch.stack([state.abs() for state in states]).amax(0)
        return (error / allowed).flatten(1).square().mean(1).sqrt().cpu().double()

    nodes = [math.log(level) for level in levels]
    end = nodes[-1] if to_zero else math.log(grid[-1][2])
    x, slope = _solve(slope_at, norm, x, nodes[0], end, _watcher(callback, levels, nodes))
    return x - slope if to_zero else x


def _solve(
    slope_at: _Slope, norm: _Norm, x: Tensor, begin: float, end: float, watch: "_Watch"
) -> tuple[Tensor, Tensor]:
    """State and slope at ``end``, which is below ``begin``."""
    nodes, inner, last, estimate, _ = _tableau()
    # float64, and on the CPU: some devices have none, and what decides about steps is read anyway.
    u = torch.full((len(x),), begin, dtype=torch.float64)
    slope = slope_at(u, x)
    h = _first_step(slope_at, norm, u, x, slope, begin - end)
    refused = torch.zeros_like(u, dtype=torch.bool)
    watch(u, u, refused, x, [slope])
    while (busy := u > end).any():
        u_next = torch.where(busy, (u - h).clamp(min=end), u)
        taken = u_next - u
        width = _per_sample(taken, x)
        k = [slope]
        for share, weights in zip(nodes, inner, strict=True):
            k.append(slope_at(u + share * taken, x + width * combine(weights, k)))
        x_next = x + width * combine(last, k)
        k.append(slope_at(u_next, x_next))
        error = norm(width * combine(estimate, k), x, x_next)
        good = busy & (error < 1)
        watch(u, u_next, good, x, k)
        factor = (_SAFETY * error**-0.2).clamp(_SHORTEN, _LENGTHEN)  # infinite where error is 0
        # What was refused is not lengthened in the same step, nor what is refused ever.
        h = taken.abs() * torch.where(refused | ~good, factor.clamp(max=1), factor)
        refused = busy & ~good
        u = torch.where(good, u_next, u)
        chosen = good.to(x.device)[:, None, None, None]
        x, slope = torch.where(chosen, x_next, x), torch.where(chosen, k[-1], slope)
    return x, slope


def _first_step(
    slope_at: _Slope, norm: _Norm, u: Tensor, x: Tensor, slope: Tensor, whole: float
) -> Tensor:
    """Its length, (b,)."""
    d0, d1 = norm(x, x), norm(slope, x)
    h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1).clamp(max=whole)
    d2 = norm(slope_at(u - h0, x - _per_sample(h0, x) * slope) - slope, x) / h0
    steepest = torch.maximum(d1, d2)
    still = steepest <= 1e-15
    h1 = torch.where(still, (1e-3 * h0).clamp(min=1e-6), (0.01 / steepest) ** 0.2)
    return torch.minimum(100 * h0, h1).clamp(max=whole)


_Watch = Callable[[Tensor, Tensor, Tensor, Tensor, Sequence[Tensor]], None]
"""(u, u_next, who took that step, x at u, slopes): told of every step."""


def _watcher(callback: Callback | None, levels: list[float], nodes: list[float]) -> _Watch:
    """Calls ``callback`` for each level once all samples have passed it.

    A sample that passes in a step is there where the polynomial of that step has it.
    """
    seen: list[tuple[Tensor, Tensor, Tensor]] = []  # of each level: who passed, x, denoised
    told = 0

    def watch(u: Tensor, u_next: Tensor, good: Tensor, x: Tensor, k: Sequence[Tensor]) -> None:
        nonlocal told
        if callback is None:
            return
        if not seen:
            blank = torch.zeros_like(good)
            seen.extend((blank.clone(), x.clone(), x.clone()) for _ in nodes)
            seen[0] = (~blank, x, x - k[0])
        for level, node in enumerate(nodes):
            now = good & (u > node) & (u_next <= node)
            if now.any():
                state, slope = _between(x, u_next - u, k, (node - u) / (u_next - u))
                passed, at, denoised = seen[level]
                mask = now.to(x.device)[:, None, None, None]
                at, denoised = (
                    torch.where(mask, state, at),
                    torch.where(mask, state - slope, denoised),
                )
                seen[level] = (passed | now, at, denoised)
        while told < len(levels) and seen[told][0].all():
            callback(told, seen[told][1], levels[told], seen[told][2])
            told += 1

    return watch


def _between(x: Tensor, taken: Tensor, k: Sequence[Tensor], share: Tensor) -> tuple[Tensor, Tensor]:
    """State and slope at a share (b,) of a step from x."""
    powers = [combine(column, k) for column in _tableau()[4]]  # 4 of (b c h w)
    s = _per_sample(share, x)
    state, slope = torch.zeros_like(x), torch.zeros_like(x)
    for n, power in enumerate(powers):
        state = state + power * s ** (n + 1)
        slope = slope + (n + 1) * power * s**n
    return x + _per_sample(taken, x) * state, slope


@cache
def _tableau() -> tuple[
    list[float], list[list[float]], list[float], list[float], list[list[float]]
]:
    """Of scipy's RK45: stages' places and weights, the result's, the error's, the polynomial's."""
    from scipy.integrate import RK45  # slow to import

    inner = [row[:n].tolist() for n, row in enumerate(RK45.A) if n]
    return RK45.C[1:].tolist(), inner, RK45.B.tolist(), RK45.E.tolist(), RK45.P.T.tolist()


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like)[:, None, None, None]  # b -> b 1 1 1
