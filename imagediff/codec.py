"""Pictures <-> latents, scaled the way the denoiser was trained on them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from shared.checkpoints import load_vae
from shared.linear_code import LinearCode, load_code
from shared.vae import AutoencoderKL


class ImageCodec:
    """A KL autoencoder that owns the scale and shift of its latents.

    Latents are ``(z - shift_factor) * scaling_factor`` (Rombach et al. 2022, arXiv 2112.10752,
    section D.1: rescaled to about unit variance), z the mode of the autoencoder's posterior.

    An autoencoder that was trained here keeps to a linear code: that is its encoder then, and its
    decoder is held to it (:meth:`shared.linear_code.LinearCode.corrected`).
    """

    def __init__(self, vae: AutoencoderKL, code: LinearCode | None = None) -> None:
        # The decoder of Stable Diffusion's VAE overflows float16 and returns NaN (black pictures);
        # the autoencoder runs once a picture, so float32 costs little.
        self.vae = vae.float() if _dtype(vae) == torch.float16 else vae
        # Stable Diffusion's first configs do not state its factor, which is diffusers' default.
        self.code = code
        self.scaling_factor = float(vae.config.get("scaling_factor", 0.18215))
        self.shift_factor = float(vae.config.get("shift_factor") or 0.0)

    @classmethod
    def load(
        cls,
        folder: Path | str,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> ImageCodec:
        """The codec of a ``vae`` folder.

        Raises:
            UserError: it is missing or at fault.
        """
        vae = load_vae(folder, device, dtype)
        factor = vae.downsampling
        return cls(vae, load_code(Path(folder), vae.latent_channels, (3, factor, factor)))

    @property
    def channels(self) -> int:
        """Channels of a latent."""
        return self.vae.latent_channels

    @property
    def factor(self) -> int:
        """Pixels along each side for one latent."""
        return self.vae.downsampling

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Images (b 3 h w) in [-1, 1] -> scaled latents (b c h/f w/f), float32.

        With ``noise``, of the latents' shape, a sample of the posterior instead of its mode.
        """
        if self.code is not None and noise is None:
            z = self.code.encode(images.float())
        else:
            posterior = self.vae.encode(images.to(_dtype(self.vae)))
            z = posterior.mode() if noise is None else posterior.sample(noise)
        return (z.float() - self.shift_factor) * self.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (b c h w) -> images (b 3 h*f w*f), float32, clamped to [-1, 1]."""
        z = latents / self.scaling_factor + self.shift_factor
        images = self.vae.decode(z.to(_dtype(self.vae))).float()
        return (images if self.code is None else self.code.corrected(images, z.float())).clamp(
            -1, 1
        )


def _dtype(module: torch.nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype
