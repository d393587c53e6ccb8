"""How far a guidance gradient moves the estimate: a ``Step``, (gradient, sigma) -> move.

The gradient is that of the loss by x, g (b c h w), in this coordinate; the move is added to
denoised. Variance-preserving states are ``x / sqrt(1 + sigma^2)``, so gradients by them are
``sqrt(1 + sigma^2) g``.

A ``DenoiseFn`` sees one noise level at a time and cannot touch the state after the step. What the
papers do there is still exact as a move of denoised, if the sampler is of first order: it then
steps to ``denoised + share * (x - denoised) + noise``, so that a move by ``m / (1 - share)`` shifts
the next state by m. That needs the sampler's grid and eta. With samplers of higher order these
steps are an approximation; ``score_step`` and ``normalised_step`` are at home in any.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from shared.errors import UserError
from shared.guidance.compose import kept_share, per_sample

Step = Callable[[Tensor, Tensor], Tensor]
"""(gradient (b c h w), sigma (b,)) -> what is added to denoised (b c h w)."""


def score_step(xi: float) -> Step:
    """``-xi sigma^2 g``: sampling from p(x0) exp(-xi * loss), as far as the loss of x is right.

    By Tweedie's formula this adds ``-xi g`` to the score, as classifier guidance does (Dhariwal &
    Nichol 2021, Algorithm 2). It is the guidance-gradient DDIM form with x0 estimated anew from the
    moved noise: ``noise + xi sigma g``, and denoised is ``x - sigma * noise``.
    """
    _check("xi", xi)
    return lambda gradient, sigma: gradient * per_sample(-xi * sigma.square())


def ddpm_step(xi: float, sigmas: Tensor, eta: float = 1.0) -> Step:
    """The paper's DDPM form: after the step, ``x <- x - xi * grad_x_t loss`` (2311.00613, Alg. 1).

    Both are variance-preserving states there, so here the next state moves by
    ``-xi sqrt((1 + sigma^2) (1 + sigma_next^2)) g``. Constant xi: 3e-2 for
    their latents, 3e-3 for waveforms. It is also DPS' step (Chung et al. 2022, arXiv 2209.14687,
    Algorithm 1), with xi twice its zeta' and the loss :func:`~shared.guidance.residual_norm`.

    Args:
        sigmas, eta: the sampler's grid; 1 for DDPM, 0 for Euler and plain DDIM.

    Raises:
        UserError: xi below 0, no descending grid, or eta outside 0 .. 1.
    """
    _check("xi", xi)
    share_of = kept_share(sigmas, eta)

    def step(gradient: Tensor, sigma: Tensor) -> Tensor:
        share, sigma_next = share_of(sigma)
        scale = ((1 + sigma.square()) * (1 + sigma_next.square())).sqrt()
        return gradient * per_sample(-xi * scale / (1 - share))

    return step


def ddim_step(xi: float, sigmas: Tensor, eta: float = 0.0) -> Step:
    """The paper's DDIM form: ``noise <- noise - xi sigma_t grad_x_t loss``, x0 stays (Algorithm 2).

    sigma_t is the variance-preserving ``sigma / sqrt(1 + sigma^2)``, which cancels the gradient's
    factor: the noise moves by ``-xi sigma g``, so the next state by ``sigma_down`` times that. As
    x0 is not estimated anew from it, the step to 0 is not guided.

    Args:
        sigmas, eta: the sampler's grid and eta.

    Raises:
        UserError: xi below 0, no descending grid, or eta outside 0 .. 1.
    """
    _check("xi", xi)
    share_of = kept_share(sigmas, eta)

    def step(gradient: Tensor, sigma: Tensor) -> Tensor:
        share, _ = share_of(sigma)  # sigma_down = share * sigma
        return gradient * per_sample(-xi * sigma.square() * share / (1 - share))

    return step


def normalised_step(xi: float) -> Step:
    """``-xi sigma g / rms(g)``: a root-mean-square move of xi noise levels, however steep the loss.

    CQTdiff's rule (Moliner et al. 2022, arXiv 2210.15228): a likelihood score of
    ``-xi g sqrt(N) / (sigma |g|)``, N = c h w. Where g is 0 nothing moves.

    Raises:
        UserError: xi below 0.
    """
    _check("xi", xi)

    def step(gradient: Tensor, sigma: Tensor) -> Tensor:
        unit = gradient / _rms(gradient).clamp(min=torch.finfo(gradient.dtype).tiny)
        return unit * per_sample(-xi * sigma)

    return step


def clipped_step(step: Step, most: float) -> Step:
    """The same step, its root-mean-square move in one sample at most ``most`` noise levels.

    Raises:
        UserError: most below 0.
    """
    _check("most", most)

    def clipped(gradient: Tensor, sigma: Tensor) -> Tensor:
        move = step(gradient, sigma)
        tiny = torch.finfo(move.dtype).tiny
        return move * (per_sample(most * sigma) / _rms(move).clamp(min=tiny)).clamp(max=1)

    return clipped


def even_step(step: Step, most: float) -> Step:
    """The same step, its root-mean-square move in one place (b c 1 1) at most ``most`` levels.

    For losses of a few places only: a move that is brought to one size lies all there.

    Raises:
        UserError: most below 0.
    """
    _check("most", most)

    def even(gradient: Tensor, sigma: Tensor) -> Tensor:
        move = step(gradient, sigma)
        size = move.square().mean(1, keepdim=True).sqrt()
        tiny = torch.finfo(move.dtype).tiny
        return move * (per_sample(most * sigma) / size.clamp(min=tiny)).clamp(max=1)

    return even


def _rms(values: Tensor) -> Tensor:
    """(b 1 1 1), no square of which under- or overflows."""
    largest = values.abs().amax(dim=(1, 2, 3), keepdim=True)
    largest = largest.clamp(min=torch.finfo(values.dtype).tiny)
    return largest * (values / largest).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()


def _check(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise UserError(f"{name} of a guidance step must be a number from 0, not {value}")
