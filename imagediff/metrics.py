"""Figures of merit: Fréchet distance, PSNR, colours by rule."""

from __future__ import annotations

import numpy as np
from PIL import Image

from imagediff.objects import BACKGROUNDS, PIXEL_SHOWS, TINTS, Color, oklab

BORDER = 1 / 64  # of the frame's side: what objects leave free


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Distance of two sets of features (n d), taken as Gaussians.

    ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))``: Heusel et al. 2017, arXiv 1706.08500, equation
    6. It depends on the size of the sets: compare only with a distance of sets as large.
    """
    means = [features.mean(axis=0, dtype=np.float64) for features in (first, second)]
    left, right = (
        np.cov(features.astype(np.float64), rowvar=False) for features in (first, second)
    )
    # (C1 C2)^(1/2) has the trace of the root of the symmetric C1^(1/2) C2 C1^(1/2).
    values, vectors = np.linalg.eigh(np.atleast_2d(left))
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    product = np.linalg.eigvalsh(root @ np.atleast_2d(right) @ root)
    trace = np.trace(np.atleast_2d(left + right)) - 2 * np.sqrt(product.clip(min=0)).sum()
    return float(np.sum((means[0] - means[1]) ** 2) + trace)


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
