"""Training an autoencoder: pictures to latents and back.

Writes ``out/vae``; the run (checkpoint, log, pictures beside their reconstructions) lives in
``out/runs/vae``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic.dataclasses import dataclass as validated
from torch import Tensor, nn

from imagediff.data import Row, read_folder
from imagediff.latents import load_images
from imagediff.metrics import psnr
from imagediff.sheets import save_sheet, to_grey_levels
from shared.config import STRICT, read_config
from shared.errors import UserError
from shared.layers import channels_last
from shared.train_autoencoder import (
    AutoencoderConfig,
    AutoencoderObjective,
    build_autoencoder,
    fitted_code,
    latent_noise,
    save_autoencoder,
)
from shared.training import Draw, train


@validated(frozen=True, config=STRICT)
@dataclass(frozen=True, kw_only=True)
class VAEConfig(AutoencoderConfig):
    """A run of ``train vae`` on pictures, besides what any autoencoder's training asks for.

    Attributes:
        code_images: pictures that the linear code is fitted on.
        crop: side in pixels of the random squares that are trained on, in multiples of the latents'
            patches; 0 takes whole pictures. Backgrounds are flat: crops tell more a pixel.
    """

    art: Literal["image"] = "image"
    code_images: int = 4000
    crop: int = 0


def train_vae(config_path: Path, data: Path, out: Path, resume: bool = False) -> None:
    """Train an autoencoder on the pictures of a folder; write ``out/vae``.

    Raises:
        UserError: the config or the data is at fault, or a run is there and ``resume`` is off.
    """
    config = read_config(config_path, VAEConfig)
    rows = read_folder(data)
    vae = build_autoencoder(config)
    folder = Path(out) / "vae"
    every = max(1, len(rows) // config.code_images)
    factor = vae.downsampling
    code = fitted_code(
        folder, lambda: _image_batches(rows[::every]), vae.latent_channels, (factor, factor)
    )

    def make_batch(draws: Sequence[Draw]) -> tuple[Tensor, ...]:
        seeds = [draw.seed for draw in draws]
        images = load_images([rows[draw.index].path for draw in draws])
        if config.crop:
            images = random_crops(images, config.crop, factor, seeds)
        latents = code.encode(images)
        return images, latents, latent_noise(seeds, latents.shape[1:], config)

    examples = load_images([row.path for row in rows[-32:]])
    latents = code.encode(examples)

    @torch.no_grad()
    def report(step: int, objective: nn.Module) -> dict[str, Any]:
        assert isinstance(objective, AutoencoderObjective)
        save_autoencoder(objective.vae, folder)
        device = next(objective.parameters()).device
        means = objective.vae.encode(examples.to(device)).mean
        decoded = objective.vae.decode(means).clamp(-1, 1).cpu()
        pairs = torch.stack([examples[:16], decoded[:16]], dim=1).flatten(0, 1)
        save_sheet(pairs, Path(out) / "runs" / "vae" / "samples" / f"{step:06d}.png", columns=8)
        return {
            "psnr": round(float(psnr(to_grey_levels(examples), to_grey_levels(decoded)).mean()), 2),
            "code_error": round((means.cpu() - latents).square().mean().sqrt().item(), 4),
        }

    objective = AutoencoderObjective(channels_last(vae), config)
    run = Path(out) / "runs" / "vae"
    trained_one = train(
        objective, make_batch, len(rows), config.loop, run, resume=resume, report=report
    )
    assert isinstance(trained_one, AutoencoderObjective)
    save_autoencoder(trained_one.vae, folder)


def random_crops(images: Tensor, side: int, grid: int, seeds: Sequence[int]) -> Tensor:
    """A square of each picture (b 3 h w), its corner on a multiple of ``grid``, by its seed.

    Raises:
        UserError: the pictures are smaller than the squares, or the side is off the grid.
    """
    height, width = images.shape[2:]
    if side % grid or side > min(height, width):
        raise UserError(
            f"crop {side} must be a multiple of {grid} and at most {min(height, width)}, "
            "the shorter side of the pictures"
        )
    crops = []
    for image, seed in zip(images, seeds, strict=True):
        generator = torch.Generator().manual_seed(seed)
        top, left = (
            int(torch.randint((length - side) // grid + 1, (), generator=generator)) * grid
            for length in (height, width)
        )
        crops.append(image[:, top : top + side, left : left + side])
    return torch.stack(crops)


def _image_batches(rows: Sequence[Row], size: int = 64) -> Iterator[Tensor]:
    for start in range(0, len(rows), size):
        yield load_images([row.path for row in rows[start : start + size]])
