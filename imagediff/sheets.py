"""Contact sheets."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from shared.files import whole_file

GAP = 12  # pixels around each picture that has a caption
LINE = 14  # height of a caption's line in pixels
CAPTION_LINES = 3


def to_grey_levels(images: Tensor) -> np.ndarray:
    """Pictures (b 3 h w) in [-1, 1] -> uint8 (b h w 3)."""
    levels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return levels.permute(0, 2, 3, 1).cpu().numpy()


def to_pil(images: Tensor) -> list[Image.Image]:
    """Pictures (b 3 h w) in [-1, 1] -> PIL images."""
    return [Image.fromarray(array) for array in to_grey_levels(images)]


def from_pil(picture: Image.Image) -> Tensor:
    """A PIL image in RGB -> (1 3 h w) in [-1, 1]."""
    levels = torch.from_numpy(np.array(picture))
    return levels.permute(2, 0, 1)[None].float() / 127.5 - 1


def save_sheet(images: Tensor, path: Path, columns: int = 8) -> None:
    """Write pictures (b 3 h w) in [-1, 1] as one PNG of ``columns`` columns."""
    tiles = to_pil(images)
    width, height = tiles[0].size
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (width * min(columns, len(tiles)), height * rows), "white")
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i % columns * width, i // columns * height))
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, overwrite=True) as file:
        sheet.save(file, format="PNG")


def captioned_sheet(
    pictures: Sequence[Image.Image], captions: Sequence[str], columns: int = 8
) -> Image.Image:
    """All pictures, of one size, in rows of ``columns``, each above its caption."""
    width, height = pictures[0].size
    cell = (width + GAP, height + CAPTION_LINES * LINE + GAP)
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * cell[0] + GAP, rows * cell[1] + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=LINE - 3)
    for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x, y = GAP + index % columns * cell[0], GAP + index // columns * cell[1]
        sheet.paste(picture, (x, y))
        lines = textwrap.wrap(caption, width // 6, max_lines=CAPTION_LINES, placeholder=" …")
        draw.multiline_text((x, y + height + 2), "\n".join(lines), "black", font, spacing=2)
    return sheet
