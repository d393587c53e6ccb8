"""Guidance gradients: any differentiable loss of the denoised estimate steers the sampler.

Levy et al. 2023, "Controllable Music Production with Diffusion Models and Guidance Gradients"
(arXiv 2311.00613); the same idea with other steps is DPS (2209.14687), universal guidance
(2302.07121), FreeDoM (2303.09833) and, in sound, CQTdiff (2210.15228).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shared.denoiser import DenoiseFn
from shared.errors import UserError
from shared.guidance.compose import EVERYWHERE, check_range, inside
from shared.guidance.pullback import gradient_of, pull_back
from shared.guidance.steps import Step


@dataclass(frozen=True)
class Loss:
    """One thing that the result should have.

    Attributes:
        function: denoised (b c h w) -> (b,), differentiable, each sample by itself. A loss of the
            picture or the sound calls the codec's decoder first.
        weight: of several losses the weighted sum is followed; 0 is off.
        sigma_range: it counts only where low < sigma <= high; see :func:`step_range`.

    Raises:
        UserError: no range.
    """

    function: Callable[[Tensor], Tensor]
    weight: float = 1.0
    sigma_range: tuple[float, float] = EVERYWHERE

    def __post_init__(self) -> None:
        check_range(self.sigma_range)


def step_range(sigmas: Tensor, first: int, last: int) -> tuple[float, float]:
    """The sigma range of steps first .. last - 1 on a grid (n + 1,), for ``sigma_range``.

    Raises:
        UserError: not 0 <= first < last <= n.
    """
    n = len(sigmas) - 1
    if not 0 <= first < last <= n:
        raise UserError(f"a span of steps is first, last within 0 .. {n}, not {first}, {last}")
    return sigmas[last].item(), sigmas[first].item()


def gradient(
    denoise: DenoiseFn,
    losses: Sequence[Loss],
    step: Step,
    through_denoiser: bool = True,
) -> DenoiseFn:
    """Move the estimate so that the losses fall: ``denoised + step(g, sigma)``.

    ``g = grad_x sum_i weight_i * loss_i(denoise(x, sigma))``, by x and so *through* the denoiser:
    about three times the cost of one evaluation, and the memory of a training step. The move's
    size, and with it the paper that is followed, is the ``step`` (:mod:`shared.guidance.steps`).

    For gradients, ``denoise`` and its conditioning must have been made outside of
    ``torch.inference_mode``; whether the caller is inside does not matter.

    Args:
        losses: followed together; with none in force at a noise level, ``denoise`` itself.
        through_denoiser: False takes the gradient by denoised only, as if ``J = 1``: no more
            costly than the losses, but the estimate moves without the prior's say.

    Raises:
        UserError: when called, a loss of another shape than (b,), or no gradient.
    """
    losses = [loss for loss in losses if loss.weight != 0]
    if not losses:
        return denoise

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        active = [(loss, inside(sigma, loss.sigma_range)) for loss in losses]
        active = [
            (loss, chosen)
            for loss, chosen in active
            # no look at sigma's value, which on a GPU would wait, where there is nothing to choose
            if loss.sigma_range == EVERYWHERE or chosen.any()
        ]
        if not active:
            return denoise(x, sigma)

        def direction(denoised: Tensor) -> Tensor:
            total = torch.zeros_like(denoised)
            for loss, chosen in active:
                slope = gradient_of(loss.function, denoised, "a guidance loss")
                total += torch.where(chosen[:, None, None, None], loss.weight * slope, 0)
            return total

        denoised, pulled = pull_back(denoise, x, sigma, direction, through_denoiser)
        return denoised + step(pulled, sigma)

    return guided
