"""Colours as recipes use them: read from a picture or written, and told apart as the eye does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageColor

from shared.errors import UserError

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""


def palette_of(picture: Image.Image, count: int) -> list[tuple[float, Colour]]:
    """The share of a picture that each of at most ``count`` colours stands for; largest first."""
    small = picture.convert("RGB").resize((64, 64), Image.Resampling.BOX)
    reduced = small.quantize(count, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    table = reduced.getpalette("RGB") or []
    found = [
        (number / (64 * 64), (table[3 * i], table[3 * i + 1], table[3 * i + 2]))
        for number, i in sorted(reduced.getcolors() or [], reverse=True)
        if isinstance(i, int)
    ]
    return found


def read_palette(words: Sequence[str]) -> list[tuple[float, Colour]]:
    """Colours by name or as "#rrggbb", equally shared, or those of the one picture that is named.

    Raises:
        UserError: a word that is no colour.
    """
    if len(words) == 1 and Path(words[0]).is_file():
        from imagediff.picture_file import open_picture
        from imagediff.pixels import to_rgb

        return palette_of(to_rgb(open_picture(Path(words[0]))), 5)
    try:
        return [(1 / len(words), _rgb(word)) for word in words]
    except ValueError as error:
        raise UserError(f"{error}; give colours such as teal or #30a0c0, or a picture") from None


def _rgb(word: str) -> Colour:
    red, green, blue, *_ = ImageColor.getrgb(word)
    return red, green, blue


def swatches(palette: Sequence[tuple[float, Colour]], size: tuple[int, int]) -> Image.Image:
    """The colours side by side, each as wide as its share."""
    drawn, x = Image.new("RGB", size, palette[-1][1]), 0.0
    for share, colour in palette:
        width = share * size[0]
        drawn.paste(colour, (round(x), 0, round(x + width), size[1]))
        x += width
    return drawn
