"""Training an upscaler on pictures of any kind: folders as :mod:`imagediff.data` reads them.

Completes the model folder ``out`` (see :mod:`imagediff.upscaler`); the run (checkpoint, log, sample
sheets) lives in ``out/runs/upscaler``.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from pydantic.dataclasses import dataclass as validated
from torch import Tensor, nn

from imagediff.data import Row, read_folder
from imagediff.enlarged_settings import FACTORS
from imagediff.metrics import psnr
from imagediff.sheets import from_pil, save_sheet
from imagediff.shrink import Wear, enlarge, shrink, worn
from imagediff.upscaler import Upscaler, build_upscaler, save_upscaler
from shared.conditioning import Conditioning
from shared.config import STRICT, read_config
from shared.denoiser import Denoiser
from shared.errors import UserError
from shared.layers import channels_last
from shared.noise import seeded_noise
from shared.train_denoiser import NoiseLevels, draw_sigmas
from shared.training import Draw, LoopConfig, train

EXAMPLES = 32  # pictures at the end of the data that the log's PSNR is of


@validated(frozen=True, config=STRICT)
@dataclass(frozen=True, kw_only=True)
class UpscalerConfig:
    """A run of ``train upscaler``.

    Attributes:
        unet: the ``config.json`` of diffusers' UNet2DConditionModel; see
            :mod:`imagediff.upscaler` for what its channels have to be.
        scheduler: the ``scheduler_config.json``: noise schedule and prediction type.
        residual_std: for each factor of 2 and 4, the standard deviation of what is to be made,
            a picture's difference from its bicubic enlargement, in [-1, 1].
        loop: see :class:`shared.training.LoopConfig`.
        crop: side in pixels of the squares that are trained on.
        halved: share of the pictures that are halved first, so that the network sees more scales.
        wear: what the small pictures suffered.
        noise: the noise levels.
    """

    unet: dict[str, Any]
    scheduler: dict[str, Any]
    residual_std: tuple[float, float]
    loop: LoopConfig
    crop: int = 64
    halved: float = 0.4
    wear: Wear = field(default_factory=Wear)
    noise: NoiseLevels = field(default_factory=NoiseLevels)
    art: Literal["image"] = "image"


class UpscalerObjective(nn.Module):
    """The denoiser's loss on residuals, told the enlarged picture and the factor."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(
        self, x0: Tensor, noise: Tensor, sigma: Tensor, enlarged: Tensor, factor: Tensor
    ) -> Tensor:
        """The loss (b,).

        Args:
            x0: (b c h w) folded residuals of unit variance.
            noise: likewise, standard normal.
            sigma: (b,) noise levels.
            enlarged: (b c h w) folded pictures.
            factor: (b,) places in ``FACTORS``.
        """
        x0, enlarged = (t.contiguous(memory_format=torch.channels_last) for t in (x0, enlarged))
        cond = Conditioning(vector=factor[:, None], concat=enlarged)
        return self.denoiser.loss(x0, noise, sigma, cond)


def train_upscaler(config_path: Path, data: Path, out: Path, resume: bool = False) -> None:
    """Train an upscaler on the pictures of a folder; write the model folder ``out``.

    Raises:
        UserError: the config or the data is at fault, or a run is there and ``resume`` is off.
    """
    config = read_config(config_path, UpscalerConfig)
    out = Path(out)
    run = out / "runs" / "upscaler"
    rows = read_folder(data)
    torch.manual_seed(config.loop.seed)
    upscaler = build_upscaler(config.unet, config.scheduler, config.residual_std)
    if config.crop % (max(FACTORS) * upscaler.fold):
        raise UserError(
            f"{config_path}: crop {config.crop} must be a multiple of {max(FACTORS)} pixels times "
            f"the {upscaler.fold} that are folded"
        )

    def make_batch(draws: Sequence[Draw]) -> tuple[Tensor, ...]:
        pairs = [_example(rows[draw.index], draw.seed, config) for draw in draws]
        factor = torch.tensor([FACTORS.index(pair.factor) for pair in pairs])
        enlarged = torch.cat([from_pil(pair.enlarged) for pair in pairs])
        residual = torch.cat([from_pil(pair.picture) for pair in pairs]) - enlarged
        std = torch.tensor(config.residual_std)[factor]
        x0 = upscaler.fold_pixels(residual / std[:, None, None, None])
        seeds = [draw.seed for draw in draws]
        uniforms = torch.stack(
            [
                torch.rand(2, generator=torch.Generator().manual_seed(seed ^ 0x5EED))
                for seed in seeds
            ]
        )
        sigma = draw_sigmas(uniforms, config.noise, upscaler.noise_schedule)
        noise = seeded_noise(seeds, x0.shape[1:])
        return x0, noise, sigma, upscaler.fold_pixels(enlarged), factor

    examples = [_open(row) for row in rows[-EXAMPLES:]]

    def report(step: int, objective: nn.Module) -> dict[str, Any]:
        assert isinstance(objective, UpscalerObjective)
        now = upscaler.with_denoiser(objective.denoiser)
        save_upscaler(now, config.scheduler, out)
        scores, tiles = _look(now, examples)
        save_sheet(tiles, run / "samples" / f"{step:06d}.png", columns=6)
        return scores

    objective = UpscalerObjective(channels_last(upscaler.denoiser))
    finished = train(
        objective, make_batch, len(rows), config.loop, run, resume=resume, report=report
    )
    assert isinstance(finished, UpscalerObjective)
    save_upscaler(upscaler.with_denoiser(finished.denoiser), config.scheduler, out)


@dataclass(frozen=True, eq=False)
class _Pair:
    """A square of a picture, and of the same enlarged from a picture ``factor`` times smaller."""

    picture: Image.Image
    enlarged: Image.Image
    factor: int


def _open(row: Row) -> Image.Image:
    try:
        with Image.open(row.path) as image:
            return image.convert("RGB")
    except (OSError, ValueError) as error:
        raise UserError(f"{row.path} cannot be read as a picture: {error}") from error


def _example(row: Row, seed: int, config: UpscalerConfig) -> _Pair:
    """What there is to learn from one picture, by its seed.

    Raises:
        UserError: the picture is smaller than the squares.
    """
    rng = random.Random(seed)
    picture = _open(row)
    crop, factor, coarsest = config.crop, rng.choice(FACTORS), max(FACTORS)
    if rng.random() < config.halved and min(picture.size) // 2 >= crop:
        picture = shrink(picture, 2, rng.choice(("box", "lanczos")))
    # Whole pixels of the small picture.
    width, height = (side // coarsest * coarsest for side in picture.size)
    if min(width, height) < crop:
        raise UserError(
            f"{row.path} is {picture.width}x{picture.height}; crop {crop} needs at least as much"
        )
    picture = picture.crop((0, 0, width, height))
    enlarged = enlarge(worn(picture, factor, config.wear, rng), factor)
    left, top = (
        rng.randrange((side - crop) // coarsest + 1) * coarsest for side in (width, height)
    )
    box = (left, top, left + crop, top + crop)
    return _Pair(picture.crop(box), enlarged.crop(box), factor)


def _look(upscaler: Upscaler, pictures: Sequence[Image.Image]) -> tuple[dict[str, Any], Tensor]:
    """PSNR of pictures shrunk and made large again, of bicubic and of ours; and some to look at."""
    scores: dict[str, Any] = {}
    tiles: list[Tensor] = []
    for factor in FACTORS:
        small = [shrink(picture, factor, "bicubic") for picture in pictures]
        results = {
            "bicubic": [enlarge(one, factor) for one in small],
            "ours": [upscaler(one, factor, seed=seed) for seed, one in enumerate(small)],
        }
        whole = [
            picture.crop((0, 0, *result.size))
            for picture, result in zip(pictures, results["ours"], strict=True)
        ]
        for name, made in results.items():
            values = [_psnr(a, b) for a, b in zip(whole, made, strict=True)]
            scores[f"psnr_{name}_x{factor}"] = round(float(np.mean(values)), 2)
        for row in zip(results["bicubic"], results["ours"], whole, strict=True):
            tiles += [from_pil(picture) for picture in row]
    # The sheet's pictures are of one size: those of the first one's.
    same = [tile for tile in tiles if tile.shape == tiles[0].shape]
    return scores, torch.cat(same[:24] + same[len(same) // 2 : len(same) // 2 + 24])


def _psnr(first: Image.Image, second: Image.Image) -> float:
    return float(psnr(np.asarray(first)[None], np.asarray(second)[None])[0])
