"""Progressive distillation: a student of N steps that goes where its teacher goes in 2N.

Salimans & Ho 2022 (arXiv 2202.00512, Algorithm 2), round after round, each student the next
teacher. A round may join more than two steps: its targets cost more, but no round's errors are
handed on, which pays where training is short.
"""

from __future__ import annotations

import torch
from torch import Tensor

from shared.denoiser import DenoiseFn
from shared.distillation.steps import ddim_step, per_sample, snr_weighted


def progressive_target(teacher: DenoiseFn, x: Tensor, sigmas: Tensor) -> Tensor:
    """What denoised must be for one DDIM step to arrive where k of the teacher's do.

    The paper's x-tilde, there for k = 2. Two steps whose levels fall by r1 and then by r2, and that
    take D1 and D2, are one with ``((1 - r2) D2 + r2 (1 - r1) D1) / (1 - r1 r2)``: a mean of the
    two, x itself cancels. Any number of steps is joined by that, one after the other.

    Args:
        x: (b c h w) at ``sigmas[:, 0]``.
        sigmas: (b k+1) levels at the beginning and the end of each step; the last may be 0.
    """
    target = denoised = teacher(x, sigmas[:, 0])
    for i in range(1, sigmas.shape[1] - 1):
        x = ddim_step(x, denoised, sigmas[:, i - 1], sigmas[:, i])
        denoised = teacher(x, sigmas[:, i])
        r1, r2 = sigmas[:, i] / sigmas[:, 0], sigmas[:, i + 1] / sigmas[:, i]
        target = torch.lerp(denoised, target, per_sample(r2 * (1 - r1) / (1 - r1 * r2)))
    return target


def progressive_loss(
    student: DenoiseFn, teacher: DenoiseFn, x0: Tensor, noise: Tensor, sigmas: Tensor
) -> Tensor:
    """The loss (b,) at the levels of :func:`coarse_steps`; see :data:`shared.distillation.Loss`."""
    sigma = sigmas[:, 0]
    x = x0 + sigma[:, None, None, None] * noise
    with torch.no_grad():
        target = progressive_target(teacher, x, sigmas)
    return snr_weighted(student(x, sigma) - target, sigma)


def coarse_steps(grid: Tensor, uniforms: Tensor, factor: int = 2) -> Tensor:
    """Which of the student's steps each sample learns: levels (b factor+1), of the teacher's grid.

    Args:
        grid: (factor N + 1,) the teacher's levels, descending, the last 0; the student's are one
            in ``factor``.
        uniforms: (b,) random numbers in [0, 1): all N steps are as likely.
    """
    count = (len(grid) - 1) // factor
    step = (uniforms * count).long().clamp(max=count - 1)
    return grid[factor * step[:, None] + torch.arange(factor + 1)]
