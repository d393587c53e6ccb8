"""Runs of ``duotone distill``, the same for both arts, which bring nothing but their examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shared.config import read_config
from shared.denoiser import Denoiser
from shared.distillation.consistency import CONSISTENCY_LOSSES, LEVEL_PAIRS
from shared.distillation.guided import guided_loss
from shared.distillation.progressive import coarse_steps, progressive_loss
from shared.distillation.rounds import (
    TEACHER,
    Art,
    Begun,
    Objective,
    Task,
    as_large,
    begin,
    begin_student,
    draw_batch,
    fit,
    guidance_range,
)
from shared.distillation.settings import (
    ConsistencyConfig,
    DistillConfig,
    GuidedConfig,
    ProgressiveConfig,
    TrajectoryConfig,
)
from shared.distillation.steps import Loss
from shared.distillation.student import (
    Bind,
    binder,
)
from shared.distillation.trajectory import distill_trajectory
from shared.naming import choose
from shared.schedules import NoiseSchedule, make_sigmas
from shared.student import Student
from shared.train_denoiser import draw_sigmas
from shared.training import Draw

Levels = Callable[[Tensor, float], Tensor]
"""(uniform random numbers (b 3), share of the run that is done) -> sigmas (b k)."""


class StudentObjective(Objective):
    """The loss of a student, in which its teacher is asked and not trained."""

    def __init__(self, student: Denoiser, bind: Bind, loss: Loss) -> None:
        super().__init__()
        self.student = student
        self.bind = bind
        self.loss = loss

    def forward(
        self,
        x0: Tensor,
        noise: Tensor,
        sigmas: Tensor,
        scale: Tensor,
        ids: Tensor,
        concat: Tensor | None = None,
    ) -> Tensor:
        """The loss (b,).

        Args:
            x0: (b c h w) latents.
            noise: likewise, standard normal.
            sigmas: (b k) noise levels, as the method draws them.
            scale: (b,) guidance scales.
            ids: (b n) token ids.
            concat: (b k h w) extra input channels; h or w may be 1 where they do not vary.
        """
        if concat is not None:
            concat = as_large(concat, x0)
        cond, teach = self.bind(ids, scale, concat)
        x0 = x0.contiguous(memory_format=torch.channels_last)

        def learn(x: Tensor, sigma: Tensor) -> Tensor:
            return self.student(x, sigma, cond)

        return self.loss(learn, teach, x0, noise, sigmas)


def distill_progressive(task: Task, config: ProgressiveConfig) -> None:
    """Divide the teacher's steps, round after round, each student the next teacher.

    Raises:
        UserError: the config, the data or the model is at fault, or ``out`` is in use.
    """
    begun = begin(task, config)
    teacher, steps = begun.teacher, config.teacher_steps // config.factor
    while steps >= config.steps:
        grid = make_sigmas(config.schedule, config.factor * steps, begun.schedule)
        wants = Student("progressive", steps, "ddim", config.schedule, guidance_range(config))
        run = begun.run / f"{steps}-steps"
        teacher = _round(
            begun,
            config,
            teacher,
            partial(_steps, grid, config.factor),
            progressive_loss,
            wants,
            run,
        )
        steps //= config.factor


def distill_guided(task: Task, config: GuidedConfig) -> None:
    """Teach a student to take the guidance scale as an input; raises as the others do."""
    begun = begin(task, config)

    def levels(uniforms: Tensor, progress: float) -> Tensor:
        return _drawn(uniforms, config, begun.schedule)[:, None]

    wants = replace(TEACHER, method="guided", guidance=guidance_range(config))
    _round(begun, config, begun.teacher, levels, guided_loss, wants, begun.run)


def distill_consistency(task: Task, config: ConsistencyConfig) -> None:
    """Teach a student where the ODE ends, from any level; raises as the others do."""
    begun = begin(task, config)
    pairs, schedule = LEVEL_PAIRS[config.levels], begun.schedule

    def levels(uniforms: Tensor, progress: float) -> Tensor:
        return pairs(_drawn(uniforms, config, schedule), progress, schedule, config.stages)

    wants = Student("consistency", config.steps, "lcm", "trailing", guidance_range(config))
    loss = partial(CONSISTENCY_LOSSES[config.source], c=config.huber_c)
    _round(begun, config, begun.teacher, levels, loss, wants, begun.run)


def _steps(grid: Tensor, factor: int, uniforms: Tensor, progress: float) -> Tensor:
    return coarse_steps(grid, uniforms[:, 0], factor)


def _drawn(uniforms: Tensor, config: DistillConfig, schedule: NoiseSchedule) -> Tensor:
    """Noise levels (b,) by uniform random numbers (b 3), a share at the noisiest."""
    sigma = draw_sigmas(uniforms[:, :2], config.noise, schedule)
    return torch.where(uniforms[:, 2] < config.start, schedule.sigma_max, sigma)


def _round(
    begun: Begun,
    config: DistillConfig,
    teacher: Denoiser,
    levels: Levels,
    loss: Loss,
    wants: Student,
    run: Path,
) -> Denoiser:
    """Train one student of latents of the data, write it, and return it as the next teacher."""
    student = begin_student(begun, config, teacher)
    bind = binder(student.guidance_dim, teacher, begun.text, begun.task.art.emphases)

    def make_batch(draws: Sequence[Draw]) -> tuple[Tensor, ...]:
        drawn = draw_batch(begun, config, draws)
        sigmas = levels(drawn.uniforms, draws[0].step / config.loop.steps)
        batch = (drawn.x0, drawn.noise, sigmas, drawn.scale, drawn.ids)
        return batch if drawn.concat is None else (*batch, drawn.concat)

    objective = StudentObjective(student, bind, loss)
    return fit(begun, config, objective, make_batch, len(begun.chosen), wants, run)


@dataclass(frozen=True)
class Method:
    """A way to distil: the configuration that it takes, and what does it."""

    config: type[DistillConfig]
    run: Callable[[Task, Any], None]


METHODS = {
    "progressive": Method(ProgressiveConfig, distill_progressive),
    "guided": Method(GuidedConfig, distill_guided),
    "consistency": Method(ConsistencyConfig, distill_consistency),
    "trajectory": Method(TrajectoryConfig, distill_trajectory),
}


def distill(
    method: str,
    config: Path | None,
    art: Art,
    teacher: Path,
    data: Path,
    out: Path,
    resume: bool = False,
) -> None:
    """Make a student of a model folder, as a YAML file asks; complete the model folder ``out``.

    The run (checkpoints, logs, samples, latents) lives in ``out/runs/distill``.

    Args:
        method: a name in :data:`METHODS`.
        config: None for the art's own.
        data: captioned folder.
        resume: go on from the last checkpoint.

    Raises:
        UserError: the method is unknown, the config, the data or the model is at fault, or ``out``
            is in use and ``resume`` is off.
    """
    chosen = choose("way to distil", method, METHODS)
    path = config or art.configs / f"distill-{method}.yaml"
    chosen.run(Task(art, teacher, data, out, resume), read_config(path, chosen.config))
