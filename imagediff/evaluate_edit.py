"""How good edited pictures are: what stays, the border, the prompt, likeness to real ones, time."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from imagediff.adherence import Prompt, Sight, see
from imagediff.edit_cases import FEATHER, FILLED, WHOLE, Case, cases
from imagediff.edit_settings import Edit
from imagediff.editing import TASKS, border, edit
from imagediff.edits import planned
from imagediff.evaluate import REAL_SEEDS, real_pictures
from imagediff.judge import Judge
from imagediff.movie_settings import BlendSettings
from imagediff.movies import blend
from imagediff.picture_file import Picture
from imagediff.pipeline import ImagePipeline
from imagediff.pixels import to_rgb, with_pixels
from imagediff.settings import Settings
from shared.editing import FILLINGS
from shared.report import grid
from shared.settings import DEFAULT_SAMPLER
from shared.statistics import frechet_distance

UNFILLED, PASTE, FADE, REAL = "unfilled", "naive paste", "cross-fade", "real"
GREY = 127  # of what is hidden
STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)

Fill = Callable[[Image.Image, np.ndarray, Prompt, int], Image.Image]
"""(picture, free (h w) bool, prompt, seed) -> the picture filled: what benchmarks compare with."""
Way = Callable[[Case], Image.Image]


@dataclass(frozen=True)
class Row:
    """What was measured of one task by one way.

    Attributes:
        unchanged: largest difference, in grey levels, outside the hidden part and its border; None
            for tasks of the whole picture.
        border: mean gradient within the border's width of the edge, against the scene's own there.
        top1, top5: share of the pictures in which the judge sees what was asked for, in a view
            that holds nothing of it but what was drawn.
        apart: root-mean-square difference from the scene in what was drawn, in grey levels.
        frechet: distance to other real scenes of the prompts, in the judge's features of that view.
        seconds: a picture.
    """

    task: str
    way: str
    n: int
    unchanged: float | None
    border: float | None
    top1: float
    top5: float
    apart: float
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
        head = ("", "", "unchanged", "border", "top-1", "top-5", "apart", "Fréchet", "seconds")

        def cell(value: float | None, digits: int) -> str:
            return "" if value is None else f"{value:.{digits}f}"

        rows = [
            (
                row.task,
                row.way,
                cell(row.unchanged, 0),
                cell(row.border, 2),
                cell(row.top1, 2),
                cell(row.top5, 2),
                cell(row.apart, 1),
                cell(row.frechet, 1),
                cell(row.seconds, 2),
            )
            for row in self.rows
        ]
        legend = (
            "unchanged: largest difference outside, in grey levels; border: gradient at the edge "
            "over the scene's own; top-1, top-5: the judge sees what was asked for in what was "
            "drawn; apart: how far that is from the scene, root mean square; real: real scenes"
        )
        return grid(self.settings, [head, *rows], legend, left=2)


def evaluate_edit(
    pipeline: ImagePipeline,
    judge: Judge,
    prompts: Sequence[Prompt],
    *,
    methods: Sequence[str] | None = None,
    others: dict[str, Fill] | None = None,
    tasks: Sequence[str] = (*FILLED, *WHOLE),
    limit: int | None = None,
    seed: int = 0,
    steps: int = 25,
    guidance_scale: float = 4.0,
    sampler: str = DEFAULT_SAMPLER,
) -> EditReport:
    """Edit real scenes in every way and measure what came out.

    Hidden parts are filled by every method; beside them stand the part left grey and a picture of
    the prompt alone, pasted in. What is made of a whole picture is made with several strengths, of
    a blend the picture in the middle, beside which stands the mean of the two pictures.

    Args:
        methods: names in :data:`shared.editing.FILLINGS`; all by default.
        others: more ways to fill, by name.
        tasks: those of the table.
        limit: at most so many prompts with and without a background, drawn by lot.
        seed: prompt number i gets the seed ``seed + i``.

    Raises:
        UserError: a value that the model or the sampler does not take, no prompt of a single
            object, or no emoji font.
    """
    size = pipeline.native_size[0]
    by_task = cases(prompts, limit, seed, size)
    sampled = {"steps": steps, "guidance_scale": guidance_scale, "sampler": sampler}

    def plan(case: Case) -> Settings:
        return pipeline.plan(case.prompt.text, seed=seed + case.prompt.number, **sampled)[0]

    def ours(case: Case, **change: Any) -> Image.Image:
        how = Edit(**{**vars(case.edit), **change})
        job = TASKS[how.task](pipeline, case.source, how, None)
        number = seed + case.prompt.number
        (made,) = edit(
            pipeline, job, planned(pipeline, job, how, case.prompt.text, seed=number, **sampled)
        )
        return to_rgb(made)

    def pasted(case: Case) -> Image.Image:
        (made,) = pipeline.generate([plan(case)])
        weight = border(_free(case), FEATHER)
        return to_rgb(with_pixels(Picture(case.scene, "PNG"), made, weight))

    def unfilled(case: Case) -> Image.Image:
        return Image.composite(
            Image.new("RGB", case.scene.size, (GREY,) * 3),
            case.scene,
            Image.fromarray(_free(case).astype(np.uint8) * 255),
        )

    def by(fill: Fill, case: Case) -> Image.Image:
        return fill(case.scene, _free(case), case.prompt, seed + case.prompt.number)

    def middle(case: Case, strength: float) -> Image.Image:
        settings = BlendSettings(
            **{**vars(plan(case)), "prompt": case.before.text},
            **dict.fromkeys(("source", "source_hash", "other", "other_hash"), ""),
            task="blend",
            other_prompt=case.prompt.text,
            strength=strength,
            frames=3,
            fps=1,
        )
        return list(islice(blend(pipeline, settings, case.scene, case.other), 2))[1]

    def faded(case: Case) -> Image.Image:
        return Image.blend(case.scene, case.other, 0.5)

    fills: dict[str, Way] = {UNFILLED: unfilled}
    for method in FILLINGS if methods is None else methods:
        fills[method] = partial(ours, method=method)
    fills[PASTE] = pasted
    fills |= {name: partial(by, fill) for name, fill in (others or {}).items()}
    strengths = {f"strength {strength:g}": strength for strength in STRENGTHS}
    walks: dict[str, Way] = {
        name: partial(ours, strength=strength) for name, strength in strengths.items()
    }
    blends: dict[str, Way] = {FADE: faded}
    blends |= {name: partial(middle, strength=strength) for name, strength in strengths.items()}
    ways = {**dict.fromkeys(FILLED, fills), **dict.fromkeys(WHOLE, walks), "blend": blends}

    rows = []
    for task in tasks:
        these = by_task[task]
        if not these:  # prompts of one's own may have no two objects beside each other
            continue
        real = real_pictures([case.prompt for case in these], REAL_SEEDS[1], size)
        reference = _features(these, _sights(judge, these, real))
        made, seconds = defaultdict[str, list[Image.Image]](list), defaultdict[str, float](float)
        # Every way in turn: what else the machine does then weighs on all alike.
        for case in tqdm(these, task, leave=False):
            for name, way in ways[task].items():
                start = time.perf_counter()
                made[name].append(way(case))
                seconds[name] += (time.perf_counter() - start) / len(these)
        for name, pictures in made.items():
            rows.append(_row(judge, task, name, these, pictures, reference, seconds[name]))
        rows.append(_row(judge, task, REAL, these, [c.other for c in these], reference, None))
    facts = plan(by_task["inpaint"][0]).record()
    kept = ("model", "model_hash", "steps", "guidance_scale", "sampler", "device", "dtype")
    settings = {key: facts[key] for key in kept}
    return EditReport(settings | {"seed": seed, "scenes": len(by_task["inpaint"])}, rows)


def _free(case: Case) -> np.ndarray:
    assert case.free is not None, "only what has a hole is filled"
    return case.free


def _sights(judge: Judge, these: Sequence[Case], made: Sequence[Image.Image]) -> list[Sight]:
    return see(judge, [case.prompt for case in these], made)


def _features(these: Sequence[Case], sights: Sequence[Sight]) -> np.ndarray:
    return np.stack([s.features[case.place] for case, s in zip(these, sights, strict=True)])


def _row(
    judge: Judge,
    task: str,
    way: str,
    these: Sequence[Case],
    made: Sequence[Image.Image],
    reference: np.ndarray,
    seconds: float | None,
) -> Row:
    sights = _sights(judge, these, made)
    ranks = [
        min(sight.rank(case.place, name) for name in case.wanted)
        for case, sight in zip(these, sights, strict=True)
    ]
    holes = [(case, made) for case, made in zip(these, made, strict=True) if case.free is not None]
    return Row(
        task=task,
        way=way,
        n=len(these),
        unchanged=max(outside_error(c.scene, one, _free(c)) for c, one in holes) if holes else None,
        border=sum(border_gradient(one, _free(c)) for c, one in holes)
        / max(sum(border_gradient(c.scene, _free(c)) for c, _ in holes), 1e-9)
        if holes
        else None,
        top1=float(np.mean([rank <= 1 for rank in ranks])),
        top5=float(np.mean([rank <= 5 for rank in ranks])),
        apart=float(
            np.mean([apart(c.scene, one, c.free) for c, one in zip(these, made, strict=True)])
        ),
        frechet=frechet_distance(_features(these, sights), reference) if len(these) > 1 else None,
        seconds=seconds,
    )


def apart(before: Image.Image, after: Image.Image, free: np.ndarray | None) -> float:
    """The root-mean-square difference in grey levels where it is free (h w); None is everywhere."""
    difference = np.asarray(before, np.float64) - np.asarray(after, np.float64)
    inside = difference if free is None else difference[free]
    return float(np.sqrt(np.square(inside).mean()))


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
