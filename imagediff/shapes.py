"""Shapes of regions: boxes and outlines, as pixels, as text, and as shares of a coarse grid."""

from __future__ import annotations

import numpy as np
from PIL import Image

from imagediff.layout_settings import Box
from shared.errors import UserError

GRID = 32  # rows and columns of an outline that is kept as text


def box_of(inside: np.ndarray) -> Box:
    """The box that what is true in (h w) fills; of no extent where nothing is."""
    if not inside.any():
        return (0, 0, 0, 0)
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    return (
        *(int(columns[0]), int(rows[0])),
        *(int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1),
    )


def to_hex(shares: np.ndarray, grid: tuple[int, int] = (GRID, GRID)) -> str:
    """Shares 0..1 (h w) of pixels as an outline in hexadecimal digits.

    One bit for each cell of a grid of rows and columns, row by row: whether more than half of it
    is inside.
    """
    return np.packbits(coarse(shares, grid) > 0.5).tobytes().hex()


def from_hex(text: str, grid: tuple[int, int] = (GRID, GRID)) -> np.ndarray:
    """What :func:`to_hex` wrote, as float32 (rows columns) of 0 and 1.

    Raises:
        UserError: it is not that.
    """
    count = grid[0] * grid[1]
    try:
        packed = np.frombuffer(bytes.fromhex(text), np.uint8)
    except (ValueError, TypeError):
        packed = np.zeros(0, np.uint8)
    if len(packed) != -(-count // 8):
        raise UserError(f"an outline of {count} cells is {-(-count // 8) * 2} hexadecimal digits")
    return np.unpackbits(packed, count=count).reshape(grid).astype(np.float32)


def coarse(shares: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The mean of shares (h w) in each cell of a grid of rows and columns, float32."""
    image = Image.fromarray(np.asarray(shares, np.float32), "F")
    return np.asarray(image.resize((grid[1], grid[0]), Image.Resampling.BOX))


def box_shares(
    box: tuple[float, float, float, float], size: tuple[int, int], grid: tuple[int, int]
) -> np.ndarray:
    """How much of each cell lies in a box, exactly: float32 (rows columns).

    Args:
        box: x, y, width and height in pixels.
        size: width and height of the picture in pixels.
        grid: rows and columns.
    """
    sides = [
        _overlap(start, extent, length, cells)
        for start, extent, length, cells in zip(box[:2], box[2:], size, grid[::-1], strict=True)
    ]
    return np.outer(sides[1], sides[0]).astype(np.float32)


def _overlap(start: float, extent: float, length: int, cells: int) -> np.ndarray:
    """The share (cells,) of each of the cells of a length that lies in start .. start + extent."""
    edges = np.arange(cells + 1) * (length / cells)
    inside = np.clip(edges, start, start + extent)
    return np.diff(inside) * (cells / length)
