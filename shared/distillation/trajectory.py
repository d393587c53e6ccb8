"""Distillation on the teacher's own paths: walked once, then learnt from again and again.

Luhman & Luhman 2021 (arXiv 2101.02388) for a student of one step; here for one of N, which has to
come through N + 1 states of each path. Where progressive distillation asks its teacher anew for
every sample, from noised data, this asks it once a path and by a solver of the second order, which
needs half the steps; and the states are those that sampling comes through, guidance included. Of
the data only captions (and controls) are used.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from tqdm import tqdm

from shared.conditioning import Conditioning
from shared.denoiser import DenoiseFn, Denoiser
from shared.devices import resolve_dtype
from shared.distillation.rounds import (
    Begun,
    Drawn,
    Objective,
    Task,
    as_large,
    begin,
    begin_student,
    draw_batch,
    fit,
    guidance_range,
)
from shared.distillation.settings import TrajectoryConfig
from shared.distillation.steps import per_sample, snr_weighted
from shared.distillation.student import binder
from shared.guidance import with_scale
from shared.latents import cached, fingerprint
from shared.packing import pack_convolutions
from shared.samplers import sample_dpmpp_2m
from shared.schedules import make_sigmas
from shared.student import Student
from shared.text import TextEncoder
from shared.training import Draw, draws, processes

PATHS_A_FILE = 64


@torch.no_grad()
def walk(teacher: DenoiseFn, x: Tensor, sigmas: Tensor, every: int) -> Tensor:
    """States (b n c h w) that DPM++ 2M comes through after each ``every`` steps, the last included.

    Args:
        x: (b c h w) at ``sigmas[0]``.
        sigmas: (n every + 1,) levels, descending.
    """
    seen: list[Tensor] = []

    def see(step: int, x: Tensor, sigma: float, denoised: Tensor) -> None:
        if step > 0 and step % every == 0:
            seen.append(x)

    last = sample_dpmpp_2m(teacher, x, sigmas, callback=see)
    return torch.stack([*seen, last], 1)


def trajectory_target(x: Tensor, x_next: Tensor, sigmas: Tensor) -> Tensor:
    """What denoised must be for one DDIM step to lead from x to x_next (b c h w).

    Args:
        sigmas: (b 2) levels of the two.
    """
    ratio = per_sample(sigmas[:, 1] / sigmas[:, 0])
    return (x_next - ratio * x) / (1 - ratio)


def trajectory_loss(student: DenoiseFn, x: Tensor, x_next: Tensor, sigmas: Tensor) -> Tensor:
    """The loss (b,) of one step of a path, weighted as progressive distillation's."""
    sigma = sigmas[:, 0]
    return snr_weighted(student(x, sigma) - trajectory_target(x, x_next, sigmas), sigma)


class TrajectoryObjective(Objective):
    """The loss of a student on steps of paths that its teacher has walked."""

    def __init__(self, student: Denoiser, text: TextEncoder) -> None:
        super().__init__()
        self.student = student
        # In a list, for what a module owns is trained, averaged and kept in checkpoints.
        self.text = [text]

    def forward(
        self,
        x: Tensor,
        x_next: Tensor,
        sigmas: Tensor,
        scale: Tensor,
        ids: Tensor,
        concat: Tensor | None = None,
    ) -> Tensor:
        """The loss (b,).

        Args:
            x, x_next: (b c h w) states of the path.
            sigmas: (b 2) their levels.
            scale: (b,) guidance scales.
            ids: (b n) token ids.
            concat: (b k h w) extra input channels; h or w may be 1 where they do not vary.
        """
        with torch.no_grad():
            cond = Conditioning(
                context=self.text[0](ids), concat=None if concat is None else as_large(concat, x)
            )
        dim = self.student.guidance_dim
        cond = cond if dim is None else with_scale(cond, scale, dim)
        x = x.contiguous(memory_format=torch.channels_last)
        return trajectory_loss(lambda x, s: self.student(x, s, cond), x, x_next, sigmas)


def distill_trajectory(task: Task, config: TrajectoryConfig) -> None:
    """Walk the teacher's paths, then teach a student to follow them in ``config.steps`` steps.

    Raises:
        UserError: the config, the data or the model is at fault, or ``out`` is in use.
    """
    begun = begin(task, config)
    walked = draws(0, len(begun.chosen), replace(config.loop, batch_size=config.paths), 0, 1)
    grid = make_sigmas(config.schedule, config.teacher_steps, begun.schedule)
    every = config.teacher_steps // config.steps
    files = _walked(begun, config, walked, grid)
    levels = grid[::every]
    spread = (1 + levels.square()).sqrt()  # paths are kept at about unit variance

    def make_batch(drawn: Sequence[Draw]) -> tuple[Tensor, ...]:
        paths = [draw.index // config.steps for draw in drawn]
        steps = torch.tensor([draw.index % config.steps for draw in drawn])
        shown = draw_batch(begun, config, [walked[path] for path in paths])
        states = torch.stack([files[p // PATHS_A_FILE][p % PATHS_A_FILE] for p in paths]).float()
        states = torch.cat([shown.noise[:, None] * levels[0] / spread[0], states], 1)
        states = states * spread[:, None, None, None]
        each = torch.arange(len(paths))
        x, x_next = states[each, steps], states[each, steps + 1]
        sigmas = torch.stack([levels[steps], levels[steps + 1]], 1)
        batch = (x, x_next, sigmas, shown.scale, shown.ids)
        return batch if shown.concat is None else (*batch, shown.concat)

    objective = TrajectoryObjective(begin_student(begun, config, begun.teacher), begun.text)
    wants = Student("trajectory", config.steps, "ddim", config.schedule, guidance_range(config))
    count = config.paths * config.steps
    fit(begun, config, objective, make_batch, count, wants, begun.run)


def _walked(
    begun: Begun, config: TrajectoryConfig, walked: Sequence[Draw], grid: Tensor
) -> list[Tensor]:
    """The states (b n c h w) of all paths in half precision, file by file, as far as not there."""
    every = config.teacher_steps // config.steps
    spread = (1 + grid[every::every].square()).sqrt()[:, None, None, None]
    emphases = begun.task.art.emphases
    dim = config.guidance.dim if config.guidance.on else None
    # A copy, as the student begins with the teacher in full precision.
    walker = copy.deepcopy(begun.teacher)
    device = next(walker.network.parameters()).device
    dtype = resolve_dtype("auto", device)  # what it is sampled in on this machine
    walker.network.to(dtype)
    pack_convolutions(walker.network)
    bind = binder(dim, walker, begun.text, emphases)
    weights = [
        path
        for name in ("unet", "text_encoder")
        for path in sorted((begun.task.teacher / name).iterdir())
    ]

    def states(shown: Drawn) -> dict[str, Tensor]:
        ids, scale, noise = (part.to(device) for part in (shown.ids, shown.scale, shown.noise))
        concat = None if shown.concat is None else as_large(shown.concat.to(device), noise)
        _, teach = bind(ids, scale, concat)
        x = (noise * grid[0]).contiguous(memory_format=torch.channels_last)
        return {"states": (walk(teach, x, grid.to(device), every).cpu() / spread).half()}

    def file(start: int) -> Tensor:
        shown = draw_batch(begun, config, walked[start : start + PATHS_A_FILE])
        known = 0.0 if shown.concat is None else shown.concat.double().sum().item()
        shares = [one.share for one in emphases]
        settings = (shown.ids.tolist(), shown.scale.tolist(), shown.noise.sum().item(), known)
        made_from = fingerprint([], weights, settings, shares, grid.tolist(), every, dtype)
        path = begun.run / "paths" / f"{start // PATHS_A_FILE:05d}.safetensors"
        return cached(path, made_from, partial(states, shown))["states"]

    starts = range(0, len(walked), PATHS_A_FILE)
    among = processes()  # each walks its share of the files, and finds the others' there
    own = starts[among.process_index :: among.num_processes]
    for start in tqdm(own, desc="paths", unit="file", disable=not among.is_main_process):
        file(start)
    among.wait_for_everyone()
    return [file(start) for start in starts]
