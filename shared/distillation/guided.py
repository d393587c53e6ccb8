"""Distillation of guided models: one call of the student for the two that guidance takes."""

from __future__ import annotations

import torch
from torch import Tensor

from shared.denoiser import DenoiseFn
from shared.distillation.steps import snr_weighted


def guided_loss(
    student: DenoiseFn, teacher: DenoiseFn, x0: Tensor, noise: Tensor, sigmas: Tensor
) -> Tensor:
    """The loss (b,) of the first stage of Meng et al. 2023 (arXiv 2210.03142, Algorithm 1).

    The teacher is guided by a scale a sample, which the student has been told (see
    :func:`shared.guidance.with_scale`); both are asked at ``sigmas`` (b 1). The second stage is
    progressive distillation of this student.
    """
    sigma = sigmas[:, 0]
    x = x0 + sigma[:, None, None, None] * noise
    with torch.no_grad():
        target = teacher(x, sigma)
    return snr_weighted(student(x, sigma) - target, sigma)
