"""Pictures <-> latents, scaled the way the denoiser was trained on them."""

import torch
from torch import Tensor

from shared.vae import AutoencoderKL


class ImageCodec:
    """A KL autoencoder that owns the scale and shift of its latents.

    Latents are ``(z - shift_factor) * scaling_factor`` (Rombach et al. 2022, arXiv 2112.10752,
    section D.1: rescaled to about unit variance), z the mode of the autoencoder's posterior.
    """

    def __init__(self, vae: AutoencoderKL) -> None:
        # The decoder of Stable Diffusion's VAE overflows float16 and returns NaN (black pictures);
        # the autoencoder runs once a picture, so float32 costs little.
        self.vae = vae.float() if _dtype(vae) == torch.float16 else vae
        # Stable Diffusion's first configs do not state its factor, which is diffusers' default.
        self.scaling_factor = float(vae.config.get("scaling_factor", 0.18215))
        self.shift_factor = float(vae.config.get("shift_factor") or 0.0)

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
        posterior = self.vae.encode(images.to(_dtype(self.vae)))
        z = posterior.mode() if noise is None else posterior.sample(noise)
        return (z.float() - self.shift_factor) * self.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (b c h w) -> images (b 3 h*f w*f), float32, clamped to [-1, 1]."""
        z = latents / self.scaling_factor + self.shift_factor
        return self.vae.decode(z.to(_dtype(self.vae))).float().clamp(-1, 1)


def _dtype(module: torch.nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype
