"""What all samplers share: their signature, the walk down the grid, and where noise comes from."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from shared.denoiser import DenoiseFn
from shared.errors import UserError
from shared.noise import NoiseFn

Callback = Callable[[int, Tensor, float, Tensor], None]
"""(step, x, sigma, denoised) -> None"""


class SamplerFn(Protocol):
    """The signature that all samplers share; some take more keywords."""

    def __call__(
        self,
        denoise: DenoiseFn,
        x: Tensor,
        sigmas: Tensor,
        *,
        noise: NoiseFn | None = None,
        callback: Callback | None = None,
    ) -> Tensor: ...


@dataclass(frozen=True)
class Sampler:
    """A sampler and what one needs to know to choose it.

    Attributes:
        function: the sampler.
        order: the global error falls with the number of steps to this power (as an ODE solver; for
            a stochastic sampler, in distribution). 0 if more steps alone do not make it fall; None
            if it chooses its own steps, for an error that it is given.
        evaluations_per_step: calls of ``denoise``, each as costly as the network; one in the step
            to 0 for most. None if it chooses its own steps.
        stochastic: whether it adds noise in each step and so needs ``noise``.
        summary: one line for people.
        paper: authors, year and arXiv number.
    """

    function: SamplerFn
    order: int | None
    evaluations_per_step: int | None
    stochastic: bool
    summary: str
    paper: str

    def record(self, name: str) -> dict[str, Any]:
        """What one needs to know to choose it, as JSON knows it."""
        return {
            "name": name,
            "order": self.order,
            "evaluations_per_step": self.evaluations_per_step,
            "stochastic": self.stochastic,
            "summary": self.summary,
            "paper": self.paper,
        }


def steps(sigmas: Tensor) -> Iterator[tuple[int, float, float]]:
    """(step, sigma, sigma_next) as Python floats, read from the device once.

    Raises:
        UserError: fewer than two levels, or levels that do not descend to 0 or above.
    """
    levels: list[float] = sigmas.tolist()
    pairs = list(pairwise(levels))
    if not pairs or levels[-1] < 0 or not all(low < high < math.inf for high, low in pairs):
        raise UserError("sigmas must be at least two finite noise levels, descending, none below 0")
    return ((step, sigma, sigma_next) for step, (sigma, sigma_next) in enumerate(pairs))


def denoise_at(denoise: DenoiseFn, x: Tensor, sigma: float) -> Tensor:
    """``denoise`` for one level for the whole batch: x (b c h w) -> denoised (b c h w)."""
    return denoise(x, x.new_full((len(x),), sigma))


def required(noise: NoiseFn | None, who: str) -> NoiseFn:
    """``noise``, or a UserError that names who needs it."""
    if noise is None:
        raise UserError(f"{who} adds fresh noise in each step: pass noise, such as a NoiseStream")
    return noise


def required_above_0(noise: NoiseFn | None, eta: float, who: str) -> NoiseFn | None:
    """``noise`` as a sampler with ``eta`` needs it: not at all at 0, or a UserError without it.

    Raises:
        UserError: eta outside 0 .. 1, or above 0 without ``noise``.
    """
    within("eta", eta, 0, 1)
    return required(noise, who) if eta > 0 else None


def add_noise(x: Tensor, noise: NoiseFn | None, step: int, scale: float) -> Tensor:
    """x plus ``scale`` times the noise called ``step``, in x's dtype and on its device.

    x itself at scale 0, where nothing is drawn, and where there is no noise to add.
    """
    return x if noise is None or scale == 0 else x.add(noise(step).to(x), alpha=scale)


def in_turn(noise: NoiseFn, like: Tensor) -> Callable[[], Tensor]:
    """Fresh noise (b c h w) at each call, for samplers that draw more than once in a step.

    The draws are ``noise(0)``, ``noise(1)``, ... in the order in which the sampler asks, whichever
    step it is in. A ``NoiseFn`` gives independent noise for different numbers, so all are.
    """
    numbers = count()
    return lambda: noise(next(numbers)).to(like)


def within(name: str, value: float, low: float, high: float) -> None:
    """Raises a UserError unless low <= value <= high; NaN is refused as well."""
    if not low <= value <= high:
        raise UserError(f"{name} must be between {low:g} and {high:g}, not {value}")


def ancestral(sigma: float, sigma_next: float, eta: float) -> tuple[float, float]:
    """(sigma_down, sigma_up): how far to solve the ODE, and how much noise to add after it.

    ``sigma_up = eta sigma_next sqrt(1 - (sigma_next / sigma)^2)``, DDIM's Eq. 16, and
    ``sigma_down^2 + sigma_up^2 = sigma_next^2``, so an exact solution stays exactly distributed.
    """
    sigma_up = eta * sigma_next * math.sqrt(1 - (sigma_next / sigma) ** 2)
    return math.sqrt(sigma_next**2 - sigma_up**2), sigma_up


_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(8)


def lagrange_integrals(
    nodes: Sequence[float], start: float, end: float, rate: float
) -> list[float]:
    """The integrals from start to end of ``exp(rate (s - end)) L_k(s) ds``, one a node.

    L_k is Lagrange's basis polynomial, 1 at node k and 0 at the others: the sum of these times
    values at the nodes integrates the polynomial through them. Gauss's rule with 8 points is exact
    for rate 0 up to 16 nodes, and for up to 4 nodes has an error below 1e-9 where
    ``rate (end - start)`` is below 5.
    """
    half = (end - start) / 2
    total = [0.0] * len(nodes)
    for point, weight in zip(_POINTS.tolist(), _WEIGHTS.tolist(), strict=True):
        s = start + half * (1 + point)
        scale = half * weight * math.exp(rate * (s - end))
        for k, node in enumerate(nodes):
            others = [other for other in nodes if other != node]
            total[k] += scale * math.prod((s - other) / (node - other) for other in others)
    return total


def combine(weights: Sequence[float], tensors: Sequence[Tensor]) -> Tensor:
    """The sum of weights times tensors."""
    total = tensors[0] * weights[0]
    for weight, tensor in zip(weights[1:], tensors[1:], strict=True):
        total.add_(tensor, alpha=weight)
    return total


def exponential_target(
    denoised: list[Tensor], nodes: list[float], start: float, end: float, rate: float
) -> Tensor:
    """The mean of a polynomial over a step, weighted by ``exp(rate (s - end))``.

    The polynomial in s = -log sigma passes through ``denoised`` at ``nodes``. The exact solution
    of ``dx/ds = rate (D(s) - x)`` is ``target + exp(rate (start - end)) (x - target)``.
    """
    weights = lagrange_integrals(nodes, start, end, rate)
    total = sum(weights)  # the integral of the weight alone
    return combine([weight / total for weight in weights], denoised)
