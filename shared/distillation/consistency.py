"""Consistency models: from any level to the end of the ODE in one call.

Song et al. 2023 (arXiv 2303.01469). The student's answers at two neighbouring levels of one path
must agree, and at the cleanest its answer is x itself, by its parameterization
(:func:`shared.parameterization.consistency`); so all of them are the path's end.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from shared.denoiser import DenoiseFn
from shared.distillation.steps import heun_step, per_sample
from shared.schedules import NOISY_ENOUGH, NoiseSchedule
from shared.sigma_grids import karras

HUBER_C = 0.00054
"""Below errors of this size the metric is a square; of samples with unit variance."""


def consistency_distillation_loss(
    student: DenoiseFn,
    teacher: DenoiseFn,
    x0: Tensor,
    noise: Tensor,
    sigmas: Tensor,
    c: float = HUBER_C,
) -> Tensor:
    """The loss (b,) of Algorithm 2: the teacher's ODE, by one step of Heun's, tells the neighbour.

    Args:
        sigmas: (b 2) a level and the next cleaner one, as :func:`doubling_pairs` draws them.
        c: of :func:`pseudo_huber`.
    """
    sigma, sigma_next = sigmas.unbind(1)
    x = x0 + per_sample(sigma) * noise
    with torch.no_grad():
        x_next = heun_step(teacher, x, sigma, sigma_next)
    return _disagreement(student, x, x_next, sigma, sigma_next, c)


def consistency_training_loss(
    student: DenoiseFn,
    teacher: DenoiseFn,
    x0: Tensor,
    noise: Tensor,
    sigmas: Tensor,
    c: float = HUBER_C,
) -> Tensor:
    """The loss (b,) of Algorithm 3: the data tell the neighbour, ``x0 + sigma_next * noise``.

    No teacher is asked. Its expectation differs from distillation's by what vanishes as the levels
    draw near to each other (theorem 2); begun with a trained denoiser's weights it is easy
    consistency tuning (Geng et al. 2024, arXiv 2406.14548).

    Args:
        sigmas: (b 2) a level and the next cleaner one, as :func:`easy_pairs` draws them.
        c: of :func:`pseudo_huber`.
    """
    sigma, sigma_next = sigmas.unbind(1)
    x, x_next = x0 + per_sample(sigma) * noise, x0 + per_sample(sigma_next) * noise
    return _disagreement(student, x, x_next, sigma, sigma_next, c)


def _disagreement(
    student: DenoiseFn, x: Tensor, x_next: Tensor, sigma: Tensor, sigma_next: Tensor, c: float
) -> Tensor:
    """How far the student's answers at two levels differ, (b,); only the noisier one is taught.

    Weighted by one over how far apart the levels are, as in both papers' training, but counted
    in a variance-preserving state: ``sqrt(1 + sigma^2) / (sigma - sigma_next)``. Above sigma 1 the
    plain difference would leave nothing of the noisy levels, where sampling begins.
    """
    with torch.no_grad():
        # The same weights and no average of older ones: improved consistency training
        # (Song & Dhariwal 2023, arXiv 2310.14189, section 3.2).
        target = student(x_next, sigma_next)
    weight = (1 + sigma.square()).sqrt() / (sigma - sigma_next)
    return weight * pseudo_huber(student(x, sigma) - target, c)


def pseudo_huber(error: Tensor, c: float = HUBER_C) -> Tensor:
    """``sqrt(rms^2 + c^2) - c`` of the root mean square of an error (b c h w): (b,).

    The metric of Song & Dhariwal 2023 (arXiv 2310.14189, section 3.3), divided by sqrt(d) so that
    its size does not depend on that of the sample: errors above c all pull with the same force, so
    that few wild ones do not drown the rest.
    """
    return (error.square().flatten(1).mean(1) + c**2).sqrt() - c


def noisiest_next(schedule: NoiseSchedule) -> float:
    """The noisiest level that is a next one: from noisier ones the step leads here at once."""
    return min(schedule.sigma_max, NOISY_ENOUGH)


def easy_pairs(sigma: Tensor, progress: float, schedule: NoiseSchedule, stages: int = 8) -> Tensor:
    """Levels (b 2) of easy consistency tuning (arXiv 2406.14548, Eq. 18, with q 2, k 8 and b 1).

    ``sigma_next = sigma * (1 - n(sigma) / 2^stage)``, ``n(sigma) = 1 + 8 / (1 + e^sigma)``, at
    least 0: in the first stage the next level is 0 or far off, which is what the trained denoiser
    knows; then it draws nearer, by half in each stage.

    Args:
        sigma: (b,) levels that were drawn.
        progress: the share of the run that is done, in [0, 1); its stages are equally long.
    """
    stage = 1 + min(int(progress * stages), stages - 1)
    n = 1 + 8 * torch.sigmoid(-sigma)
    sigma_next = (sigma * (1 - n / 2**stage)).clamp(0, noisiest_next(schedule))
    return torch.stack([sigma, sigma_next], 1)


def doubling_pairs(
    sigma: Tensor, progress: float, schedule: NoiseSchedule, stages: int = 5, first: int = 10
) -> Tensor:
    """Levels (b 2) of a Karras grid of ``first`` steps, of twice as many in each further stage.

    Improved consistency training's curriculum (arXiv 2310.14189, section 3.4). A step is as likely
    as a level that was drawn is to lie within it (section 3.5, for log-normal draws).

    Args:
        sigma: (b,) levels that were drawn; each becomes the upper end of the step that it is in.
        progress: the share of the run that is done, in [0, 1); its stages are equally long.
    """
    count = first * 2 ** min(int(progress * stages), stages - 1)
    grid = karras(count + 1, schedule.sigma_min, noisiest_next(schedule))[:-1].flip(0)
    upper = torch.searchsorted(grid, sigma.contiguous()).clamp(1, count)  # a level ends its step
    # What is noisier than the grid stays where it is and steps onto the grid's end; what is its
    # end, but for rounding, does not: no loss is divided by such a step.
    beyond = sigma > 1.01 * grid[-1]
    high = torch.where(beyond, sigma, grid[upper])
    return torch.stack([high, torch.where(beyond, grid[-1], grid[upper - 1])], 1)


LevelPairs = Callable[[Tensor, float, NoiseSchedule, int], Tensor]
"""(levels drawn (b,), progress, schedule, stages) -> a level and the next cleaner one (b 2)."""

LEVEL_PAIRS: dict[str, LevelPairs] = {"easy": easy_pairs, "doubling": doubling_pairs}

CONSISTENCY_LOSSES = {
    "teacher": consistency_distillation_loss,
    "data": consistency_training_loss,
}
