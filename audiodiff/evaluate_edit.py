"""How good edited clips are: what stays, the joins, likeness to real ones, time.

Of rendered clips that the model never heard a part is hidden and made anew, by each of our methods
and by what the paper compares: naive masking and its own constant-step gradient (Levy et al. 2023,
arXiv 2311.00613). The ceiling is the same part of the real clip after the codec's round trip.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from audiodiff import long_clips
from audiodiff.adherence import Prompt, draw_by_lot
from audiodiff.edit_settings import Edit, EditSettings
from audiodiff.editing import TASKS, Job, Place, edit_clip, heard, placed, played, region_of
from audiodiff.evaluate import real_clips
from audiodiff.joins import flux_at_joins
from audiodiff.judge import Judge, features_of
from audiodiff.labels import FRAME_SECONDS, SAMPLE_RATE
from audiodiff.pipeline import MusicPipeline
from audiodiff.sound_file import Sound
from shared.denoiser import DenoiseFn
from shared.editing import Known
from shared.errors import UserError
from shared.generation import Walk
from shared.guidance import Loss, ddpm_step, gradient
from shared.noise import NoiseFn
from shared.report import grid
from shared.samplers import Callback, sample_ddim
from shared.settings import DEFAULT_SAMPLER
from shared.statistics import frechet_distance

SPAN = (2.0, 4.0)  # seconds of a clip that are hidden
OVERLAP = 2.5  # seconds of a transition, as the paper has it
HEARD, HOP = 1.5, 0.75  # seconds of a piece that the judge hears, and from one to the next
NAIVE, PAPER, CROSSFADE = "naive mask", "constant-step gradient", "crossfade"
CODEC, REAL = "codec", "real"
PAPER_XI = 3e-2  # the paper's, for latents
KINDS: Mapping[str, str] = {
    "infill": "inpaint",
    "regenerate": "vary",
    "continue": "extend",
    "lead in": "extend",
    "transition": "blend",
}
"""Task as the table calls it -> verb."""
LEGEND = (
    "outside: largest difference outside what is made, in steps of 16 bits; flux: change of the "
    "spectrum at the joins over the clip's median; Fréchet: distance to other real clips in the "
    "judge's features; codec: the real part after a round trip"
)


@dataclass(frozen=True, eq=False)
class Case:
    """A clip of which a part is to be made.

    Attributes:
        real: a real clip with a part of that length: the ceiling.
    """

    prompt: Prompt
    edit: Edit
    job: Job
    real: Job


@dataclass(frozen=True)
class Row:
    """What was measured of one task by one way.

    Attributes:
        outside: largest difference outside what is made, in steps of 16 bits.
        flux: at the joins, over the clip's median: mean over the joins.
        worst: the greatest of them.
        frechet: None for fewer than two clips.
        seconds: a clip; None where nothing is sampled.
    """

    task: str
    way: str
    n: int
    outside: float
    flux: float
    worst: float
    frechet: float | None
    seconds: float | None


@dataclass(frozen=True)
class EditReport:
    """All rows, and what they were measured on."""

    settings: dict[str, Any]
    rows: list[Row]

    def record(self) -> dict[str, Any]:
        """The report as JSON knows it."""
        return asdict(self)

    def table(self) -> str:
        """The report as people read it."""
        head = ("", "", "outside", "flux", "worst", "Fréchet", "seconds")
        rows = [
            (
                row.task,
                row.way,
                f"{row.outside:.0f}",
                f"{row.flux:.2f}",
                f"{row.worst:.2f}",
                "" if row.frechet is None else f"{row.frechet:.2f}",
                "" if row.seconds is None else f"{row.seconds:.2f}",
            )
            for row in self.rows
        ]
        return grid(self.settings, [head, *rows], LEGEND, left=2)


def evaluate_edit(
    pipeline: MusicPipeline,
    judge: Judge,
    prompts: Sequence[Prompt],
    *,
    methods: Sequence[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    steps: int = 25,
    guidance_scale: float,
    sampler: str = DEFAULT_SAMPLER,
    say: Callable[[str], None] | None = None,
) -> EditReport:
    """Make parts of real clips anew in every way and measure what came out.

    Args:
        prompts: those of kind "controls" are edited, others are what they are compared with.
        methods: names in :data:`shared.editing.FILLINGS`; by default the commands' default.
        limit: at most so many prompts, drawn by lot.
        seed: prompt number i gets the seed ``seed + i``.

    Raises:
        UserError: no real clips, or a value that the model or the sampler does not take.
    """
    chosen = [p for p in draw_by_lot(prompts, limit, seed) if p.kind == "controls"]
    more = None if limit is None else 2 * limit
    others = [p for p in draw_by_lot(prompts, more, seed + 1) if p.kind == "text"]
    real = real_clips(chosen, say)
    known = [p for p in chosen if p.number in real]
    if not known:
        raise UserError("there are no real clips to edit; a soundfont and fluidsynth are needed")
    reference = features_of(
        judge, [piece for clip in real_clips(others, say).values() for piece in pieces(clip)]
    )
    ways: dict[str, Callable[[Case], Sound]] = {}
    facts: dict[str, Any] = {}

    def made(case: Case, method: str, walk: Any, place: Place) -> Sound:
        edit = replace(case.edit, method=method)
        frames = region_of(case.job, pipeline).frames
        (sampled,) = pipeline.plan(
            case.prompt.text,
            seconds=frames * FRAME_SECONDS,
            seed=seed + case.prompt.number,
            steps=steps,
            guidance_scale=guidance_scale,
            sampler=sampler,
        )
        facts.update(sampled.record())
        settings = EditSettings(**vars(sampled), **vars(edit))
        (sound,) = edit_clip(pipeline, case.job, [settings], walk=walk, place=place)
        return sound

    for method in methods or [Edit.method]:
        ways[method] = partial(made, method=method, walk=None, place=placed)
    ways[NAIVE] = partial(made, method="blend", walk=None, place=cut_in)
    ways[PAPER] = partial(made, method=Edit.method, walk=constant_step, place=cut_in)
    rows = []
    for task in KINDS:
        cases = cases_of(task, known, real)
        for name, way in ways.items():
            start = time.perf_counter()
            sounds = [way(case) for case in tqdm(cases, f"{task}, {name}", leave=False)]
            spent = (time.perf_counter() - start) / len(cases)
            jobs = [case.job for case in cases]
            rows.append(_row(judge, task, name, jobs, sounds, reference, spent))
        if task == "transition":
            jobs = [case.job for case in cases]
            whole = [job.sound for job in jobs]
            rows.append(_row(judge, task, CROSSFADE, jobs, whole, reference, None))
        jobs = [case.real for case in cases]
        coded = [_round_trip(pipeline, job) for job in jobs]
        rows.append(_row(judge, task, CODEC, jobs, coded, reference, None))
        rows.append(_row(judge, task, REAL, jobs, [j.sound for j in jobs], reference, None))
    kept = ("model", "model_hash", "steps", "guidance_scale", "sampler", "device", "dtype")
    settings = {name: facts[name] for name in kept} | {"seed": seed, "prompts": len(known)}
    return EditReport(settings, rows)


def cases_of(task: str, prompts: Sequence[Prompt], real: Mapping[int, np.ndarray]) -> list[Case]:
    """For each prompt its real clip with a part to be made; a transition leads to the next one."""
    found = []
    for place, prompt in enumerate(prompts):
        whole = sound_of(real[prompt.number])
        half = whole.length // 2
        edit = Edit(source="", source_hash="", task=KINDS[task])
        other, source = None, whole
        if task in ("infill", "regenerate"):
            edit = replace(edit, span=SPAN)
            part = (round(SPAN[0] * SAMPLE_RATE), round(SPAN[1] * SAMPLE_RATE))
        elif task == "continue":
            edit = replace(edit, added=(whole.length - half) / SAMPLE_RATE)
            source, part = _cut(whole, 0, half), (half, whole.length)
        elif task == "lead in":
            edit = replace(edit, added=half / SAMPLE_RATE, before=True)
            source, part = _cut(whole, half, whole.length), (0, half)
        else:
            edit = replace(edit, overlap=OVERLAP)
            other = sound_of(real[prompts[(place + 1) % len(prompts)].number])
            start = (whole.length - round(OVERLAP * SAMPLE_RATE)) // 2
            part = (start, start + round(OVERLAP * SAMPLE_RATE))
        job = TASKS[edit.task](source, edit, other)
        found.append(Case(prompt, edit, job, Job(whole, *part)))
    return found


def sound_of(samples: np.ndarray) -> Sound:
    """Samples (c s) at 44.1 kHz as a file of 16 bits has them."""
    silent = Sound(np.zeros(samples.shape, np.int32), SAMPLE_RATE, "PCM_16")
    return silent.with_part(0, samples)


def cut_in(job: Job, made: np.ndarray) -> Sound:
    """What was made (c n) in its place, as it is: neither made louder nor joined."""
    return job.sound.with_part(job.start, made)


def constant_step(known: Known) -> Walk:
    """The paper's guidance gradient: DDPM's steps, the L1 distance to what is known, constant xi.

    ``x <- x - xi * grad_x_t |mask (x0_hat - known)|_1`` after each step (2311.00613, Algorithm 1).
    """

    def distance(denoised: Tensor) -> Tensor:
        latents, mask = known.at(denoised)
        return ((denoised - latents) * mask).abs().flatten(1).sum(1)

    def walk(
        denoise: DenoiseFn, x: Tensor, sigmas: Tensor, noise: NoiseFn, callback: Callback | None
    ) -> Tensor:
        guided = gradient(denoise, [Loss(distance)], ddpm_step(PAPER_XI, sigmas, eta=1.0))
        return sample_ddim(guided, x, sigmas, noise=noise, callback=callback, eta=1.0)

    return walk


def pieces(samples: np.ndarray, start: int = 0, end: int | None = None) -> list[np.ndarray]:
    """Pieces (c n) of a recording (c s) that the judge hears, of what lies about a part of it."""
    length, hop = round(HEARD * SAMPLE_RATE), round(HOP * SAMPLE_RATE)
    first = max(0, start - hop)
    last = min(samples.shape[1], samples.shape[1] if end is None else end + hop)
    return [samples[:, at : at + length] for at in range(first, last - length + 1, hop)]


def outside_error(before: Sound, after: Sound, start: int, end: int) -> float:
    """The largest difference outside a part, in steps of 16 bits."""
    apart = np.abs(after.samples.astype(np.float64) - before.samples)
    apart[:, start:end] = 0
    return float(apart.max(initial=0) * 2**15)


def _cut(sound: Sound, start: int, end: int) -> Sound:
    return replace(sound, values=sound.values[:, start:end])


@torch.inference_mode()
def _round_trip(pipeline: MusicPipeline, job: Job) -> Sound:
    """The real part after the codec, put where it was as ours is."""
    region = region_of(job, pipeline)
    hearing, gain = heard(job, region, pipeline)
    latents = long_clips.encode(pipeline.codec, hearing)
    return placed(job, played(job, region, pipeline, latents, gain))


def _row(
    judge: Judge,
    task: str,
    way: str,
    jobs: Sequence[Job],
    sounds: Sequence[Sound],
    reference: np.ndarray,
    seconds: float | None,
) -> Row:
    pairs = list(zip(jobs, sounds, strict=True))
    fluxes = [flux for job, made in pairs for flux in flux_at_joins(made.samples, job.joins)]
    heard_in = [piece for job, made in pairs for piece in pieces(made.samples, job.start, job.end)]
    return Row(
        task=task,
        way=way,
        n=len(jobs),
        outside=max(outside_error(job.sound, made, job.start, job.end) for job, made in pairs),
        flux=float(np.mean(fluxes)),
        worst=max(fluxes),
        frechet=frechet_distance(features_of(judge, heard_in), reference)
        if len(jobs) > 1 and len(reference) > 1
        else None,
        seconds=seconds,
    )
