"""What training an autoencoder is in either art: a linear code to keep to, and the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from shared.checkpoints import load_vae, save_component
from shared.linear_code import FILE, LinearCode, fit
from shared.noise import seeded_noise
from shared.training import LoopConfig, processes
from shared.vae import AutoencoderKL

NotNegative = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """What a run of ``train vae`` asks for in either art.

    Attributes:
        model: the ``config.json`` of diffusers' AutoencoderKL.
        loop: see :class:`shared.training.LoopConfig`.
        anchor_weight: of the squared distance between the encoder's mean and the linear code.
        kl_weight: of the posterior's divergence from the standard normal, a latent element.
        latent_noise: least and greatest standard deviation of noise on the latents that the decoder
            learns from, drawn evenly for each sample; it will meet a denoiser's imperfect ones.
        init: a ``vae`` folder whose weights to begin with.
        train_encoder: off, only the decoder learns; with ``init``, latents stay what they were, so
            that a denoiser trained in them goes on fitting. A ``model`` without an encoder
            (``_encoder: linear code``) has none to learn.
    """

    model: dict[str, Any]
    loop: LoopConfig
    anchor_weight: float = 1.0
    kl_weight: float = 1e-6
    latent_noise: tuple[NotNegative, NotNegative] = (0.05, 0.05)
    init: str | None = None
    train_encoder: bool = True


class AutoencoderObjective(nn.Module):
    """Reconstruction, closeness to the linear code, and a touch of KL."""

    def __init__(self, vae: AutoencoderKL, config: AutoencoderConfig) -> None:
        super().__init__()
        self.vae = vae
        self.config = config

    def forward(self, media: Tensor, code: Tensor, noise: Tensor) -> Tensor:
        """(b c h w), (b z h/f w/f) code and what noise is added to it -> loss (b,)."""
        # The decoder learns from the code itself, so that it and the encoder never chase each
        # other: either can be trained on when the other is done.
        noisy = (code + noise).contiguous(memory_format=torch.channels_last)
        decoded = self.vae.decode(noisy)
        error = decoded.float() - media
        # L1 keeps edges; the square is what PSNR counts.
        reconstruction = error.abs().flatten(1).mean(1) + 2 * error.square().flatten(1).mean(1)
        if self.vae.encoder is None or not self.config.train_encoder:
            return reconstruction
        posterior = self.vae.encode(media.contiguous(memory_format=torch.channels_last))
        anchor = (posterior.mean.float() - code).square().flatten(1).mean(1)
        kl = posterior.kl().float() / posterior.mean[0].numel()
        return reconstruction + self.config.anchor_weight * anchor + self.config.kl_weight * kl


def latent_noise(seeds: Sequence[int], shape: Sequence[int], config: AutoencoderConfig) -> Tensor:
    """The noise (b z h w) that latents of a shape (z h w) are given, by their seeds."""
    low, high = config.latent_noise
    # A second stream for the scalars: the first one's start is the noise itself.
    generators = [torch.Generator().manual_seed(seed ^ 0x5EED) for seed in seeds]
    shares = torch.stack([torch.rand(1, 1, 1, generator=generator) for generator in generators])
    return (low + (high - low) * shares) * seeded_noise(seeds, shape)


def build_autoencoder(config: AutoencoderConfig) -> AutoencoderKL:
    """The autoencoder that a run begins with.

    Raises:
        UserError: the config is at fault.
    """
    vae = AutoencoderKL.from_config(config.model)
    if config.init is not None:
        found = load_vae(Path(config.init)).state_dict()
        if vae.encoder is None:  # that of the other is not asked for
            found = {
                k: v for k, v in found.items() if not k.startswith(("encoder.", "quant_conv."))
            }
        vae.load_state_dict(found)
    if not config.train_encoder:
        for part in (vae.encoder, vae.quant_conv):
            if part is not None:
                part.requires_grad_(False)
    return vae


def fitted_code(
    folder: Path, media: Callable[[], Iterable[Tensor]], channels: int, patch: tuple[int, int]
) -> LinearCode:
    """The linear code in ``folder``; the first process fits it on ``media`` if there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    with processes().main_process_first():
        if not (folder / FILE).exists():
            fit(media(), channels, patch).save(folder)
    return LinearCode.load(folder)


def save_autoencoder(vae: AutoencoderKL, folder: Path) -> None:
    """Write a ``vae`` folder."""
    # The code's latents have unit variance already.
    vae.config = {"scaling_factor": 1.0, **vae.config}
    save_component(vae, folder)
