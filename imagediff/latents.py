"""Pictures from files as tensors, and a folder's latents computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor
from tqdm import tqdm

from shared.errors import UserError
from shared.files import whole_file


def load_images(paths: Sequence[Path]) -> Tensor:
    """Pictures of one size as (b 3 h w) float32 in [-1, 1].

    Raises:
        UserError: a file that is no picture, or pictures of different sizes.
    """
    arrays = [_load(path) for path in paths]
    for path, array in zip(paths, arrays, strict=True):
        if array.shape != arrays[0].shape:
            raise UserError(
                f"{path} is {array.shape[1]}x{array.shape[0]}, other pictures are "
                f"{arrays[0].shape[1]}x{arrays[0].shape[0]}; training needs one size"
            )
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2) / 127.5 - 1


def _load(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a picture: {error}") from error


@torch.no_grad()
def precompute(
    paths: Sequence[Path], encode: Callable[[Tensor], Tensor], stem: Path, batch_size: int = 64
) -> Tensor:
    """Latents of all pictures (n c h w) in float16, kept in ``stem.safetensors`` for the next time.

    Args:
        encode: pictures (b 3 h w) -> latents (b c h w).
    """
    path = stem.with_name(stem.name + ".safetensors")
    if path.exists():
        latents = load_file(path)["latents"]
        if len(latents) == len(paths):
            return latents
    path.parent.mkdir(parents=True, exist_ok=True)
    batches = [paths[i : i + batch_size] for i in range(0, len(paths), batch_size)]
    with ThreadPoolExecutor(2) as readers:  # decoding files releases the interpreter's lock
        images = readers.map(load_images, batches)
        parts = [encode(i).half() for i in tqdm(images, "latents", len(batches), unit="batch")]
    latents = torch.cat(parts).contiguous()
    with whole_file(path, overwrite=True) as file:
        file.write(save({"latents": latents}))
    return latents
