"""Training an autoencoder: pictures to latents and back.

Writes ``out/vae``; the run (checkpoint, log, pictures beside their reconstructions) lives in
``out/runs/vae``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from pydantic.dataclasses import dataclass as validated
from torch import Tensor, nn

from imagediff.data import Row, read_folder
from imagediff.latents import load_images
from imagediff.linear_code import FILE as CODE_FILE
from imagediff.linear_code import LinearCode, fit
from imagediff.metrics import psnr
from imagediff.sheets import save_sheet, to_grey_levels
from shared.checkpoints import load_vae, save_component
from shared.config import STRICT, read_config
from shared.errors import UserError
from shared.layers import channels_last
from shared.noise import seeded_noise
from shared.training import Draw, LoopConfig, train
from shared.vae import AutoencoderKL


@validated(frozen=True, config=STRICT)
@dataclass(frozen=True)
class VAEConfig:
    """A run of ``train vae``.

    Attributes:
        model: the ``config.json`` of diffusers' AutoencoderKL.
        loop: see :class:`shared.training.LoopConfig`.
        anchor_weight: of the squared distance between the encoder's mean and the linear code.
        kl_weight: of the posterior's divergence from the standard normal, a latent element.
        latent_noise: standard deviation of noise on the latents that the decoder learns from; it
            will meet a denoiser's imperfect ones.
        code_images: pictures that the linear code is fitted on.
        crop: side in pixels of the random squares that are trained on, in multiples of the latents'
            patches; 0 takes whole pictures. Backgrounds are flat: crops tell more a pixel.
        init: a ``vae`` folder whose weights to begin with.
    """

    model: dict[str, Any]
    loop: LoopConfig
    anchor_weight: float = 1.0
    kl_weight: float = 1e-6
    latent_noise: float = 0.05
    code_images: int = 4000
    crop: int = 0
    init: str | None = None


class VAEObjective(nn.Module):
    """Reconstruction, closeness to the linear code, and a touch of KL."""

    def __init__(self, vae: AutoencoderKL, config: VAEConfig) -> None:
        super().__init__()
        self.vae = vae
        self.config = config

    def forward(self, images: Tensor, code: Tensor, noise: Tensor) -> Tensor:
        """(b 3 h w), (b z h/f w/f) code, standard normal noise likewise -> loss (b,)."""
        posterior = self.vae.encode(images.contiguous(memory_format=torch.channels_last))
        # The decoder learns from the code itself, so that it and the encoder never chase each
        # other: either can be trained on when the other is done.
        noisy = code + self.config.latent_noise * noise
        decoded = self.vae.decode(noisy.contiguous(memory_format=torch.channels_last))
        error = decoded.float() - images
        # L1 keeps edges; the square is what PSNR counts.
        reconstruction = error.abs().flatten(1).mean(1) + 2 * error.square().flatten(1).mean(1)
        anchor = (posterior.mean.float() - code).square().flatten(1).mean(1)
        kl = posterior.kl().float() / posterior.mean[0].numel()
        return reconstruction + self.config.anchor_weight * anchor + self.config.kl_weight * kl


def train_vae(config_path: Path, data: Path, out: Path, resume: bool = False) -> None:
    """Train an autoencoder on the pictures of a folder; write ``out/vae``.

    Raises:
        UserError: the config or the data is at fault, or a run is there and ``resume`` is off.
    """
    config = read_config(config_path, VAEConfig)
    rows = read_folder(data)
    vae = AutoencoderKL.from_config(config.model)
    if config.init is not None:
        vae.load_state_dict(load_vae(Path(config.init)).state_dict())
    folder = Path(out) / "vae"
    folder.mkdir(parents=True, exist_ok=True)
    with PartialState().main_process_first():
        if not (folder / CODE_FILE).exists():
            every = max(1, len(rows) // config.code_images)
            fit(_image_batches(rows[::every]), vae.latent_channels, vae.downsampling).save(folder)
    code = LinearCode.load(folder)

    def make_batch(draws: Sequence[Draw]) -> tuple[Tensor, ...]:
        seeds = [draw.seed for draw in draws]
        images = load_images([rows[draw.index].path for draw in draws])
        if config.crop:
            images = random_crops(images, config.crop, code.factor, seeds)
        latents = code.encode(images)
        return images, latents, seeded_noise(seeds, latents.shape[1:])

    examples = load_images([row.path for row in rows[-32:]])
    latents = code.encode(examples)

    @torch.no_grad()
    def report(step: int, objective: nn.Module) -> dict[str, Any]:
        assert isinstance(objective, VAEObjective)
        _save_vae(objective.vae, folder)
        device = next(objective.parameters()).device
        means = objective.vae.encode(examples.to(device)).mean
        decoded = objective.vae.decode(means).clamp(-1, 1).cpu()
        pairs = torch.stack([examples[:16], decoded[:16]], dim=1).flatten(0, 1)
        save_sheet(pairs, Path(out) / "runs" / "vae" / "samples" / f"{step:06d}.png", columns=8)
        return {
            "psnr": round(float(psnr(to_grey_levels(examples), to_grey_levels(decoded)).mean()), 2),
            "code_error": round((means.cpu() - latents).square().mean().sqrt().item(), 4),
        }

    objective = VAEObjective(channels_last(vae), config)
    run = Path(out) / "runs" / "vae"
    trained_one = train(
        objective, make_batch, len(rows), config.loop, run, resume=resume, report=report
    )
    assert isinstance(trained_one, VAEObjective)
    _save_vae(trained_one.vae, folder)


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


def _save_vae(vae: AutoencoderKL, folder: Path) -> None:
    # The code's latents have unit variance already.
    vae.config = {"scaling_factor": 1.0, **vae.config}
    save_component(vae, folder)


def _image_batches(rows: Sequence[Row], size: int = 64) -> Iterator[Tensor]:
    for start in range(0, len(rows), size):
        yield load_images([row.path for row in rows[start : start + size]])
