"""What the kinds of guidance have in common: composing, and acting on some noise levels only."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from shared.denoiser import DenoiseFn
from shared.errors import UserError

Guidance = Callable[[DenoiseFn], DenoiseFn]
"""One kind of guidance with everything but the denoiser bound, such as by ``functools.partial``."""

EVERYWHERE = (0.0, math.inf)
"""The range low < sigma <= high that holds every noise level."""


def compose(denoise: DenoiseFn, *guidances: Guidance) -> DenoiseFn:
    """Apply several kinds of guidance, the first innermost; none gives ``denoise`` itself.

    ``compose(denoise, partial(gradient, losses=losses, step=step), partial(known_region, ...))``.
    """
    for guidance in guidances:
        denoise = guidance(denoise)
    return denoise


def inside(sigma: Tensor, sigma_range: tuple[float, float]) -> Tensor:
    """Where low < sigma <= high: (b,) -> (b,) bool."""
    low, high = sigma_range
    return (sigma > low) & (sigma <= high)


def within(guided: DenoiseFn, outside: DenoiseFn, sigma_range: tuple[float, float]) -> DenoiseFn:
    """``guided`` where low < sigma <= high, ``outside`` elsewhere; calls only what is needed.

    Raises:
        UserError: not 0 <= low < high.
    """
    check_range(sigma_range)
    if sigma_range == EVERYWHERE:
        return guided  # no look at sigma's value, which on a GPU would wait for the device

    def ranged(x: Tensor, sigma: Tensor) -> Tensor:
        chosen = inside(sigma, sigma_range)  # b
        if not chosen.any():
            return outside(x, sigma)
        if chosen.all():
            return guided(x, sigma)
        return torch.where(per_sample(chosen), guided(x, sigma), outside(x, sigma))

    return ranged


def check_range(sigma_range: tuple[float, float]) -> None:
    low, high = sigma_range
    if not 0 <= low < high:
        raise UserError(f"a sigma range is low, high with 0 <= low < high, not {low}, {high}")


def per_sample(values: Tensor) -> Tensor:
    """(b,) -> (b 1 1 1)"""
    return values[:, None, None, None]


def kept_share(sigmas: Tensor, eta: float) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """How a first-order sampler on this grid uses the denoised estimate: sigma -> share, next.

    DDIM with ``eta``, so Euler and Euler ancestral too, and DDPM with eta 1 (posterior variance)
    step to ``denoised + share * (x - denoised) + noise``, share = sigma_down / sigma: a move of
    denoised by d moves their next state by (1 - share) * d. The function returned gives share and
    the next level of the grid, (b,) each, for sigma (b,); between levels it takes the next below.

    Raises:
        UserError: sigmas not descending to 0 or more, or eta outside 0 .. 1.
    """
    if sigmas.ndim != 1 or len(sigmas) < 2 or sigmas[-1] < 0 or not (sigmas.diff() < 0).all():
        raise UserError("sigmas must be at least two noise levels, descending, none below 0")
    if not 0 <= eta <= 1:
        raise UserError(f"eta must be between 0 and 1, not {eta}")
    ascending = sigmas.flip(0).contiguous()

    def share(sigma: Tensor) -> tuple[Tensor, Tensor]:
        table = ascending.to(sigma)
        below = torch.searchsorted(table, sigma.contiguous()) - 1  # the last that is < sigma
        sigma_next = torch.where(below >= 0, table[below.clamp(min=0)], 0)
        ratio = sigma_next / sigma
        return ratio * (1 - eta**2 * (1 - ratio.square())).sqrt(), sigma_next

    return share
