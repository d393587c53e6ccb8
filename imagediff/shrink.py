"""Making pictures smaller in the ways that pictures become small, and larger by rule."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter
from pydantic.dataclasses import dataclass as validated

from shared.config import STRICT

RESAMPLINGS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
SHRINKING = ("box", "bilinear", "hamming", "bicubic", "lanczos")  # those that take all pixels in


@validated(frozen=True, config=STRICT)
@dataclass(frozen=True, kw_only=True)
class Wear:
    """How often and how much pictures suffer on the way, beside becoming smaller.

    Attributes:
        blur, jpeg, noise: share of the pictures that are blurred before they are shrunk, and
            compressed or made noisy after it.
        radius: standard deviation of the blur, at most, in pixels of the small picture.
        quality: of the JPEG compression, at least; 95 at most.
        grain: standard deviation of the noise in grey levels, at most.
    """

    blur: float = 0.1
    jpeg: float = 0.1
    noise: float = 0.1
    radius: float = 0.6
    quality: int = 60
    grain: float = 4.0


def shrink(picture: Image.Image, factor: int, how: str) -> Image.Image:
    """The picture ``factor`` times smaller, its sides rounded down; at least one pixel."""
    size = (max(1, picture.width // factor), max(1, picture.height // factor))
    return picture.resize(size, RESAMPLINGS[how])


def enlarge(picture: Image.Image, factor: int, how: str = "bicubic") -> Image.Image:
    """The picture ``factor`` times larger, by a rule."""
    return picture.resize((picture.width * factor, picture.height * factor), RESAMPLINGS[how])


def worn(picture: Image.Image, factor: int, wear: Wear, rng: random.Random) -> Image.Image:
    """The picture (RGB) ``factor`` times smaller, in a way and with a wear drawn by lot."""
    if rng.random() < wear.blur:
        radius = rng.uniform(0, wear.radius) * factor
        picture = picture.filter(ImageFilter.GaussianBlur(radius))
    small = shrink(picture, factor, rng.choice(SHRINKING))
    if rng.random() < wear.noise:
        grain = np.random.default_rng(rng.getrandbits(64)).normal(
            0, rng.uniform(0, wear.grain), (small.height, small.width, 3)
        )
        levels = np.asarray(small, np.float32) + grain
        small = Image.fromarray(levels.round().clip(0, 255).astype(np.uint8))
    if rng.random() < wear.jpeg:
        file = io.BytesIO()
        small.save(file, "JPEG", quality=rng.randint(wear.quality, 95))
        small = Image.open(file).convert("RGB")
    return small
