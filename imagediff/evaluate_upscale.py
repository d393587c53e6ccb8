"""How good an upscaler is: real scenes made small, and large again by it and by rules."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from imagediff.adherence import Prompt, draw_by_lot, in_top, see
from imagediff.evaluate import REAL_SEEDS, real_pictures
from imagediff.judge import Judge
from imagediff.metrics import psnr
from imagediff.shrink import SHRINKING, enlarge, shrink
from imagediff.upscale_settings import DEFAULT_SAMPLER, DEFAULT_SCHEDULE, DEFAULT_STEPS
from imagediff.upscaler import Upscaler
from shared.naming import choose
from shared.report import grid
from shared.statistics import mean_interval, wilson

# Factor, and the side in pixels of what is made larger. The judge looks at 48 pixels, so that only
# pictures much smaller than that leave it in doubt; the others are of a size that users have.
CASES = ((2, 12), (2, 64), (4, 8), (4, 32))
RULES = ("bicubic", "lanczos")

Interval = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """What was measured of one way to make scenes larger.

    Attributes:
        factor, side: of what was made larger, its side in pixels.
        method: "ours", a rule, or "real" for the scenes themselves.
        psnr: mean over the scenes in dB, with its 95 % interval.
        gain: mean of the differences to bicubic's PSNR, scene by scene, with its interval.
        top1, top5: share of the scenes in which the judge sees what is there; top1's interval.
        seconds: a picture.
    """

    factor: int
    side: int
    method: str
    n: int
    psnr: float | None
    psnr_interval: Interval | None
    gain: float | None
    gain_interval: Interval | None
    top1: float
    top1_interval: Interval
    top5: float
    seconds: float | None


@dataclass(frozen=True)
class UpscaleReport:
    """All rows, and what they were measured on."""

    settings: dict[str, Any]
    rows: list[Row]

    def record(self) -> dict[str, Any]:
        """The report as JSON knows it."""
        return asdict(self)

    def table(self) -> str:
        """The report as people read it."""
        head = (
            *("", "", "PSNR", "95 % interval", "to bicubic", "95 % interval"),
            *("top-1", "95 % interval", "top-5", "seconds"),
        )
        rows = [
            (
                f"{row.side} to {row.side * row.factor} px",
                row.method,
                _number(row.psnr),
                _interval(row.psnr_interval),
                _number(row.gain, "+.2f"),
                _interval(row.gain_interval, "+.2f"),
                f"{row.top1:.3f}",
                _interval(row.top1_interval, ".3f"),
                f"{row.top5:.3f}",
                _number(row.seconds),
            )
            for row in self.rows
        ]
        legend = (
            "PSNR in dB against the scene; top-1, top-5: share in which the judge sees each object "
            "that is there; real: the scenes themselves"
        )
        return grid(self.settings, [head, *rows], legend, left=2)


def evaluate_upscale(
    upscaler: Upscaler,
    judge: Judge,
    prompts: Sequence[Prompt],
    *,
    how: str = "bicubic",
    limit: int | None = None,
    seed: int = 0,
    steps: int = DEFAULT_STEPS,
    sampler: str = DEFAULT_SAMPLER,
    schedule: str = DEFAULT_SCHEDULE,
    cases: Sequence[tuple[int, int]] = CASES,
) -> UpscaleReport:
    """Make scenes of prompts small and large again, and measure what came out.

    Args:
        how: one of ``SHRINKING``, by which they are made small.
        limit: at most so many prompts of each kind, drawn by lot.
        seed: prompt number i gets the seed ``seed + i``.
        cases: factor, and side in pixels of the small scenes.

    Raises:
        UserError: a name or a number that there is not, or no emoji font.
    """
    choose("way to shrink", how, {name: name for name in SHRINKING})
    these = draw_by_lot(prompts, limit, seed)
    facts = upscaler.plan((1, 1), cases[0][0], steps=steps, sampler=sampler, schedule=schedule)
    rows = []
    for factor, side in cases:
        scenes = real_pictures(these, REAL_SEEDS[0], side * factor)
        small = [shrink(scene, factor, how) for scene in scenes]

        seeds = [seed + prompt.number for prompt in these]
        base: np.ndarray | None = None
        for name in (*RULES, "ours"):
            start = time.perf_counter()
            pairs = tqdm(list(zip(small, seeds, strict=True)), f"{side} px, {name}", leave=False)
            if name in RULES:
                made = [enlarge(picture, factor, name) for picture, _ in pairs]
            else:
                made = [
                    upscaler(
                        picture, factor, steps=steps, sampler=sampler, schedule=schedule, seed=one
                    )
                    for picture, one in pairs
                ]
            seconds = (time.perf_counter() - start) / len(these)
            values = psnr(_stack(scenes), _stack(made))
            base = values if base is None else base  # bicubic is the first
            rows.append(_row(judge, (factor, side), name, these, made, values, base, seconds))
        rows.append(_row(judge, (factor, side), "real", these, scenes, None, None, None))
    record = facts.record()
    kept = ("model", "model_hash", "steps", "sampler", "schedule", "device", "dtype")
    settings = {key: record[key] for key in kept} | {"shrink": how, "seed": seed, "n": len(these)}
    return UpscaleReport(settings, rows)


def _row(
    judge: Judge,
    case: tuple[int, int],
    method: str,
    these: Sequence[Prompt],
    made: Sequence[Image.Image],
    values: np.ndarray | None,
    base: np.ndarray | None,
    seconds: float | None,
) -> Row:
    pairs = list(zip(these, see(judge, these, made), strict=True))
    first = sum(in_top(*pair, 1) for pair in pairs)
    gains = None if values is None or base is None or values is base else values - base
    return Row(
        factor=case[0],
        side=case[1],
        method=method,
        n=len(these),
        psnr=None if values is None else float(values.mean()),
        psnr_interval=None if values is None else mean_interval(values),
        gain=None if gains is None else float(gains.mean()),
        gain_interval=None if gains is None else mean_interval(gains),
        top1=first / len(these),
        top1_interval=wilson(first, len(these)),
        top5=sum(in_top(*pair, 5) for pair in pairs) / len(these),
        seconds=seconds,
    )


def _stack(pictures: Sequence[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(picture) for picture in pictures])


def _number(value: float | None, form: str = ".2f") -> str:
    return "" if value is None else format(value, form)


def _interval(interval: Interval | None, form: str = ".2f") -> str:
    return "" if interval is None else " to ".join(format(end, form) for end in interval)
