"""Layouts: regions of a picture and what each is to hold, as settings and as people write them.

Boxes come from JSON, coloured regions from a map with a legend. What a record keeps of a region is
the box, or its outline in cells of a few pixels, so that no map is needed to make it again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageFilter

from imagediff.layout_settings import Box, Layout, Region
from imagediff.objects import Color, oklab
from imagediff.shapes import box_of, box_shares, coarse, from_hex, to_hex
from shared.errors import UserError

MOST_REGIONS = 4  # of a layout: as many as the carried adapter was trained with
CELL = 4  # pixels along each side of a cell of a recorded outline
LEAST = 1 / 400  # of the map: smaller spots of a colour are no region
SOLID = 5  # pixels: edges between colours, where they mix, are narrower
NEAR = 0.1  # Oklab: within this a pixel has a colour of the legend
SAME_SHAPE = 0.02  # how much the proportions of a map may differ from the picture's
PAPER: tuple[Color, ...] = ((255, 255, 255), (0, 0, 0))  # background unless the legend names it


def check_layout(layout: Layout, size: tuple[int, int]) -> None:
    """Refuse a layout that does not suit a picture of this width and height.

    Raises:
        UserError: too many regions, one that holds nothing, or one outside the picture.
    """
    if len(layout) > MOST_REGIONS:
        raise UserError(f"a layout has at most {MOST_REGIONS} regions, not {len(layout)}")
    for region in layout:
        if not region.what.strip():
            raise UserError("a region of the layout does not say what it is to hold")
        if (region.box is None) == (region.outline is None):
            raise UserError(f"the region of {region.what!r} needs a box or an outline")
        if region.box is not None:
            _check_box(region.box, region.what, size)
        if not shares_of(region, size, cells(size)).any():
            raise UserError(f"the region of {region.what!r} is empty")


def _check_box(box: Box, what: str, size: tuple[int, int]) -> None:
    x, y, width, height = box
    if min(x, y) < 0 or min(width, height) < 1 or x + width > size[0] or y + height > size[1]:
        raise UserError(
            f"the box {','.join(map(str, box))} of {what!r} does not lie in the picture of "
            f"{size[0]}x{size[1]} pixels"
        )


def cells(size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the cells of outlines in a picture of this width and height."""
    return max(1, size[1] // CELL), max(1, size[0] // CELL)


def shares_of(region: Region, size: tuple[int, int], grid: tuple[int, int]) -> np.ndarray:
    """How much of each cell of a grid of rows and columns it fills: float32 of 0..1.

    Raises:
        UserError: an outline of another size.
    """
    if region.box is not None:
        return box_shares(region.box, size, grid)
    return coarse(from_hex(region.outline or "", cells(size)), grid)


def stacked(shares: Sequence[np.ndarray]) -> np.ndarray:
    """Regions, each lying over those before it: (r rows columns), together at most 1."""
    result = np.stack(shares)
    for below in range(len(result) - 1):
        result[below] *= np.prod(1 - np.stack(shares[below + 1 :]), axis=0)
    return result


@dataclass(frozen=True, eq=False)
class Drawn:
    """A layout as its file has it, of no size yet.

    Attributes:
        boxes: what each holds and where, in pixels of the picture that is to be made.
        masks: what each holds, and the map's pixels (h w) that are its own.
    """

    boxes: tuple[tuple[str, Box], ...] = ()
    masks: tuple[tuple[str, np.ndarray], ...] = ()

    def prompt(self) -> str:
        """What a picture with this layout shows, in the words of the captions."""
        from imagediff.scattered import sentence

        boxes = self.boxes + tuple((what, box_of(mask)) for what, mask in self.masks)
        return sentence(
            [what for what, _ in boxes],
            [(x + width / 2, y + height / 2) for _, (x, y, width, height) in boxes],
        )

    def at(self, size: tuple[int, int]) -> Layout:
        """The layout of a picture of this width and height, checked.

        Raises:
            UserError: it does not suit it.
        """
        regions = [Region(what, box=box) for what, box in self.boxes]
        for what, mask in self.masks:
            height, width = mask.shape
            if abs(width * size[1] / (height * size[0]) - 1) > SAME_SHAPE:
                raise UserError(
                    f"the map has {width}x{height} pixels, which are other proportions than those "
                    f"of the picture of {size[0]}x{size[1]}"
                )
            regions.append(Region(what, outline=to_hex(mask, cells(size))))
        layout = tuple(regions)
        check_layout(layout, size)
        return layout


def read_layout(path: Path, legend: str | None) -> Drawn:
    """A layout's file: boxes in JSON, or a map with its legend.

    Raises:
        UserError: it cannot be read, or says something that is no layout.
    """
    if path.suffix.lower() == ".json":
        if legend is not None:
            raise UserError("--legend is for maps; boxes say themselves what they hold")
        return Drawn(boxes=_read_boxes(path))
    if legend is None:
        raise UserError(
            'a map needs --legend: what each colour is, as "red=a dog, #00ff00=a tree", or a JSON '
            "file of colours and phrases"
        )
    return Drawn(masks=_read_map(path, read_legend(legend)))


def _read_boxes(path: Path) -> tuple[tuple[str, Box], ...]:
    wanted = '[{"box": [x, y, width, height], "what": "a dog"}, ...] in whole pixels'
    rows = _read_json(path)
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{str(path)!r} holds no boxes; it needs {wanted}")
    found = []
    for row in rows:
        match row:
            case {"box": [int(x), int(y), int(width), int(height)], "what": str(what)}:
                found.append((what, (x, y, width, height)))
            case _:
                told = f"{json.dumps(row):.60}"
                raise UserError(f"{str(path)!r}: {told} is no region; it needs {wanted}")
    return tuple(found)


def read_legend(text: str) -> dict[Color, str]:
    """ "red=a dog, #00ff00=a tree", or the name of a JSON file of colours and phrases.

    Raises:
        UserError: not of that form, or a colour that there is not.
    """
    if text.lower().endswith(".json"):
        pairs = _read_json(Path(text))
        if not isinstance(pairs, dict) or not all(isinstance(v, str) for v in pairs.values()):
            raise UserError(f'{text!r} must hold colours and phrases, as {{"red": "a dog"}}')
    else:
        parts = [part.partition("=") for part in text.split(",")]
        if not all(equals and what.strip() for _, equals, what in parts):
            raise UserError(f"a legend is COLOUR=PHRASE, ..., as red=a dog, not {text!r}")
        pairs = {colour.strip(): what.strip() for colour, _, what in parts}
    legend: dict[Color, str] = {}
    for name, what in pairs.items():
        try:
            red, green, blue = ImageColor.getrgb(name)[:3]
        except ValueError:
            raise UserError(
                f"the legend's {name!r} is no colour; names such as red and #rrggbb are"
            ) from None
        if (red, green, blue) in legend:
            raise UserError(f"the legend names the colour {name!r} twice")
        legend[red, green, blue] = what
    if not legend:
        raise UserError("the legend names no colour")
    return legend


def _read_map(path: Path, legend: dict[Color, str]) -> tuple[tuple[str, np.ndarray], ...]:
    from imagediff.picture_file import open_picture

    image = open_picture(path).image.convert("RGBA")
    pixels = np.asarray(image)
    opaque = pixels[..., 3] > 127
    named = [*legend, *(color for color in PAPER if color not in legend)]
    distances = np.linalg.norm(
        oklab(pixels[..., None, :3]) - oklab(np.array(named, dtype=np.float64)), axis=-1
    )
    nearest = np.where(opaque, distances.argmin(-1), len(legend))
    stray = opaque & (distances.min(-1) > NEAR)
    solid = np.asarray(Image.fromarray(stray).convert("L").filter(ImageFilter.MinFilter(SOLID)))
    if solid.any():
        colours, counts = np.unique(pixels[solid > 0][:, :3], axis=0, return_counts=True)
        most = "#{:02x}{:02x}{:02x}".format(*colours[counts.argmax()])
        told = ", ".join("#{:02x}{:02x}{:02x}".format(*color) for color in legend)
        raise UserError(
            f"the map {str(path)!r} has the colour {most}, which the legend does not name "
            f"({told}; white, black and transparent are background)"
        )
    regions = []
    for number, (color, what) in enumerate(legend.items()):
        mask = nearest == number
        if mask.mean() < LEAST:
            name = "#{:02x}{:02x}{:02x}".format(*color)
            raise UserError(f"the map {str(path)!r} has no region of {name}, the legend's {what!r}")
        regions.append((what, mask))
    return tuple(regions)


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{str(path)!r} is not valid JSON ({error})") from None
