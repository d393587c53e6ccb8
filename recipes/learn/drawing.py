"""Pictures of results, with Pillow: sheets of small grey pictures, and plots in the plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

LINE = 14  # height of a line of text in pixels
FINE = 3  # plots are drawn that much larger, then reduced: smooth lines
Colour = tuple[int, int, int]
BLUE, ORANGE, GREY = (40, 90, 200), (225, 110, 20), (150, 150, 150)
# Ten colours to tell classes apart.
PALETTE: tuple[Colour, ...] = (
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189),
    (140, 86, 75), (227, 119, 194), (127, 127, 127), (188, 189, 34), (23, 190, 207),
)  # fmt: skip


def grey(image: Tensor, scale: int = 1) -> Image.Image:
    """One picture (1 h w) in [-1, 1], each pixel ``scale`` pixels wide."""
    levels = ((image[0].float().clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
    return Image.fromarray(levels.repeat(scale, 0).repeat(scale, 1)).convert("RGB")


def sheet(
    rows: Sequence[Tensor],
    row_labels: Sequence[str],
    column_labels: Sequence[str] = (),
    scale: int = 2,
) -> Image.Image:
    """Rows of pictures (n 1 h w) in [-1, 1], a label before each row and above each column."""
    height, width = (side * scale + 2 for side in rows[0].shape[2:])
    left = 8 + max(int(_font().getlength(label)) for label in row_labels)
    top = LINE + 4 if column_labels else 2
    size = (left + width * max(map(len, rows)), top + height * len(rows))
    page = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(page)
    for i, label in enumerate(column_labels):
        draw.text((left + (i + 0.5) * width, 2), label, "black", _font(), anchor="ma")
    for j, (row, label) in enumerate(zip(rows, row_labels, strict=True)):
        draw.text((4, top + (j + 0.5) * height), label, "black", _font(), anchor="lm")
        for i, image in enumerate(row):
            page.paste(grey(image, scale), (left + i * width, top + j * height))
    return page


@dataclass(frozen=True, eq=False)
class Plot:
    """A part of the plane as a picture under construction.

    Attributes:
        low, high: its lower left and upper right corner.
        image: ``FINE`` times the size that :func:`finished` gives.
    """

    low: tuple[float, float]
    high: tuple[float, float]
    image: Image.Image

    def place(self, points: Tensor) -> list[tuple[float, float]]:
        """Points (n 2) as pixels, y upwards."""
        low, high = np.array(self.low), np.array(self.high)
        shares = (points.double().numpy() - low) / (high - low)
        size = np.array(self.image.size)
        pixels = np.stack([shares[:, 0], 1 - shares[:, 1]], 1) * size
        # Pillow's limits are those of 32 bits; what is far outside only has to stay outside.
        return [tuple(pixel) for pixel in pixels.clip(-10 * size, 10 * size).tolist()]


def plot(
    low: tuple[float, float], high: tuple[float, float], size: tuple[int, int] = (240, 240)
) -> Plot:
    """An empty plot of so many pixels."""
    return Plot(low, high, Image.new("RGB", (size[0] * FINE, size[1] * FINE), "white"))


def shade(on: Plot, values: Tensor) -> None:
    """Fill the plot with values (rows columns) in 0 .. 1, white to grey, the top row first."""
    levels = (255 - 110 * values.clamp(0, 1)).byte().numpy()
    picture = Image.fromarray(levels).resize(on.image.size, Image.Resampling.BILINEAR)
    on.image.paste(picture.convert("RGB"))


def dots(on: Plot, points: Tensor, colour: Colour, radius: float = 1.2) -> None:
    """Points (n 2)."""
    draw, reach = ImageDraw.Draw(on.image), radius * FINE
    for x, y in on.place(points):
        draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=colour)


def line(on: Plot, points: Tensor, colour: Colour, width: float = 1.0) -> None:
    """A line through points (n 2)."""
    ImageDraw.Draw(on.image).line(on.place(points), colour, round(width * FINE), joint="curve")


def journeys(path: Tensor, edge: float, title: str, lines: int = 50) -> Image.Image:
    """States (steps + 1, n, 2) from their start (orange) to their end (blue), some ways grey."""
    panel = plot((-edge, -edge), (edge, edge), (300, 300))
    for way in path.transpose(0, 1)[:lines]:
        line(panel, way, GREY, 0.7)
    dots(panel, path[0, :400], ORANGE)
    dots(panel, path[-1, :400], BLUE)
    return finished(panel, title)


def finished(done: Plot, title: str) -> Image.Image:
    """The plot with a frame and a title above it."""
    width, height = (side // FINE for side in done.image.size)
    page = Image.new("RGB", (width + 6, height + LINE + 8), "white")
    page.paste(done.image.resize((width, height), Image.Resampling.LANCZOS), (3, LINE + 5))
    draw = ImageDraw.Draw(page)
    draw.rectangle((2, LINE + 4, width + 3, height + LINE + 5), outline=GREY)
    draw.text((4, 2), title, "black", _font())
    return page


def beside(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures from left to right, their tops at one height."""
    size = (sum(p.width for p in pictures), max(p.height for p in pictures))
    page = Image.new("RGB", size, "white")
    x = 0
    for picture in pictures:
        page.paste(picture, (x, 0))
        x += picture.width
    return page


def below(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures from top to bottom, their left sides in one line."""
    size = (max(p.width for p in pictures), sum(p.height for p in pictures))
    page = Image.new("RGB", size, "white")
    y = 0
    for picture in pictures:
        page.paste(picture, (0, y))
        y += picture.height
    return page


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=LINE - 3)
