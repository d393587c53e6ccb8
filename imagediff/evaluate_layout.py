"""How well layouts are kept: where things are drawn, and what is drawn there."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from tqdm import tqdm

from imagediff.data import Drawing, draw, scene_at
from imagediff.evaluate import HELD_OUT_SERIES
from imagediff.judge import SIDE, Judge, look
from imagediff.layout_settings import Box, Layout, Region
from imagediff.metrics import foreground
from imagediff.pipeline import ImagePipeline
from imagediff.regions import cells, shares_of
from imagediff.scattered import sentence
from imagediff.scenes import ON_BACKGROUND, Scene, with_article
from imagediff.shapes import box_of, to_hex
from shared.report import Figure, table
from shared.settings import DEFAULT_SAMPLER, PROMPT_ALONE, GuidanceSettings
from shared.statistics import mean_interval, wilson

CASES = 60
VISIBLE = 0.15  # of a pixel: where an object begins
FILLS = 0.83  # of the longer side of what the judge looks at: as it learnt objects to fill frames


@dataclass(frozen=True, eq=False)
class Case:
    """A layout taken from a scene that training never saw.

    Attributes:
        boxes: whether regions are boxes; outlines otherwise.
    """

    scene: Scene
    drawing: Drawing
    layout: Layout
    boxes: bool
    prompt: str

    @property
    def group(self) -> tuple[int, bool]:
        """Cases of one group ask for as many regions of the same sort."""
        return len(self.layout), self.boxes


def cases(count: int, seed: int, size: int) -> list[Case]:
    """Every second one with boxes; plain backgrounds, no repainted objects.

    Raises:
        UserError: the emoji font is not installed.
    """
    found: list[Case] = []
    number = 0
    while len(found) < count:
        scene = scene_at(HELD_OUT_SERIES + seed, number, anywhere=True)
        number += 1
        if scene.gradient or scene.colour is not None:
            continue
        found.append(_case(scene, size, boxes=len(found) % 2 == 0))
    return found


def _case(scene: Scene, size: int, boxes: bool) -> Case:
    drawing, whole = draw(scene, size), (size, size)
    found = [box_of(share > VISIBLE) for share in drawing.shares]
    layout = tuple(
        Region(what, box=box) if boxes else Region(what, outline=to_hex(share, cells(whole)))
        for what, box, share in zip(scene.phrases, found, drawing.shares, strict=True)
    )
    centres = [(x + width / 2, y + height / 2) for x, y, width, height in found]
    text = sentence(scene.phrases, centres)
    if scene.background is not None:
        text = ON_BACKGROUND[0].format(text, with_article(scene.background))
    return Case(scene, drawing, layout, boxes, text)


def overlap(picture: Image.Image, layout: Layout) -> float:
    """Intersection over union of what stands out from the background and what was asked for.

    Of outlines: all of them together. Of boxes: of each with the box around what is nearer to it
    than to the others, and the mean of these.
    """
    shows = np.asarray(foreground(picture).filter(ImageFilter.MedianFilter(3))) > 0  # no specks
    height, width = shows.shape
    size, grid = (width, height), (height, width)
    if layout[0].box is None:
        asked = np.any([shares_of(region, size, grid) > 0.5 for region in layout], axis=0)
        return float((shows & asked).sum() / max((shows | asked).sum(), 1))
    wanted = [region.box for region in layout if region.box is not None]
    distances = np.stack([_distance(box, grid) for box in wanted])
    nearest = distances.argmin(0)
    found = [box_of(shows & (nearest == number)) for number in range(len(wanted))]
    return float(np.mean([_box_overlap(*pair) for pair in zip(wanted, found, strict=True)]))


def _distance(box: Box, grid: tuple[int, int]) -> np.ndarray:
    """How far each pixel (rows columns) is from a box; within it, how near to its centre."""
    rows, columns = (np.arange(n) + 0.5 for n in grid)
    x, y, width, height = box
    across = np.abs(columns - x - width / 2) / (width / 2)
    down = np.abs(rows - y - height / 2) / (height / 2)
    outside = np.hypot(
        np.maximum(across - 1, 0) * width / 2, (np.maximum(down - 1, 0) * height / 2)[:, None]
    )
    return np.where(outside > 0, outside, np.maximum(across, down[:, None]) - 1)


def _box_overlap(first: Box, second: Box) -> float:
    sides = [
        max(0, min(a + p, b + q) - max(a, b))
        for a, p, b, q in zip(first[:2], first[2:], second[:2], second[2:], strict=True)
    ]
    shared = sides[0] * sides[1]
    return shared / (first[2] * first[3] + second[2] * second[3] - shared)


def region_view(picture: Image.Image, box: Box) -> np.ndarray:
    """What is in a box as the judge takes it, in a square: uint8 (SIDE SIDE 3)."""
    x, y, width, height = box
    side = max(width, height) / FILLS
    left, top = x + (width - side) / 2, y + (height - side) / 2
    pixels = np.asarray(picture.convert("RGB"))
    margin = int(side) + 1
    wide = np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    crop = (left + margin, top + margin, left + side + margin, top + side + margin)
    return np.asarray(
        Image.fromarray(wide).resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=crop)
    )


def _ranks(judge: Judge, these: Sequence[Case], pictures: Sequence[Image.Image]) -> np.ndarray:
    """The judge's rank (n objects) of every object of the vocabulary in every region."""
    views = [
        region_view(picture, box_of(share > VISIBLE))
        for case, picture in zip(these, pictures, strict=True)
        for share in case.drawing.shares
    ]
    scores = look(judge, views)[0].numpy()
    return (scores[:, None, :] >= scores[:, :, None]).sum(-1)


@dataclass(frozen=True)
class LayoutReport:
    """All figures, by key, and what they were measured on."""

    settings: dict[str, Any]
    figures: dict[str, Figure]

    def record(self) -> dict[str, Any]:
        """The report as JSON knows it."""
        return asdict(self)

    def table(self) -> str:
        """The report as people read it."""
        legend = (
            "real: the scenes that the layouts were taken from; swapped: layouts swapped among "
            "pictures of as many regions"
        )
        return table(self.settings, self.figures.values(), legend)


def evaluate_layout(
    pipeline: ImagePipeline,
    judge: Judge,
    *,
    limit: int | None = None,
    seed: int = 0,
    steps: int = 25,
    guidance_scale: float = 4.0,
    sampler: str = DEFAULT_SAMPLER,
    guidance: GuidanceSettings = PROMPT_ALONE,
) -> LayoutReport:
    """Draw layouts of held-out scenes and measure where things are and what they are.

    Beside the adapter stands the model alone, told the same prompts and no layout.

    Args:
        limit: layouts, instead of CASES.
        seed: of the first picture; the next have ``seed + 1``, ...

    Raises:
        UserError: the model carries no adapter, a value that the sampler does not take, or no
            emoji font.
    """
    adapted = pipeline.adapted
    these = cases(limit or CASES, seed, pipeline.native_size[0])

    def drawn(by: ImagePipeline, told: bool) -> list[Image.Image]:
        plan = [
            settings
            for number, case in enumerate(these)
            for settings in by.plan(
                case.prompt,
                seed=seed + number,
                steps=steps,
                guidance_scale=guidance_scale,
                sampler=sampler,
                guidance=guidance,
                layout=case.layout if told else (),
            )
        ]
        made = tqdm(by.generate(plan), "pictures", len(plan), unit="picture", leave=False)
        return list(made)

    start = time.perf_counter()
    pictures = drawn(adapted, True)
    seconds = (time.perf_counter() - start) / len(these)
    real = [case.drawing.picture for case in these]
    figures = _overlaps(these, pictures, real, drawn(pipeline, False))
    figures |= _contents(judge, these, pictures, real)
    figures["seconds"] = Figure("time a picture", seconds, len(these), unit="s")
    (facts,) = adapted.plan("-", steps=steps, guidance_scale=guidance_scale, sampler=sampler)
    kept = ("model", "model_hash", "steps", "guidance_scale", "sampler", "device", "dtype")
    settings = {key: facts.record()[key] for key in kept} | guidance.stated()
    if pipeline.device.type == "cpu":
        settings["threads"] = torch.get_num_threads()
    return LayoutReport(settings | {"seed": seed, "layouts": len(these)}, figures)


def _overlaps(
    these: Sequence[Case],
    pictures: Sequence[Image.Image],
    real: Sequence[Image.Image],
    alone: Sequence[Image.Image],
) -> dict[str, Figure]:
    """Intersections over unions, by sort of region and by how many there are."""
    other = swapped(these)

    def values(seen: Sequence[Image.Image], asked: Sequence[Case]) -> np.ndarray:
        pairs = zip(seen, asked, strict=True)
        return np.array([overlap(picture, case.layout) for picture, case in pairs])

    made, true, floor = values(pictures, these), values(real, these), values(pictures, other)
    untold = values(alone, these)

    def figure(title: str, which: Callable[[Case], bool], of: np.ndarray, floor: np.ndarray | None):
        chosen = np.array([which(case) for case in these])
        return Figure(
            title,
            float(of[chosen].mean()),
            int(chosen.sum()),
            mean_interval(of[chosen]),
            real=float(true[chosen].mean()),
            swapped=None if floor is None else float(floor[chosen].mean()),
        )

    counts = sorted({len(case.layout) for case in these})
    return {
        "iou": figure("intersection over union", lambda case: True, made, floor),
        **{
            f"iou_{name}": figure(
                f"  {name}", lambda case, want=want: case.boxes == want, made, floor
            )
            for name, want in (("boxes", True), ("outlines", False))
            if any(case.boxes == want for case in these)
        },
        **{
            f"iou_{count}": figure(
                f"  {count} region{'s' if count > 1 else ''}",
                lambda case, count=count: len(case.layout) == count,
                made,
                floor,
            )
            for count in counts
        },
        "iou_alone": figure("  the model without a layout", lambda case: True, untold, None),
    }


def swapped(these: Sequence[Case]) -> list[Case]:
    """To each case another one of its group, if there is one."""
    rng = random.Random(0)
    result = list(these)
    for group in {case.group for case in these}:
        members = [number for number, case in enumerate(these) if case.group == group]
        rng.shuffle(members)
        for number, other in zip(members, members[1:] + members[:1], strict=True):
            result[number] = these[other]
    return result


def _contents(
    judge: Judge,
    these: Sequence[Case],
    pictures: Sequence[Image.Image],
    real: Sequence[Image.Image],
) -> dict[str, Figure]:
    """Whether the judge sees in each region what was asked for there."""
    numbers = {name: number for number, name in enumerate(judge.names)}
    asked = np.array([numbers[name] for case in these for name in case.scene.objects])
    rows = np.arange(len(asked))
    made, true = _ranks(judge, these, pictures), _ranks(judge, these, real)
    other = np.roll(asked, 1)
    figures = {}
    for k in (1, 5):
        hits = made[rows, asked] <= k
        figures[f"region_top{k}"] = Figure(
            f"object in its region, top-{k}",
            float(hits.mean()),
            len(hits),
            wilson(int(hits.sum()), len(hits)),
            real=float((true[rows, asked] <= k).mean()),
            swapped=float((made[rows, other] <= k).mean()),
        )
    return figures
