"""One component of a model on disk: a folder with ``config.json`` and safetensors files.

Reads single files, fp16 variants and shards, as diffusers and transformers write them. Pickles
(.bin, .ckpt, .pt) can run code when opened, so they are refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from shared.errors import UserError
from shared.files import whole_file
from shared.layout import CONVERT, PICKLES, read_json

Module = TypeVar("Module", bound=nn.Module)

DIFFUSION = "diffusion_pytorch_model"  # what diffusers calls the weights of its components
TRANSFORMERS = "model"  # and transformers those of its own


def read_config(folder: Path) -> dict[str, Any]:
    """``folder/config.json`` as written, private ``_`` keys included.

    Raises:
        UserError: the folder or the file is missing, or it is not a JSON object.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    return read_json(folder / "config.json")


def load_state(folder: Path, basename: str = DIFFUSION) -> dict[str, Tensor]:
    """All tensors of a component, on the CPU, in the dtype they were saved in.

    Takes the first there is of ``BASENAME.safetensors``, its shards, and their fp16 variants.

    Args:
        folder: the component's folder, such as ``MODEL/unet``.
        basename: ``diffusion_pytorch_model`` or ``model``.

    Raises:
        UserError: no safetensors (only pickles, perhaps), a truncated file, or a shard missing.
    """
    state: dict[str, Tensor] = {}
    for path in _weight_files(folder, basename):
        try:
            state |= load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} is truncated or not a safetensors file ({error})") from None
    return state


def load_into(
    build: Callable[[], Module],
    state: Mapping[str, Tensor],
    where: Path | str,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Module:
    """Build a module and give it exactly the tensors of ``state``, in evaluation mode.

    No weights are drawn only to be thrown away.

    Args:
        build: makes the module.
        state: every parameter and buffer by its key; floating ones are cast to ``dtype``.
        where: the folder or file, for messages.

    Raises:
        UserError: tensors missing, unexpected, or of another shape; the first few are named.
    """
    with _NoInit():
        module = build()
    expected = module.state_dict()
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    if missing or unexpected:
        faults = [_count(missing, "missing"), _count(unexpected, "unexpected")]
        raise UserError(f"{where} does not fit its config.json: {', '.join(filter(None, faults))}")
    misshapen = [
        f"{key} is {_shape(state[key])}, should be {_shape(tensor)}"
        for key, tensor in expected.items()
        if state[key].shape != tensor.shape
    ]
    if misshapen:
        raise UserError(
            f"{where} does not fit its config.json: {_count(misshapen, 'of another shape')}"
        )
    module.load_state_dict(
        {
            key: tensor.to(device, dtype if tensor.is_floating_point() else None)
            for key, tensor in state.items()
        },
        assign=True,
    )
    # Buffers that are not saved were made on the CPU.
    return module.to(device).eval()


class _NoInit(TorchFunctionMode):
    """Leaves new parameters as the allocator gave them: untouched memory costs nothing.

    The meta device would do as much, but ``normal_`` on it imports torch._dynamo: two seconds.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def save_component(
    module: nn.Module,
    folder: Path,
    dtype: torch.dtype = torch.float16,
    *,
    basename: str = DIFFUSION,
    prefix: str = "",
) -> None:
    """Write ``config.json`` and ``BASENAME.safetensors``, each whole or not at all.

    Args:
        module: has a ``config`` dict, as every network of Duotone has.
        folder: made if need be; files there are replaced.
        dtype: what floating-point tensors are cast to.
        prefix: put before every key.

    Raises:
        UserError: the system refuses to write.
    """
    config = module.config
    if not isinstance(config, Mapping):
        raise TypeError(f"{type(module).__name__}.config is not a dict")
    state = {
        prefix + key: tensor.detach()
        .to("cpu", dtype if tensor.is_floating_point() else None)
        .contiguous()
        for key, tensor in module.state_dict().items()
    }
    # transformers will not open files that do not say which framework made them.
    write_bytes(folder / f"{basename}.safetensors", save(state, metadata={"format": "pt"}))
    write_json(folder / "config.json", config)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object as JSON, whole or not at all; its folder is made if need be."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all; its folder is made if need be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make folder {path.parent}: {error.strerror}") from None
    with whole_file(path, overwrite=True) as file:
        file.write(content)


def _weight_files(folder: Path, basename: str) -> list[Path]:
    for variant in ("", ".fp16"):
        single = folder / f"{basename}{variant}.safetensors"
        if single.is_file():
            return [single]
        index = folder / f"{basename}.safetensors.index{variant}.json"
        if index.is_file():
            return _shards(index)
    found = sorted(path.name for path in folder.glob("*") if path.suffix in PICKLES)
    if found:
        raise UserError(f"{folder} has {found[0]} but no {basename}.safetensors: {CONVERT}")
    raise UserError(f"{folder} has no {basename}.safetensors")


def _shards(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise UserError(f"{index} has no weight_map")
    paths = [index.parent / str(name) for name in sorted(set(weight_map.values()))]
    for path in paths:
        # An index must not lead out of its folder.
        if path.parent != index.parent or not path.is_file():
            raise UserError(f"{index} names {path.name}, which is not beside it")
    return paths


def _count(names: Iterable[str], fault: str, shown: int = 3) -> str:
    """Such as "5 tensors missing (a, b, c, ...)"; empty for none."""
    names = list(names)
    if not names:
        return ""
    some = ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''} {fault} ({some})"


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"
