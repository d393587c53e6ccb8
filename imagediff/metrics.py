"""Figures of merit: PSNR, colours by rule."""

from __future__ import annotations

import numpy as np
from PIL import Image

from imagediff.objects import BACKGROUNDS, PIXEL_SHOWS, TINTS, Color, oklab

BORDER = 1 / 64  # of the frame's side: what objects leave free


def psnr(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of pictures uint8 (n ...) against others, each alone: (n,).

    Equal pictures count as 1/12 of a squared grey level, what rounding to bytes costs.
    """
    difference = first.astype(np.float64) - second.astype(np.float64)
    squared = (difference**2).reshape(len(first), -1).mean(axis=1)
    return 10 * np.log10(255**2 / np.maximum(squared, 1 / 12))


def background_name(picture: Image.Image) -> str:
    """The named background colour nearest to the median pixel of the picture's border."""
    return _nearest(np.median(_border(oklab(_pixels(picture))), axis=0), BACKGROUNDS)


def paint_name(picture: Image.Image) -> str:
    """The named paint nearest to the median pixel of what differs from the background."""
    colors = oklab(_pixels(picture))
    away = _away(colors)
    shows = away > PIXEL_SHOWS
    # Where nothing shows there is no object; the pixel that differs most decides.
    thing = colors[shows] if shows.any() else colors[away == away.max()]
    return _nearest(np.median(thing, axis=0), TINTS)


def foreground(picture: Image.Image) -> Image.Image:
    """What stands out from a plain background, the border's median colour: mode L, 255 or 0."""
    return Image.fromarray((_away(oklab(_pixels(picture))) > PIXEL_SHOWS).astype(np.uint8) * 255)


def _away(colors: np.ndarray) -> np.ndarray:
    """How far Oklab colours (h w 3) are from the median one of the border: (h w)."""
    return np.linalg.norm(colors - np.median(_border(colors), axis=0), axis=-1)


def _pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB"))


def _border(colors: np.ndarray) -> np.ndarray:
    """The outermost pixels of (h w 3), as (n 3)."""
    height, width, _ = colors.shape
    depth = max(1, round(BORDER * min(height, width)))
    inside = np.zeros((height, width), dtype=bool)
    inside[depth:-depth, depth:-depth] = True
    return colors[~inside]


def _nearest(color: np.ndarray, named: dict[str, Color]) -> str:
    names = list(named)
    distances = np.linalg.norm(oklab(np.array([named[name] for name in names])) - color, axis=-1)
    return names[int(distances.argmin())]
