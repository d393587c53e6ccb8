"""Log-mels as one grey picture, for a look at a training run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from shared.files import whole_file

GAP = 4  # pixels between spectrograms
DARKEST, BRIGHTEST = -2.0, 3.0  # normalised log-mel


def save_mels(mels: Tensor, path: Path, columns: int = 4) -> None:
    """Write the first channels of log-mels (b 2 f t) as a PNG, low pitch below, time rightwards."""
    levels = (mels[:, 0].float().cpu().flip(1) - DARKEST) / (BRIGHTEST - DARKEST)
    tiles = (levels.clamp(0, 1) * 255).round().byte().numpy()
    count, height, width = tiles.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + GAP), min(columns, count) * (width + GAP)), 128, np.uint8)
    for i, tile in enumerate(tiles):
        y, x = i // columns * (height + GAP), i % columns * (width + GAP)
        sheet[y : y + height, x : x + width] = tile
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, overwrite=True) as file:
        Image.fromarray(sheet).save(file, format="PNG")
