"""Two models of one kind averaged: weights of a model before and after it was trained on.

Wortsman et al. 2022 (arXiv 2109.01903): between a model and what fine-tuning made of it, weights on
the straight line often keep what the first could do and have most of what the second has learnt.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from shared.errors import UserError
from shared.layout import component_names, pipeline_of, read_model_index
from shared.weights import write_bytes


def average_models(first: Path, second: Path, share: float, out: Path) -> None:
    """Write the model whose weights are ``(1 - share) first + share second``.

    All components that the model's index names are averaged; configs, tokenizer and what else its
    kind needs are the first's. Adapters and students are not taken along: they are differences to
    one of the two. Averages are taken in float32 and kept in the first's dtype.

    Args:
        share: from 0 (the first) to 1 (the second).

    Raises:
        UserError: a share outside that, ``out`` exists, or the two do not have the same tensors.
    """
    if not 0 <= share <= 1:
        raise UserError(f"the share must be from 0 to 1, not {share:g}")
    if out.exists():
        raise UserError(f"{out} exists already; choose another folder")
    index = read_model_index(first)
    averaged = {
        path.relative_to(first): _averaged(path, second / path.relative_to(first), share)
        for name in component_names(index)
        for path in sorted((first / name).glob("*.safetensors"))
    }
    making = out.with_name(f".{out.name}.part")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    for name in ("model_index.json", *component_names(index), *pipeline_of(index).needs):
        source, target = first / name, making / name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.is_file():
            shutil.copyfile(source, target)
    for path, content in averaged.items():
        write_bytes(making / path, content)
    making.rename(out)


def _averaged(first: Path, second: Path, share: float) -> bytes:
    if not second.is_file():
        raise UserError(f"there is no {second} to average {first} with")
    (ours, metadata), (theirs, _) = _read(first), _read(second)
    differing = sorted(
        key
        for key in ours.keys() | theirs.keys()
        if key not in ours or key not in theirs or ours[key].shape != theirs[key].shape
    )
    if differing:
        names = ", ".join(differing[:3])
        raise UserError(f"{first} and {second} do not have the same tensors: {names}")
    mixed = {
        key: torch.lerp(tensor.float(), theirs[key].float(), share).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for key, tensor in ours.items()
    }
    return save(mixed, metadata=metadata)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str] | None]:
    with safe_open(str(path), framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
