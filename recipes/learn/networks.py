"""The small networks of these recipes, in the forms that the core takes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictures import CLASSES, SIZE
from shared.conditioning import Conditioning
from shared.layers import channels_last, sinusoidal_embedding
from shared.unet import UNet
from shared.vae import AutoencoderKL, Posterior

NO_LABEL = CLASSES
PATCH = 2


class PatchUNet(nn.Module):
    """The core's U-Net on 2x2 patches: (b 1 28 28) as (b 4 14 14), at a quarter of the cost.

    Taking pixels apart into channels changes no distance, so noise and loss are what they were.
    The label comes as one token of context.
    """

    def __init__(self, channels: tuple[int, ...] = (24, 48)) -> None:
        super().__init__()
        levels = len(channels)
        config = {
            "in_channels": PATCH**2,
            "out_channels": PATCH**2,
            "block_out_channels": channels,
            "down_block_types": ["DownBlock2D"] * levels,
            "up_block_types": ["UpBlock2D"] * levels,
            "layers_per_block": 1,
            "cross_attention_dim": CLASSES + 1,
            "attention_head_dim": 2,
            "norm_num_groups": 8,
        }
        self.unet = channels_last(UNet.from_config(config))

    def forward(self, x: Tensor, c_noise: Tensor, cond: Conditioning) -> Tensor:
        """(b 1 h w), (b,) -> (b 1 h w)"""
        x = F.pixel_unshuffle(x, PATCH).contiguous(memory_format=torch.channels_last)
        return F.pixel_shuffle(self.unet(x, c_noise, cond), PATCH)


def label_context(labels: Tensor) -> Tensor:
    """Labels (b,), 10 for none, as contexts of one token: (b 1 11)."""
    return F.one_hot(labels, CLASSES + 1).float()[:, None]


class PointNetwork(nn.Module):
    """A perceptron for points (b 2 1 1) that looks at c_noise too."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 + 32, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2),
        )  # fmt: skip

    def forward(self, x: Tensor, c_noise: Tensor, cond: Conditioning) -> Tensor:
        """(b 2 1 1), (b,) -> (b 2 1 1)"""
        time = sinusoidal_embedding(100 * c_noise, 32)
        return self.layers(torch.cat([x.flatten(1), time], 1)).view_as(x)


class NoisyClassifier(nn.Module):
    """Which digit or garment it is, told from noisy pictures: (b 1 28 28), c_noise -> (b 10)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.layers = channels_last(
            nn.Sequential(
                nn.Conv2d(PATCH**2 + 1, width, 3, padding=1), nn.SiLU(),
                nn.Conv2d(width, 2 * width, 3, 2, padding=1), nn.GroupNorm(8, 2 * width), nn.SiLU(),
                nn.Conv2d(2 * width, 2 * width, 3, 2, padding=1), nn.GroupNorm(8, 2 * width),
                nn.SiLU(), nn.Flatten(), nn.Linear(2 * width * 16, CLASSES),
            )
        )  # fmt: skip

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """(b 1 28 28), the trained step (b,) -> logits (b 10)"""
        x = F.pixel_unshuffle(x, PATCH)
        time = (c_noise / 1000)[:, None, None, None].expand(-1, 1, *x.shape[2:])
        return self.layers(torch.cat([x, time], 1))


def small_vae(patch: int, widths: tuple[int, ...], latent_channels: int) -> AutoencoderKL:
    """The core's autoencoder on patches: one level a width, each but the last halving the size.

    Takes :func:`framed` pictures (b patch^2 n n), n = 32 / patch; its latents are
    (b latent_channels n/2^(levels-1) n/2^(levels-1)).
    """
    config = {
        "in_channels": patch**2,
        "out_channels": patch**2,
        "block_out_channels": widths,
        "layers_per_block": 1,
        "latent_channels": latent_channels,
        "norm_num_groups": 8,
        "mid_block_add_attention": False,
    }
    return channels_last(AutoencoderKL.from_config(config))


class PlaneVae(nn.Module):
    """An autoencoder of two latent numbers, of perceptrons.

    Not the core's, whose group normalization divides what it sees of a single place by its size:
    with it, one of the two numbers came to tell nothing of the drawn digits.
    """

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        pixels = SIZE * SIZE
        self.encoder, self.decoder = (
            nn.Sequential(
                nn.Linear(before, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
                nn.Linear(width, width), nn.SiLU(), nn.Linear(width, after),
            )
            for before, after in ((pixels, 4), (2, pixels))
        )  # fmt: skip

    def encode(self, images: Tensor) -> Posterior:
        """(b 1 28 28) -> where in the plane: (b 2 1 1)"""
        return Posterior(*self.encoder(images.flatten(1))[:, :, None, None].chunk(2, 1))

    def decode(self, latents: Tensor) -> Tensor:
        """(b 2 1 1) -> (b 1 28 28)"""
        return self.decoder(latents.flatten(1)).view(-1, 1, SIZE, SIZE)


class Codebook(nn.Module):
    """Codes that latents are rounded to, and how that is learnt (VQ-VAE, arXiv 1711.00937)."""

    def __init__(self, latents: Tensor, size: int) -> None:
        """Codes begin among some latents (b z h w), or most would never be the nearest."""
        super().__init__()
        places = latents.detach().permute(0, 2, 3, 1).flatten(0, 2)
        self.codes = nn.Parameter(places[torch.randperm(len(places))[:size]])

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (b z h w) -> the nearest codes (b z h w) and their numbers (b h w)."""
        places = latents.permute(0, 2, 3, 1)
        number = torch.cdist(places.flatten(0, 2), self.codes).argmin(1).view(places.shape[:3])
        return self.codes[number].permute(0, 3, 1, 2), number

    def bits(self, number: Tensor) -> float:
        """What the numbers of one item (b h w) take, by how often each code is used."""
        used = torch.bincount(number.flatten(), minlength=len(self.codes)) / number.numel()
        return -(used * used.clamp(min=1e-12).log2()).sum().item() * number[0].numel()


def framed(images: Tensor, patch: int) -> Tensor:
    """Pictures (b 1 28 28) in a black frame, 32 pixels a side, in patches: (b patch^2 n n)."""
    return F.pixel_unshuffle(F.pad(images, (2, 2, 2, 2), value=-1.0), patch)


def unframed(patches: Tensor) -> Tensor:
    """The inverse of :func:`framed`."""
    return F.pixel_shuffle(patches, round(patches.shape[1] ** 0.5))[:, :, 2:-2, 2:-2]
