"""Runs of ``duotone distill``, the same for both arts, which bring nothing but their examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor, nn

from shared.checkpoints import load_denoiser
from shared.conditioning import Conditioning
from shared.config import read_config
from shared.denoiser import Denoiser
from shared.distillation.consistency import CONSISTENCY_LOSSES, LEVEL_PAIRS
from shared.distillation.folder import check_out, copy_parts, save_student
from shared.distillation.guided import guided_loss
from shared.distillation.progressive import coarse_steps, progressive_loss
from shared.distillation.settings import (
    ConsistencyConfig,
    DistillConfig,
    GuidedConfig,
    ProgressiveConfig,
)
from shared.distillation.steps import Loss
from shared.distillation.student import (
    Bind,
    binder,
    plain_network,
    student_denoiser,
    student_network,
    student_scheduler,
)
from shared.errors import UserError
from shared.guidance import classifier_free
from shared.layers import channels_last
from shared.layout import read_json
from shared.naming import choose
from shared.noise import NoiseStream, seeded_noise
from shared.samplers import SAMPLERS
from shared.schedules import NoiseSchedule, make_sigmas
from shared.student import Student
from shared.text import TextEncoder
from shared.train_denoiser import Captions, draw_sigmas, rows_where
from shared.training import Draw, train
from shared.unet import UNet

Levels = Callable[[Tensor, float], Tensor]
"""(uniform random numbers (b 3), share of the run that is done) -> sigmas (b k)."""

TEACHER = Student("teacher", 25, "dpm++2m", "karras", (1.0, 1.0))


@dataclass(frozen=True, eq=False)
class Examples:
    """What a student learns from: an art's captioned latents.

    Attributes:
        captions: of each item, one or more.
        labels: of each item.
        shape: c h w of its latents.
        concat: (k h w) what takes the place of ``pick``'s where nothing is known; None for none.
        pick: (draws, items) -> latents (b c h w) and concat (b k h w) if the model takes any.
        look: writes latents (b c h w) as something to look at; the path is a PNG's.
    """

    captions: Sequence[Sequence[str]]
    labels: Sequence[Mapping[str, Any]]
    shape: tuple[int, int, int]
    concat: Tensor | None
    pick: Callable[[Sequence[Draw], Sequence[int]], tuple[Tensor, Tensor | None]]
    look: Callable[[Tensor, Path], None]


@dataclass(frozen=True)
class Art:
    """What an art brings.

    Attributes:
        read_examples: (model, data, config, folder of the run) -> what a student learns from.
        configs: folder of the art's own ``distill-METHOD.yaml``.
    """

    read_examples: Callable[[Path, Path, DistillConfig, Path], Examples]
    configs: Path


@dataclass(frozen=True)
class Task:
    """A run: whose student, of what, to where."""

    art: Art
    teacher: Path
    data: Path
    out: Path
    resume: bool


class StudentObjective(nn.Module):
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
            concat = concat.expand(-1, -1, *x0.shape[2:])
            concat = concat.contiguous(memory_format=torch.channels_last)
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
    begun = _begin(task, config)
    teacher, steps = begun.teacher, config.teacher_steps // config.factor
    while steps >= config.steps:
        grid = make_sigmas(config.schedule, config.factor * steps, begun.schedule)
        wants = Student("progressive", steps, "ddim", config.schedule, _range(config))
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
    begun = _begin(task, config)

    def levels(uniforms: Tensor, progress: float) -> Tensor:
        return _drawn(uniforms, config, begun.schedule)[:, None]

    wants = replace(TEACHER, method="guided", guidance=_range(config))
    _round(begun, config, begun.teacher, levels, guided_loss, wants, begun.run)


def distill_consistency(task: Task, config: ConsistencyConfig) -> None:
    """Teach a student where the ODE ends, from any level; raises as the others do."""
    begun = _begin(task, config)
    pairs, schedule = LEVEL_PAIRS[config.levels], begun.schedule

    def levels(uniforms: Tensor, progress: float) -> Tensor:
        return pairs(_drawn(uniforms, config, schedule), progress, schedule, config.stages)

    wants = Student("consistency", config.steps, "lcm", "trailing", _range(config))
    loss = partial(CONSISTENCY_LOSSES[config.source], c=config.huber_c)
    _round(begun, config, begun.teacher, levels, loss, wants, begun.run)


@dataclass(frozen=True, eq=False)
class _Begun:
    """What all rounds of a run share."""

    task: Task
    run: Path
    scheduler: dict[str, Any]  # the student's
    teacher: Denoiser
    schedule: NoiseSchedule
    text: TextEncoder
    examples: Examples
    captions: Captions
    chosen: list[int]


def _begin(task: Task, config: DistillConfig) -> _Begun:
    check_out(task.out, task.resume)
    device = PartialState().device or "cpu"
    teacher = load_denoiser(task.teacher, device)
    text = TextEncoder.load(task.teacher, device)
    run = task.out / "runs" / "distill"
    with PartialState().main_process_first():  # the others find what it has written
        examples = task.art.read_examples(task.teacher, task.data, config, run)
        copy_parts(task.teacher, task.out)
    chosen = rows_where(examples.labels, config.where)
    if teacher.schedule is None or not isinstance(teacher.network, UNet):
        raise UserError(f"{task.teacher} has no U-Net with a list of trained noise levels")
    if config.guidance.on and teacher.network.hyper.has_class_embedding:
        raise UserError(f"{task.teacher} has a class embedding and can take no guidance scale")
    trained_as = read_json(task.teacher / "scheduler" / "scheduler_config.json")
    return _Begun(
        task=task,
        run=run,
        scheduler=student_scheduler(trained_as, isinstance(config, ConsistencyConfig)),
        teacher=teacher.requires_grad_(False),
        schedule=teacher.schedule,
        text=text.requires_grad_(False).eval(),
        examples=examples,
        captions=Captions.tokenize(examples.captions, text),
        chosen=chosen,
    )


def _steps(grid: Tensor, factor: int, uniforms: Tensor, progress: float) -> Tensor:
    return coarse_steps(grid, uniforms[:, 0], factor)


def _range(config: DistillConfig) -> tuple[float, float]:
    return config.guidance.low, config.guidance.high


def _drawn(uniforms: Tensor, config: DistillConfig, schedule: NoiseSchedule) -> Tensor:
    """Noise levels (b,) by uniform random numbers (b 3), a share at the noisiest."""
    sigma = draw_sigmas(uniforms[:, :2], config.noise, schedule)
    return torch.where(uniforms[:, 2] < config.start, schedule.sigma_max, sigma)


def _round(
    begun: _Begun,
    config: DistillConfig,
    teacher: Denoiser,
    levels: Levels,
    loss: Loss,
    wants: Student,
    run: Path,
) -> Denoiser:
    """Train one student, write it, and return it as the next teacher."""
    assert isinstance(teacher.network, UNet)
    guidance, examples = config.guidance, begun.examples
    dim = guidance.dim if guidance.on else None
    student = student_denoiser(student_network(teacher.network, dim, config.rank), begun.scheduler)
    bind = binder(student.guidance_dim, teacher, begun.text)
    objective = StudentObjective(student, bind, loss)

    def make_batch(draws: Sequence[Draw]) -> tuple[Tensor, ...]:
        items = [begun.chosen[draw.index] for draw in draws]
        x0, concat = examples.pick(draws, items)
        seeds = [draw.seed for draw in draws]
        # A second stream for the scalars: the first one's start is the noise itself.
        generators = [torch.Generator().manual_seed(seed ^ 0x5EED) for seed in seeds]
        scalars = torch.stack([torch.rand(6, generator=generator) for generator in generators])
        sigmas = levels(scalars[:, :3], draws[0].step / config.loop.steps)
        scale = guidance.low + (guidance.high - guidance.low) * scalars[:, 3]
        ids = begun.captions.draw(items, scalars[:, 4:], config.caption_dropout)
        batch = (x0, seeded_noise(seeds, examples.shape), sigmas, scale, ids)
        return batch if concat is None else (*batch, concat)

    def write(trained: nn.Module) -> Denoiser:
        assert isinstance(trained, StudentObjective)
        save_student(trained.student, begun.scheduler, wants, begun.task.teacher, begun.task.out)
        return trained.student

    def report(step: int, trained: nn.Module) -> dict[str, Any]:
        denoiser = write(trained)
        examples.look(_samples(denoiser, wants, begun, config), run / "samples" / f"{step:06d}.png")
        distance = _distance(_samples(denoiser, compared, begun, config), reference())
        return {"distance_to_teacher": round(distance, 4)}

    # New noise in each step leads elsewhere than the teacher's path; one step does not draw any.
    compared = replace(wants, steps=1) if SAMPLERS[wants.sampler].stochastic else wants
    reference = cache(lambda: _samples(begun.teacher, TEACHER, begun, config))
    count, resume = len(begun.chosen), begun.task.resume
    trained = train(objective, make_batch, count, config.loop, run, resume=resume, report=report)
    network = write(trained).network
    assert isinstance(network, UNet)
    device = next(network.parameters()).device
    finished = student_denoiser(channels_last(plain_network(network)), begun.scheduler)
    return finished.to(device).requires_grad_(False).eval()


@torch.no_grad()
def _samples(denoiser: Denoiser, wants: Student, begun: _Begun, config: DistillConfig) -> Tensor:
    """Latents (b c h w), on the CPU, of the config's prompts, one seed each, nothing else known."""
    prompts = config.prompts or ("",)
    device = next(denoiser.parameters()).device
    concat, text = begun.examples.concat, begun.text
    if concat is not None:
        concat = concat.to(device).expand(len(prompts), *concat.shape)
    cond, uncond = (
        Conditioning(context=text.encode(words), concat=concat)
        for words in (prompts, [""] * len(prompts))
    )
    sigmas = make_sigmas(wants.schedule, wants.steps, begun.schedule).to(device)
    seeds, shape = range(len(prompts)), begun.examples.shape
    scale = config.guidance_scale if config.guidance.on else 1.0
    return (
        SAMPLERS[wants.sampler]
        .function(
            classifier_free(denoiser, cond, uncond, scale),
            seeded_noise(seeds, shape, device) * sigmas[0],
            sigmas,
            noise=NoiseStream(seeds, shape, device),
        )
        .cpu()
    )


def _distance(samples: Tensor, reference: Tensor) -> float:
    """Root mean square of the difference, relative to the reference's deviation from its mean."""
    return ((samples - reference).square().mean().sqrt() / reference.std()).item()


@dataclass(frozen=True)
class Method:
    """A way to distil: the configuration that it takes, and what does it."""

    config: type[DistillConfig]
    run: Callable[[Task, Any], None]


METHODS = {
    "progressive": Method(ProgressiveConfig, distill_progressive),
    "guided": Method(GuidedConfig, distill_guided),
    "consistency": Method(ConsistencyConfig, distill_consistency),
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
