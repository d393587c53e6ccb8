"""Samplers that go back up: to a level they have left, or from a clean signal to the next one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from shared.denoiser import DenoiseFn
from shared.errors import UserError
from shared.noise import NoiseFn
from shared.samplers.common import Callback, add_noise, denoise_at, in_turn, required, steps
from shared.samplers.ode import heun_step
from shared.schedules import karras


@dataclass(frozen=True)
class RestartInterval:
    """Where :func:`sample_restart` goes back up.

    Attributes:
        low, high: noise levels, 0 < low < high: from low up to high and down again.
        steps: of Heun's method on the way down, 1 or more.
        times: how often, 1 or more.

    Raises:
        UserError: values outside these.
    """

    low: float
    high: float
    steps: int = 3
    times: int = 1

    def __post_init__(self) -> None:
        if not (0 < self.low < self.high < math.inf and self.steps >= 1 and self.times >= 1):
            raise UserError(
                "a restart interval needs 0 < low < high, steps >= 1 and times >= 1, not "
                f"low {self.low}, high {self.high}, steps {self.steps}, times {self.times}"
            )


# The paper tunes intervals to each model (Table 3 and appendix C; for CIFAR-10 0.06 to 0.20 ten
# times). This one, about where detail is settled, suits data of unit variance and costs 12
# evaluations.
DEFAULT_RESTARTS = (RestartInterval(low=0.1, high=0.4, steps=3, times=2),)


def sample_restart(
    denoise: DenoiseFn,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn | None = None,
    callback: Callback | None = None,
    restarts: Sequence[RestartInterval] = DEFAULT_RESTARTS,
    s_noise: float = 1.0,
) -> Tensor:
    """Restart sampling (Xu et al. 2023, arXiv 2306.14878, Eq. 3-4 and Algorithm 1).

    Heun's method down the grid; having reached an interval's ``low``, add noise of
    ``sqrt(high^2 - low^2)``, which brings x to ``high``, and solve down again over ``steps`` levels
    of Karras's grid, ``times`` times over. Each round forgets part of the error made so far, while
    the steps in between keep the ODE's order.

    ``low`` is moved to the nearest level of the grid between its first and 0, as in the paper; an
    interval whose ``high`` is not above that level is left out. ``callback`` is called in the
    grid's own steps only. ``s_noise`` scales the noise. Without intervals it is
    :func:`sample_heun`.

    Raises:
        UserError: no ``noise``.
    """
    draw = in_turn(required(noise, "the restart sampler"), x)
    due = _restarts_after(sigmas, restarts)
    for step, sigma, sigma_next in steps(sigmas):
        denoised = denoise_at(denoise, x, sigma)
        if callback is not None:
            callback(step, x, sigma, denoised)
        x = heun_step(denoise, x, denoised, sigma, sigma_next)
        for interval in due.get(step, ()):
            levels = karras(interval.steps + 1, sigma_next, interval.high)[:-1].tolist()
            levels[-1] = sigma_next  # and not what float32 made of it
            scale = s_noise * math.sqrt(levels[0] ** 2 - sigma_next**2)
            for _ in range(interval.times):
                x = x.add(draw(), alpha=scale)
                for high, low in pairwise(levels):
                    x = heun_step(denoise, x, denoise_at(denoise, x, high), high, low)
    return x


def _restarts_after(
    sigmas: Tensor, restarts: Sequence[RestartInterval]
) -> dict[int, list[RestartInterval]]:
    """The intervals to go through after each step."""
    reached = [(step, low) for step, _, low in steps(sigmas) if low > 0]
    due: dict[int, list[RestartInterval]] = {}
    for interval in restarts:
        if not reached:
            break
        step, level = min(reached, key=lambda entry: abs(entry[1] - interval.low))
        if level < interval.high:
            due.setdefault(step, []).append(interval)
    return due


def sample_lcm(
    denoise: DenoiseFn,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Multistep consistency sampling (Song et al. 2023, arXiv 2303.01469, Algorithm 1; for latents
    Luo et al. 2023, LCM, arXiv 2310.04378, Algorithm 3).

    ``x_next = denoised + sigma_next * noise``: jump to the clean signal, and back with new noise.
    It wants a consistency model, whose ``denoise`` says where the ODE ends and not the mean of all
    the signals that x may come from; with that, any number of steps is exact in distribution, and
    four are enough to mend the model's errors. With a plain denoiser the results are too smooth.

    The paper's smallest level epsilon is 0 here. Its boundary condition (denoised = x there) and
    LCM's scalings for it are part of the model, a parameterization, not of the sampler.

    Raises:
        UserError: no ``noise``.
    """
    noise = required(noise, "the LCM sampler")
    for step, sigma, sigma_next in steps(sigmas):
        denoised = denoise_at(denoise, x, sigma)
        if callback is not None:
            callback(step, x, sigma, denoised)
        x = add_noise(denoised, noise, step, sigma_next) if sigma_next > 0 else denoised
    return x
