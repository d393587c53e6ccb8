"""Progressive distillation: a student of N steps that goes where its teacher goes in 2N.

Salimans & Ho 2022 (arXiv 2202.00512, Algorithm 2), round after round, each student the next
teacher.
"""

from __future__ import annotations

import torch
from torch import Tensor

from shared.denoiser import DenoiseFn
from shared.distillation.steps import ddim_step, snr_weighted


def progressive_target(teacher: DenoiseFn, x: Tensor, sigmas: Tensor) -> Tensor:
    """What denoised must be for one DDIM step to arrive where two of the teacher's do.

    The paper's x-tilde. With r = sigma_next / sigma of the two steps, and their estimates D, it is
    ``((1 - r2) D2 + r2 (1 - r1) D1) / (1 - r1 r2)``: a mean of the two, x itself cancels.

    Args:
        x: (b c h w) at ``sigmas[:, 0]``.
        sigmas: (b 3) levels at the beginning, in the middle and at the end, which may be 0.
    """
    first, middle, last = sigmas.unbind(1)
    early = teacher(x, first)
    late = teacher(ddim_step(x, early, first, middle), middle)
    r1, r2 = middle / first, last / middle
    share = (r2 * (1 - r1) / (1 - r1 * r2))[:, None, None, None]
    return torch.lerp(late, early, share)


def progressive_loss(
    student: DenoiseFn, teacher: DenoiseFn, x0: Tensor, noise: Tensor, sigmas: Tensor
) -> Tensor:
    """The loss (b,) at the levels of :func:`step_triples`; see :data:`shared.distillation.Loss`."""
    sigma = sigmas[:, 0]
    x = x0 + sigma[:, None, None, None] * noise
    with torch.no_grad():
        target = progressive_target(teacher, x, sigmas)
    return snr_weighted(student(x, sigma) - target, sigma)


def step_triples(grid: Tensor, uniforms: Tensor) -> Tensor:
    """Which of the student's steps each sample learns: levels (b 3), of the teacher's grid.

    Args:
        grid: (2 N + 1,) the teacher's levels, descending, the last 0; the student's are every
            second.
        uniforms: (b,) random numbers in [0, 1): all N steps are as likely.
    """
    count = (len(grid) - 1) // 2
    step = (uniforms * count).long().clamp(max=count - 1)
    return grid[2 * step[:, None] + torch.arange(3)]
