"""How good a text-to-image model is: prompts followed, pictures like real ones, time taken."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from imagediff.adherence import Prompt, Sight, adherence, draw_by_lot, judge_features, see
from imagediff.codec import ImageCodec
from imagediff.data import render, scene_at
from imagediff.judge import Judge
from imagediff.metrics import psnr
from imagediff.objects import FONT
from imagediff.pipeline import ImagePipeline
from imagediff.scenes import Scene
from imagediff.sheets import captioned_sheet, from_pil, to_pil
from shared.files import whole_file
from shared.report import Figure, table
from shared.settings import DEFAULT_SAMPLER, DEFAULT_SCHEDULE, PROMPT_ALONE, GuidanceSettings
from shared.statistics import frechet_distance, mean_interval

REAL_SEEDS = (7_000_003, 7_000_033)  # of the two sets of real scenes
HELD_OUT_SERIES = 10_000_019  # of scenes, for the autoencoder; training takes others
RECONSTRUCTIONS = 200
UNSAID_GRADIENT = 0.25  # of training captions with "on a red background", so many show a gradient
SHEET_PICTURES = 64


def real_pictures(prompts: Sequence[Prompt], seed: int, size: int) -> list[Image.Image]:
    """A scene drawn for the labels of each prompt.

    Raises:
        UserError: the emoji font is not installed.
    """
    pictures = []
    for prompt in tqdm(prompts, "real scenes", unit="picture", leave=False):
        rng = random.Random(f"{seed}/{prompt.number}")
        gradient = prompt.background is not None and rng.random() < UNSAID_GRADIENT
        labels = (prompt.relation, prompt.colour, prompt.background)
        scene = Scene(
            prompt.kind, prompt.objects, *labels, gradient, prompt.text, rng.getrandbits(32)
        )
        pictures.append(render(scene, size))
    return pictures


@torch.inference_mode()
def reconstruction_psnr(
    codec: ImageCodec, count: int, size: int, device: torch.device | str = "cpu"
) -> np.ndarray:
    """PSNR in dB (count,) of held-out real scenes after the autoencoder, rounded to bytes.

    Raises:
        UserError: the emoji font is not installed.
    """
    values = []
    for index in tqdm(range(count), "autoencoder", unit="picture", leave=False):
        picture = render(scene_at(HELD_OUT_SERIES, index), size)
        (again,) = to_pil(codec.decode(codec.encode(from_pil(picture).to(device))))
        values.append(psnr(np.asarray(picture)[None], np.asarray(again)[None]))
    return np.concatenate(values)


@dataclass(frozen=True)
class Report:
    """All figures, by key, and what they were measured on."""

    settings: dict[str, Any]
    figures: dict[str, Figure]

    def record(self) -> dict[str, Any]:
        """The report as JSON knows it."""
        return asdict(self)

    def table(self) -> str:
        """The report as people read it."""
        legend = "real: real scenes of the same labels; swapped: prompts swapped among the pictures"
        return table(self.settings, self.figures.values(), legend)


def evaluate(
    pipeline: ImagePipeline,
    judge: Judge,
    prompts: Sequence[Prompt],
    *,
    limit: int | None = None,
    seed: int = 0,
    steps: int = 25,
    guidance_scale: float = 4.0,
    sampler: str = DEFAULT_SAMPLER,
    schedule: str = DEFAULT_SCHEDULE,
    guidance: GuidanceSettings = PROMPT_ALONE,
    sheet: Path | None = None,
    say: Callable[[str], None] | None = None,
) -> Report:
    """Make a picture of each prompt and measure what came out.

    Args:
        limit: at most so many prompts of each group, drawn by lot.
        seed: prompt number i gets the seed ``seed + i``.
        sheet: where to write a sheet of 64 prompts, drawn by lot from all.
        say: takes a line for the user about what cannot be measured.

    Raises:
        UserError: a value that the model or the sampler does not take.
    """
    chosen = draw_by_lot(prompts, limit, seed)
    shown = random.Random(seed).sample(list(prompts), min(SHEET_PICTURES, len(prompts)))
    numbers = {prompt.number for prompt in (*chosen, *(shown if sheet else ()))}
    wanted = [prompt for prompt in prompts if prompt.number in numbers]
    plan = [
        settings
        for prompt in wanted
        for settings in pipeline.plan(
            prompt.text,
            seed=seed + prompt.number,
            steps=steps,
            guidance_scale=guidance_scale,
            sampler=sampler,
            schedule=schedule,
            guidance=guidance,
        )
    ]
    start = time.perf_counter()
    made = tqdm(pipeline.generate(plan), "pictures", len(plan), unit="picture", leave=False)
    pictures = {prompt.number: picture for prompt, picture in zip(wanted, made, strict=True)}
    seconds = (time.perf_counter() - start) / len(plan)
    if sheet is not None:
        tiles = [pictures[prompt.number] for prompt in shown]
        with whole_file(sheet, overwrite=True) as file:
            captioned_sheet(tiles, [prompt.text for prompt in shown]).save(file, format="PNG")

    sights = see(judge, chosen, [pictures[prompt.number] for prompt in chosen])
    size = pipeline.native_size[0]
    real: list[tuple[Sequence[Prompt], list[Sight]]] = []
    if FONT.exists():
        for real_seed in REAL_SEEDS:
            real.append((chosen, see(judge, chosen, real_pictures(chosen, real_seed, size))))
    elif say is not None:
        say(f"Without the emoji font ({FONT}) there are no real scenes to compare with")

    figures = adherence(chosen, sights, real)
    if real and len(chosen) > 1:
        features, *references = (judge_features(*these) for these in ((chosen, sights), *real))
        figures["frechet"] = Figure(
            "Fréchet distance, judge's features",
            frechet_distance(features, references[0]),
            len(features),
            real=frechet_distance(references[1], references[0]),
        )
        count = RECONSTRUCTIONS if limit is None else min(RECONSTRUCTIONS, limit)
        values = reconstruction_psnr(pipeline.codec, count, size, pipeline.device)
        figures["psnr"] = Figure(
            "autoencoder, PSNR", float(values.mean()), count, mean_interval(values), unit="dB"
        )
    figures["seconds"] = Figure("time a picture", seconds, len(plan), unit="s")
    facts = plan[0].record()
    kept = ("model", "model_hash", "steps", "guidance_scale", "sampler", "device", "dtype")
    threads = {"threads": torch.get_num_threads()} if pipeline.device.type == "cpu" else {}
    student = {"student": True} if pipeline.student else {}
    settings = {key: facts[key] for key in kept} | student | guidance.stated() | threads
    return Report(settings | {"seed": seed, "prompts": len(chosen)}, figures)
