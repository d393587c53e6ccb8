"""Contact sheets."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from shared.files import whole_file


def to_pil(images: Tensor) -> list[Image.Image]:
    """Pictures (b 3 h w) in [-1, 1] -> PIL images."""
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return [Image.fromarray(array) for array in pixels.permute(0, 2, 3, 1).cpu().numpy()]


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
