"""How good filled pictures are: what stays, the border, the prompt, likeness to real ones, time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from imagediff.adherence import Prompt, draw_by_lot, in_top, judge_features, see
from imagediff.edit_settings import Edit, EditSettings
from imagediff.editing import TASKS, Job, border, edit, free_box, with_margins
from imagediff.evaluate import REAL_SEEDS, real_pictures
from imagediff.judge import Judge
from imagediff.picture_file import Picture
from imagediff.pipeline import ImagePipeline
from imagediff.pixels import to_rgb, with_pixels
from imagediff.settings import Settings
from shared.editing import FILLINGS
from shared.report import grid
from shared.settings import DEFAULT_SAMPLER
from shared.statistics import frechet_distance

PASTE = "naive paste"
FEATHER = 4  # px, the commands' default

Fill = Callable[[Image.Image, np.ndarray, Prompt, int], Image.Image]
"""(picture, free (h w) bool, prompt, seed) -> the picture filled: what benchmarks compare with."""


@dataclass(frozen=True, eq=False)
class Case:
    """A real scene of a prompt, and what of it is hidden and has to be filled."""

    prompt: Prompt
    scene: Image.Image
    free: np.ndarray
    edit: Edit

    @property
    def source(self) -> Picture:
        """What there is before: the scene, or what the margins leave of it."""
        _, _, right, _ = self.edit.margins
        width, height = self.scene.size
        return Picture(self.scene.crop((0, 0, width - right, height)), "PNG")


@dataclass(frozen=True)
class Row:
    """What was measured of one task by one method.

    Attributes:
        unchanged: largest difference, in grey levels, outside the hidden part and its border.
        border: mean gradient within the border's width of the edge, against the scene's own there.
        top1, top5: share of the pictures in which the judge sees what the prompt asks for.
        frechet: distance to other real scenes of the prompts, in the judge's features.
        seconds: a picture.
    """

    task: str
    method: str
    n: int
    unchanged: float
    border: float
    top1: float
    top5: float
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
        head = ("", "", "unchanged", "border", "top-1", "top-5", "Fréchet", "seconds")
        rows = [
            (
                row.task,
                row.method,
                f"{row.unchanged:.0f}",
                f"{row.border:.2f}",
                f"{row.top1:.2f}",
                f"{row.top5:.2f}",
                "" if row.frechet is None else f"{row.frechet:.1f}",
                "" if row.seconds is None else f"{row.seconds:.2f}",
            )
            for row in self.rows
        ]
        legend = (
            "unchanged: largest difference outside, in grey levels; border: gradient at the edge "
            "over the scene's own; real: the scenes themselves"
        )
        return grid(self.settings, [head, *rows], legend, left=2)


def cases(prompts: Sequence[Prompt], limit: int | None, seed: int, size: int) -> list[Case]:
    """For each prompt of a single object its middle hidden, and its right quarter.

    Raises:
        UserError: the emoji font is not installed.
    """
    chosen = draw_by_lot([prompt for prompt in prompts if prompt.kind == "single"], limit, seed)
    scenes = real_pictures(chosen, REAL_SEEDS[0], size)
    eighth = size // 8
    box = (eighth, eighth, size - 2 * eighth, size - 2 * eighth)
    found = []
    for prompt, scene in zip(chosen, scenes, strict=True):
        common = {"source": "", "source_hash": "", "feather": FEATHER}
        inpaint = Edit(**common, task="inpaint", box=box)
        found.append(Case(prompt, scene, free_box(box, scene.size), inpaint))
        extend = Edit(**common, task="extend", margins=(0, 0, size // 4, 0), opaque=True)
        rest = Picture(scene.crop((0, 0, size - size // 4, size)), "PNG")
        found.append(Case(prompt, scene, with_margins(rest, extend.margins)[1], extend))
    return found


def evaluate_edit(
    pipeline: ImagePipeline,
    judge: Judge,
    prompts: Sequence[Prompt],
    *,
    methods: Sequence[str] | None = None,
    others: dict[str, Fill] | None = None,
    limit: int | None = None,
    seed: int = 0,
    steps: int = 25,
    guidance_scale: float = 4.0,
    sampler: str = DEFAULT_SAMPLER,
) -> EditReport:
    """Fill hidden parts of real scenes by every method and measure what came out.

    Args:
        methods: names in :data:`shared.editing.FILLINGS`; all by default. Beside them stands a
            picture of the prompt alone, pasted in.
        others: more ways to fill, by name.
        limit: at most so many prompts with and without a background, drawn by lot.
        seed: prompt number i gets the seed ``seed + i``.

    Raises:
        UserError: a value that the model or the sampler does not take, or no emoji font.
    """
    size = pipeline.native_size[0]
    all_cases = cases(prompts, limit, seed, size)
    ways: dict[str, Callable[[Case], Image.Image]] = {}

    def plan(case: Case, picture_size: tuple[int, int] | None = None) -> list[Settings]:
        return pipeline.plan(
            case.prompt.text,
            seed=seed + case.prompt.number,
            steps=steps,
            guidance_scale=guidance_scale,
            sampler=sampler,
            size=picture_size,
        )

    def ours(method: str) -> Callable[[Case], Image.Image]:
        def filled(case: Case) -> Image.Image:
            how = Edit(**{**vars(case.edit), "method": method})
            job: Job = TASKS[how.task](pipeline, case.source, how, None)
            (settings,) = plan(case, job.part.size)
            (made,) = edit(pipeline, job, [EditSettings(**vars(settings), **vars(how))])
            return to_rgb(made)

        return filled

    def pasted(case: Case) -> Image.Image:
        (made,) = pipeline.generate(plan(case))
        weight = border(case.free, FEATHER)
        return to_rgb(with_pixels(Picture(case.scene, "PNG"), made, weight))

    def by(fill: Fill) -> Callable[[Case], Image.Image]:
        return lambda case: fill(case.scene, case.free, case.prompt, seed + case.prompt.number)

    ways |= {method: ours(method) for method in (FILLINGS if methods is None else methods)}
    ways[PASTE] = pasted
    ways |= {name: by(fill) for name, fill in (others or {}).items()}
    rows = []
    for task in ("inpaint", "extend"):
        here = [case for case in all_cases if case.edit.task == task]
        these = [case.prompt for case in here]
        real = real_pictures(these, REAL_SEEDS[1], size)
        reference = judge_features(these, see(judge, these, real))
        for name, way in ways.items():
            start = time.perf_counter()
            made = [way(case) for case in tqdm(here, f"{task}, {name}", leave=False)]
            seconds = (time.perf_counter() - start) / len(here)
            rows.append(_row(judge, task, name, here, made, reference, seconds))
        scenes = [case.scene for case in here]
        rows.append(_row(judge, task, "real", here, scenes, reference, None))
    facts = plan(all_cases[0])[0].record()
    kept = ("model", "model_hash", "steps", "guidance_scale", "sampler", "device", "dtype")
    settings = {key: facts[key] for key in kept} | {"seed": seed, "prompts": len(all_cases) // 2}
    return EditReport(settings, rows)


def _row(
    judge: Judge,
    task: str,
    method: str,
    these: Sequence[Case],
    made: Sequence[Image.Image],
    reference: np.ndarray,
    seconds: float | None,
) -> Row:
    prompts = [case.prompt for case in these]
    sights = see(judge, prompts, made)
    features = judge_features(prompts, sights)
    pairs = list(zip(these, made, strict=True))
    return Row(
        task=task,
        method=method,
        n=len(these),
        unchanged=max(outside_error(case.scene, picture, case.free) for case, picture in pairs),
        border=sum(border_gradient(picture, case.free) for case, picture in pairs)
        / max(sum(border_gradient(case.scene, case.free) for case in these), 1e-9),
        top1=float(np.mean([in_top(*pair, 1) for pair in zip(prompts, sights, strict=True)])),
        top5=float(np.mean([in_top(*pair, 5) for pair in zip(prompts, sights, strict=True)])),
        frechet=frechet_distance(features, reference) if len(these) > 1 else None,
        seconds=seconds,
    )


def outside_error(before: Image.Image, after: Image.Image, free: np.ndarray) -> float:
    """The largest difference in grey levels outside what is free (h w) and its border."""
    apart = np.abs(np.asarray(before, np.int16) - np.asarray(after, np.int16)).max(-1)
    return float(apart[border(free, FEATHER) == 0].max(initial=0))


def border_gradient(picture: Image.Image, free: np.ndarray) -> float:
    """The mean step between neighbouring pixels within the border's width of the edge of free.

    In grey levels, summed over the axes. A wider border does not make it smaller: a step that is
    spread over some pixels adds up to itself.
    """
    levels = np.asarray(picture.convert("RGB"), np.float32)
    steps = sum(
        np.abs(np.diff(levels, axis=axis, append=levels.take([-1], axis))).mean(-1)
        for axis in (0, 1)
    )
    near = (border(free, FEATHER) > 0) & (border(~free, FEATHER) > 0)
    return float(np.asarray(steps)[near].mean())
