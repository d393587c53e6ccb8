"""Latents that are computed once: kept in a file that knows what they were made from."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from shared.files import whole_file
from shared.linear_code import FILE as CODE_FILE

FINGERPRINT = "fingerprint"

In = TypeVar("In")
Out = TypeVar("Out")


def fingerprint(paths: Sequence[Path], encoder: Sequence[Path], *settings: object) -> str:
    """Tells other files, changed files, another encoder or other settings: 32 hexadecimal digits.

    Files are told apart by name, size and time of change, so that looking at a hundred thousand
    takes a second; the encoder by its content.

    Args:
        paths: what is encoded, in this order.
        encoder: the files that make the encoder.
        settings: whatever else the latents depend on; anything with an honest ``repr``.
    """
    stats = [(path, path.stat()) for path in paths]
    stamps = [(path.name, stat.st_size, stat.st_mtime_ns) for path, stat in stats]
    digest = hashlib.sha256(json.dumps([stamps, [repr(value) for value in settings]]).encode())
    for path in encoder:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:32]


def encoder_files(kind: str, vae: Path) -> list[Path]:
    """The files of a ``vae`` folder that latents of a kind, "code" or "vae", depend on."""
    if kind == "code":
        return [vae / CODE_FILE]
    return sorted(path for path in vae.iterdir() if path.suffix in (".json", ".safetensors"))


def cached(
    path: Path, made_from: str, compute: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """The tensors of ``path`` if they were made from the same; else ``compute`` them and keep them.

    Args:
        path: a safetensors file. Its tensors are mapped into memory, not read.
        made_from: a :func:`fingerprint`.
    """
    if _made_from(path) != made_from:
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.contiguous() for name, tensor in compute().items()}
        with whole_file(path, overwrite=True) as file:
            file.write(save(tensors, metadata={FINGERPRINT: made_from}))
    return load_file(path)


def _made_from(path: Path) -> str | None:
    """The fingerprint in a file; None if there is no file, or none in it, or it is damaged."""
    if not path.exists():
        return None
    try:
        with safe_open(str(path), framework="pt") as file:
            return (file.metadata() or {}).get(FINGERPRINT)
    except SafetensorError:
        return None


def read_ahead(
    read: Callable[[In], Out], items: Iterable[In], threads: int = 2, ahead: int = 4
) -> Iterator[Out]:
    """``map(read, items)`` with threads that work on the next few results, and no more than these.

    An executor's own ``map`` would fill the memory when they are used more slowly than read.
    """
    waiting: deque[Future[Out]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append(pool.submit(read, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
