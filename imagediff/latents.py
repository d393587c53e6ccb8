"""Pictures from files as tensors, and a folder's latents computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from shared.errors import UserError
from shared.latents import cached, fingerprint, read_ahead


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


def precompute(
    paths: Sequence[Path],
    encode: Callable[[Tensor], Tensor],
    encoder: Sequence[Path],
    stem: Path,
    batch_size: int = 64,
) -> Tensor:
    """Latents of all pictures (n c h w) in float16, kept in ``stem.safetensors`` for the next time.

    They are computed anew when the pictures or the encoder are others.

    Args:
        encode: pictures (b 3 h w) -> latents (b c h w).
        encoder: the files that make it.
    """

    @torch.no_grad()
    def compute() -> dict[str, Tensor]:
        batches = [paths[i : i + batch_size] for i in range(0, len(paths), batch_size)]
        # Threads do, for decoding files releases the interpreter's lock.
        images = tqdm(read_ahead(load_images, batches), "latents", len(batches), unit="batch")
        # One tensor from the start: kept one by one, small results would settle in the holes that
        # pictures leave, and memory grow by what all the pictures take.
        latents = torch.empty(0)
        for number, batch in enumerate(images):
            part = encode(batch)
            if not number:
                latents = torch.empty(len(paths), *part.shape[1:], dtype=torch.float16)
            latents[number * batch_size :][: len(part)] = part
        return {"latents": latents}

    path = stem.with_name(stem.name + ".safetensors")
    return cached(path, fingerprint(paths, encoder), compute)["latents"]
