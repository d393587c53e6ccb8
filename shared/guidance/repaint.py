"""Walks that also go back to noisier levels: RePaint's resampling and FreeDoM's time travel.

A walk is a path over a grid of n + 1 sigmas: indices that start at 0 and end at n. One index up is
a sampling step, any number down adds noise. Going back and denoising again lets what was imposed on
the state (a known region, a guidance) and the rest of it settle with each other.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from shared.denoiser import DenoiseFn
from shared.errors import UserError
from shared.noise import NoiseFn
from shared.samplers import Callback


def repaint_path(steps: int, jump_length: int = 10, jump_count: int = 10) -> list[int]:
    """RePaint's schedule (Lugmayr et al. 2022, arXiv 2201.09865, appendix B), as grid indices.

    On reaching 1, 1 + jump_length, 1 + 2 jump_length ... steps before the end, as long as a whole
    jump fits, the walk goes back jump_length steps, so that each such stretch is denoised
    ``jump_count`` times. The paper: 250 steps (t_T), jump length 10, 10 times. A count of 1 is the
    straight walk.

    Raises:
        UserError: a number below 1, or jumps that nowhere fit.
    """
    if min(steps, jump_length, jump_count) < 1:
        raise UserError("RePaint's steps, jump length and jump count must be at least 1")
    if jump_count > 1 and jump_length >= steps:
        raise UserError(f"a jump of {jump_length} does not fit into {steps} steps")
    jumps = {level + 1: jump_count - 1 for level in range(0, steps - jump_length, jump_length)}
    left, path = steps, [0]  # left: steps to the end
    while left > 0:
        left -= 1
        path.append(steps - left)
        if jumps.get(left, 0) > 0:
            jumps[left] -= 1
            left += jump_length
            path.append(steps - left)
    return path


def time_travel_path(
    steps: int, repeats: int, first: int = 0, last: int | None = None
) -> list[int]:
    """Each of the steps first .. last - 1 made ``repeats`` times (FreeDoM, 2303.09833, Alg. 2).

    After a step the walk returns to where it began, with fresh noise; 1 is the straight walk.

    Raises:
        UserError: repeats below 1, or not 0 <= first < last <= steps.
    """
    last = steps if last is None else last
    if repeats < 1 or not 0 <= first < last <= steps:
        raise UserError(
            "time travel repeats steps first .. last - 1 at least once, within "
            f"0 .. {steps}; got {repeats} times, {first} .. {last}"
        )
    path = [0]
    for step in range(steps):
        path += [step + 1, step] * (repeats - 1 if first <= step < last else 0) + [step + 1]
    return path


def sample_path(
    denoise: DenoiseFn,
    x: Tensor,
    sigmas: Tensor,
    path: Sequence[int],
    *,
    noise: NoiseFn,
    callback: Callback | None = None,
    eta: float = 1.0,
    known: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Walk a path with DDIM steps (eta 1 is DDPM), perhaps with a known region.

    A step down from sigma to sigma_next is that of :func:`~shared.samplers.sample_ddim`; after it,
    the known region becomes ``known + sigma_next * noise``. Going back from sigma to a higher one
    adds noise of variance ``sigma_higher^2 - sigma^2``, the forward process.

    Args:
        x: (b c h w), the state at sigmas[0].
        sigmas: (n + 1,), descending.
        path: m + 1 indices into sigmas, from 0 to n (see the module).
        noise: move k = 0 .. m - 1 of the path takes ``noise(k)``, the known region after it
            ``noise(m + k)``: so a straight path without one is ``sample_ddim`` to the bit.
        callback: called for every step down with (move, x, sigma, denoised).
        known, mask: (b c h w) and its region, 1 where known; both or neither.

    Raises:
        UserError: a path or grid that is none, eta outside 0 .. 1, or known without mask.
    """
    levels: list[float] = sigmas.tolist()
    if len(levels) < 2 or levels[-1] < 0 or any(b >= a for a, b in pairwise(levels)):
        raise UserError("sigmas must be at least two noise levels, descending, none below 0")
    _check_path(path, len(levels) - 1)
    if not 0 <= eta <= 1:
        raise UserError(f"eta must be between 0 and 1, not {eta}")
    if (known is None) != (mask is None):
        raise UserError("a known region takes both: what is known, and the mask of where")
    moves = len(path) - 1
    for move, (here, there) in enumerate(pairwise(path)):
        sigma, sigma_next = levels[here], levels[there]
        if there < here:
            up = math.sqrt(sigma_next**2 - sigma**2)
            x = x.add(noise(move).to(x), alpha=up)
            continue
        denoised = denoise(x, x.new_full((len(x),), sigma))
        if callback is not None:
            callback(move, x, sigma, denoised)
        sigma_up = eta * sigma_next * math.sqrt(1 - (sigma_next / sigma) ** 2)
        sigma_down = math.sqrt(sigma_next**2 - sigma_up**2)
        x = torch.lerp(denoised, x, sigma_down / sigma)
        if sigma_up > 0:
            x = x.add(noise(move).to(x), alpha=sigma_up)
        if known is not None and mask is not None:
            target = known.to(x).expand_as(x)
            if sigma_next > 0:
                target = target.add(noise(moves + move).to(x), alpha=sigma_next)
            x = torch.lerp(x, target, mask.to(x))
    return x


def sample_repaint(
    denoise: DenoiseFn,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn,
    known: Tensor,
    mask: Tensor,
    callback: Callback | None = None,
    jump_length: int = 10,
    jump_count: int = 10,
    eta: float = 1.0,
) -> Tensor:
    """Inpaint by RePaint (Lugmayr et al. 2022, arXiv 2201.09865, Algorithm 1).

    After every step the known region is replaced by itself at that noise level (Eq. 8), and the
    walk goes back and forth as :func:`repaint_path` says. Works on any grid of sigmas. Going back
    is one draw for the whole jump, which is distributed as the paper's single steps are.

    Args:
        x, sigmas, noise, callback, eta: as for :func:`sample_path`.
        known, mask: (b c h w), and 1 where it is to be kept.
        jump_length, jump_count: j and r; a count of 1 is plain replacement.

    Raises:
        UserError: as :func:`repaint_path` and :func:`sample_path`.
    """
    path = repaint_path(len(sigmas) - 1, jump_length, jump_count)
    return sample_path(
        denoise,
        x,
        sigmas,
        path,
        noise=noise,
        callback=callback,
        eta=eta,
        known=known,
        mask=mask,
    )


def _check_path(path: Sequence[int], n: int) -> None:
    ends = len(path) >= 2 and path[0] == 0 and path[-1] == n
    inside = all(0 <= index <= n for index in path)
    if not (ends and inside and all(b == a + 1 or b < a for a, b in pairwise(path))):
        raise UserError(f"a path goes from 0 to {n}, one up or any number down at a time")
