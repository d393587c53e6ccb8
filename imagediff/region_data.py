"""Regions to train on: boxes and outlines of a data set's objects, and holes to be filled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from imagediff.data import Row
from imagediff.regions import MOST_REGIONS, stacked
from imagediff.shapes import box_of, box_shares, coarse, from_hex
from shared.errors import UserError

Grid = tuple[int, int]
"""Rows and columns of cells: those of the latents."""

FINE = 4  # points along each side of a cell by which an ellipse is measured


@dataclass(frozen=True, eq=False)
class Regions:
    """The regions of one picture.

    Attributes:
        boxes: x, y, width and height in shares of the picture's sides.
        outlines: float32 (GRID GRID) of 0 and 1, see :mod:`imagediff.shapes`.
        phrases: what each holds: numbers of :attr:`RegionData.phrases`.
    """

    boxes: tuple[tuple[float, float, float, float], ...]
    outlines: tuple[bytes, ...]
    phrases: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class RegionData:
    """The regions of a data set: ``phrases``, each once, and ``items`` by picture."""

    phrases: list[str]
    items: list[Regions]


def read_regions(rows: Sequence[Row], size: tuple[int, int]) -> RegionData:
    """The columns ``phrases``, ``boxes`` and ``shapes`` that ``duotone data scenes`` writes.

    Args:
        size: width and height of the pictures in pixels.

    Raises:
        UserError: a row lacks them, or they do not fit each other or the picture.
    """
    numbers: dict[str, int] = {}
    items = [_read(row, size, numbers) for row in rows]
    return RegionData(list(numbers), items)


def _read(row: Row, size: tuple[int, int], numbers: dict[str, int]) -> Regions:
    columns = (row.labels.get(name) for name in ("phrases", "boxes", "shapes"))
    phrases, boxes, shapes = (column if isinstance(column, list) else [] for column in columns)
    fits = (
        1 <= len(phrases) <= MOST_REGIONS
        and len(phrases) == len(boxes) == len(shapes)
        and all(isinstance(phrase, str) for phrase in phrases)
        and all(_is_box(box, size) for box in boxes)
    )
    if not fits:
        raise UserError(
            f"{row.path}: its row needs phrases, boxes (x, y, width, height inside the picture) "
            f"and shapes of 1 to {MOST_REGIONS} objects, as duotone data scenes writes them"
        )
    width, height = size
    return Regions(
        tuple((x / width, y / height, w / width, h / height) for x, y, w, h in boxes),
        tuple(np.packbits(from_hex(shape).astype(bool)).tobytes() for shape in shapes),
        tuple(numbers.setdefault(phrase, len(numbers)) for phrase in phrases),
    )


def _is_box(box: object, size: tuple[int, int]) -> bool:
    if not isinstance(box, list) or len(box) != 4:
        return False
    if not all(isinstance(value, int | float) for value in box):
        return False
    x, y, width, height = box
    return x >= 0 and y >= 0 and x + width <= size[0] and y + height <= size[1]


def draw_shares(regions: Regions, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """How much of each cell each region fills, in a shape drawn by lot: float32 (r rows columns).

    Boxes, ellipses in the box, outlines and outlines that were grown: what people draw.
    """
    shape = SHAPES[rng.choice(len(SHAPES), p=[0.45, 0.15, 0.15, 0.25])]
    shares = [
        shape(box, outline, grid, rng)
        for box, outline in zip(regions.boxes, regions.outlines, strict=True)
    ]
    return stacked(shares)


ShareFn = Callable[
    [tuple[float, float, float, float], bytes, Grid, np.random.Generator], np.ndarray
]


def _box(
    box: tuple[float, float, float, float], outline: bytes, grid: Grid, rng: np.random.Generator
) -> np.ndarray:
    return box_shares(box, (1, 1), grid)


def _ellipse(
    box: tuple[float, float, float, float], outline: bytes, grid: Grid, rng: np.random.Generator
) -> np.ndarray:
    x, y, width, height = box
    rows, columns = ((np.arange(n * FINE) + 0.5) / (n * FINE) for n in grid)
    across = (columns - x - width / 2) / (width / 2 + 1e-6)
    down = (rows - y - height / 2) / (height / 2 + 1e-6)
    # A bit more than the ellipse in the box: people draw around things.
    inside = across**2 + down[:, None] ** 2 < rng.uniform(1, 1.4)
    return coarse(inside, grid)


def _outline(
    box: tuple[float, float, float, float], outline: bytes, grid: Grid, rng: np.random.Generator
) -> np.ndarray:
    return coarse(_bits(outline), grid)


def _grown(
    box: tuple[float, float, float, float], outline: bytes, grid: Grid, rng: np.random.Generator
) -> np.ndarray:
    return coarse(grow(_bits(outline), int(rng.integers(1, 4))), grid)


SHAPES: tuple[ShareFn, ...] = (_box, _ellipse, _outline, _grown)


def _bits(outline: bytes) -> np.ndarray:
    bits = np.unpackbits(np.frombuffer(outline, np.uint8))
    side = round(len(bits) ** 0.5)
    return bits.reshape(side, side).astype(bool)


def grow(inside: np.ndarray, steps: int) -> np.ndarray:
    """What is true in (h w) and its neighbours, so many times over."""
    for _ in range(steps):
        wide = inside.copy()
        wide[1:] |= inside[:-1]
        wide[:-1] |= inside[1:]
        inside = wide.copy()
        inside[:, 1:] |= wide[:, :-1]
        inside[:, :-1] |= wide[:, 1:]
    return inside


def draw_hole(regions: Regions, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Cells to be filled, bool (rows columns), not all of them: drawn by lot.

    A box, a few boxes, margins, or one of the objects with its surroundings.
    """
    hole = HOLES[rng.choice(len(HOLES), p=[0.3, 0.15, 0.3, 0.25])](regions, grid, rng)
    if hole.all():
        hole[rng.integers(grid[0]), :] = False  # something has to be known
    return hole


def _hole_box(regions: Regions, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    hole = np.zeros(grid, bool)
    height, width = (int(rng.integers(max(2, n // 5), n)) for n in grid)
    top, left = (
        int(rng.integers(0, n - extent + 1))
        for n, extent in zip(grid, (height, width), strict=True)
    )
    hole[top : top + height, left : left + width] = True
    return hole


def _hole_boxes(regions: Regions, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    hole = np.zeros(grid, bool)
    for _ in range(int(rng.integers(2, 5))):
        height, width = (int(rng.integers(1, max(2, n // 2))) for n in grid)
        top, left = (
            int(rng.integers(0, n - side + 1))
            for n, side in zip(grid, (height, width), strict=True)
        )
        hole[top : top + height, left : left + width] = True
    return hole


def _hole_margins(regions: Regions, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    hole = np.zeros(grid, bool)
    for _ in range(int(rng.integers(1, 3))):
        axis, far = int(rng.integers(2)), bool(rng.integers(2))
        depth = int(rng.integers(2, max(3, round(0.7 * grid[axis]))))
        rim = np.arange(grid[axis]) < depth
        rim = rim[::-1] if far else rim
        hole |= rim[:, None] if axis == 0 else rim
    return hole


def _hole_object(regions: Regions, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    outline = regions.outlines[int(rng.integers(len(regions.outlines)))]
    hole = coarse(grow(_bits(outline), int(rng.integers(1, 6))), grid) > 0
    if rng.random() < 0.5:  # the box around it
        x, y, width, height = box_of(hole)
        hole[y : y + height, x : x + width] = True
    return hole


HoleFn = Callable[[Regions, Grid, np.random.Generator], np.ndarray]

HOLES: tuple[HoleFn, ...] = (_hole_box, _hole_boxes, _hole_margins, _hole_object)


def lies_in(regions: Regions, hole: np.ndarray) -> list[int]:
    """Which of the regions lie in the hole altogether; the share of one in a hundred may not."""
    inside = []
    for number, outline in enumerate(regions.outlines):
        shares = coarse(_bits(outline), (hole.shape[0], hole.shape[1]))
        if shares[~hole].sum() <= 0.01 * max(shares.sum(), 1e-6):
            inside.append(number)
    return inside
