"""What all runs of ``duotone distill`` share: their beginning, and the training of one student."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shared.checkpoints import load_denoiser, load_state
from shared.conditioning import Conditioning
from shared.denoiser import Denoiser
from shared.distillation.folder import check_out, copy_parts, save_student
from shared.distillation.settings import ConsistencyConfig, DistillConfig
from shared.distillation.student import (
    plain_network,
    student_denoiser,
    student_network,
    student_scheduler,
)
from shared.errors import UserError
from shared.guidance import classifier_free
from shared.layers import channels_last
from shared.layout import read_json
from shared.low_rank import DIFFERENCE, begin_with
from shared.noise import NoiseStream, seeded_noise
from shared.prompt_guidance import Emphasis
from shared.samplers import SAMPLERS
from shared.schedules import NoiseSchedule, make_sigmas
from shared.student import STUDENT, Student
from shared.text import TextEncoder
from shared.train_denoiser import Captions, rows_where
from shared.training import Draw, MakeBatch, processes, train
from shared.unet import UNet

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
        emphases: what its pipeline follows more than the rest, and so what its students learn.
    """

    read_examples: Callable[[Path, Path, DistillConfig, Path], Examples]
    configs: Path
    emphases: tuple[Emphasis, ...] = ()


@dataclass(frozen=True)
class Task:
    """A run: whose student, of what, to where."""

    art: Art
    teacher: Path
    data: Path
    out: Path
    resume: bool


@dataclass(frozen=True, eq=False)
class Begun:
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


def begin(task: Task, config: DistillConfig) -> Begun:
    """Read teacher and data.

    Raises:
        UserError: the config, the data or the model is at fault, or ``out`` is in use.
    """
    check_out(task.out, task.resume)
    device = processes().device
    teacher = load_denoiser(task.teacher, device)
    text = TextEncoder.load(task.teacher, device)
    run = task.out / "runs" / "distill"
    with processes().main_process_first():  # the others find what it has written
        examples = task.art.read_examples(task.teacher, task.data, config, run)
        copy_parts(task.teacher, task.out)
    chosen = rows_where(examples.labels, config.where, config.repeat)
    if teacher.schedule is None or not isinstance(teacher.network, UNet):
        raise UserError(f"{task.teacher} has no U-Net with a list of trained noise levels")
    if config.guidance.on and teacher.network.hyper.has_class_embedding:
        raise UserError(f"{task.teacher} has a class embedding and can take no guidance scale")
    trained_as = read_json(task.teacher / "scheduler" / "scheduler_config.json")
    return Begun(
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


def guidance_range(config: DistillConfig) -> tuple[float, float]:
    """The scales that :class:`shared.student.Student` names."""
    return config.guidance.low, config.guidance.high


@dataclass(frozen=True, eq=False)
class Drawn:
    """A batch of what a student is shown: items of the data, noise, words, guidance, controls.

    Attributes:
        x0: (b c h w) latents of the items.
        noise: likewise, standard normal.
        uniforms: (b 3) random numbers in [0, 1), for the noise levels.
        scale: (b,) guidance scales.
        ids: (b n) token ids.
        concat: (b k h w) extra input channels, if the model takes any.
    """

    x0: Tensor
    noise: Tensor
    uniforms: Tensor
    scale: Tensor
    ids: Tensor
    concat: Tensor | None


def draw_batch(begun: Begun, config: DistillConfig, draws: Sequence[Draw]) -> Drawn:
    """What the random numbers of some samples of a run come to."""
    items = [begun.chosen[draw.index] for draw in draws]
    x0, concat = begun.examples.pick(draws, items)
    seeds = [draw.seed for draw in draws]
    # A second stream for the scalars: the first one's start is the noise itself.
    generators = [torch.Generator().manual_seed(seed ^ 0x5EED) for seed in seeds]
    scalars = torch.stack([torch.rand(6, generator=generator) for generator in generators])
    low, high = guidance_range(config)
    return Drawn(
        x0=x0,
        noise=seeded_noise(seeds, begun.examples.shape),
        uniforms=scalars[:, :3],
        scale=low + (high - low) * scalars[:, 3],
        ids=begun.captions.draw(items, scalars[:, 4:], config.caption_dropout),
        concat=concat,
    )


def as_large(concat: Tensor, x: Tensor) -> Tensor:
    """Input channels (b k h w) of which h or w may be 1, as large as x and in its memory order."""
    concat = concat.expand(-1, -1, *x.shape[2:])
    return concat.contiguous(memory_format=torch.channels_last)


class Objective(nn.Module):
    """The loss of a student: a module that owns nothing else, for what it owns is trained."""

    student: Denoiser


def begin_student(begun: Begun, config: DistillConfig, teacher: Denoiser) -> Denoiser:
    """A student that does as its teacher does, yet, or as the student to begin with does.

    Raises:
        UserError: that one does not fit.
    """
    assert isinstance(teacher.network, UNet)
    dim = config.guidance.dim if config.guidance.on else None
    network = student_network(teacher.network, dim, config.rank)
    if config.init is not None:
        begin_with(network, load_state(Path(config.init) / STUDENT / "unet", DIFFERENCE))
    return student_denoiser(network, begun.scheduler)


def fit(
    begun: Begun,
    config: DistillConfig,
    objective: Objective,
    make_batch: MakeBatch,
    count: int,
    wants: Student,
    run: Path,
) -> Denoiser:
    """Train one student, write it, and return it as a next teacher."""
    examples = begun.examples

    def write(trained: nn.Module) -> Denoiser:
        assert isinstance(trained, Objective)
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
    resume = begun.task.resume
    trained = train(objective, make_batch, count, config.loop, run, resume=resume, report=report)
    network = write(trained).network
    assert isinstance(network, UNet)
    device = next(network.parameters()).device
    finished = student_denoiser(channels_last(plain_network(network)), begun.scheduler)
    return finished.to(device).requires_grad_(False).eval()


@torch.no_grad()
def _samples(denoiser: Denoiser, wants: Student, begun: Begun, config: DistillConfig) -> Tensor:
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
