"""Distillation: students that need fewer steps, or one network call where guidance needs two.

All in the one coordinate ``x = x0 + sigma * noise``, on ``(x, sigma) -> denoised``: a student is a
:class:`shared.denoiser.Denoiser` as any other, and so is its teacher. Each method is a
:data:`Loss`, a plain function (student, teacher, x0, noise, sigmas (b k)) -> (b,), and a way to
draw the levels that it compares.

* ``progressive``: one step of the student does what two of its teacher's do.
* ``guided``: the student takes the guidance scale as an input, one call in place of two.
* ``consistency``: the student says where the ODE ends, at any level: distilled from a teacher, or
  learnt from data alone; easy consistency tuning is that with its own way to draw levels.
* ``trajectory``: the student follows paths that its teacher has walked once.
* ``student``: a network that begins as its teacher; ``low_rank``: one that differs by little.
* ``settings``, ``run``, ``rounds``, ``folder``: what ``duotone distill`` asks for, does and writes.
"""

from shared.distillation.consistency import (
    consistency_distillation_loss,
    consistency_training_loss,
    doubling_pairs,
    easy_pairs,
    pseudo_huber,
)
from shared.distillation.guided import guided_loss
from shared.distillation.progressive import coarse_steps, progressive_loss, progressive_target
from shared.distillation.steps import Loss, ddim_step, heun_step
from shared.distillation.trajectory import trajectory_loss, trajectory_target, walk

__all__ = [
    "Loss",
    "coarse_steps",
    "consistency_distillation_loss",
    "consistency_training_loss",
    "ddim_step",
    "doubling_pairs",
    "easy_pairs",
    "guided_loss",
    "heun_step",
    "progressive_loss",
    "progressive_target",
    "pseudo_huber",
    "trajectory_loss",
    "trajectory_target",
    "walk",
]
