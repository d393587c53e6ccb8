"""Where to compute and in which precision: what "auto" means on this machine."""

from collections.abc import Callable

import torch

from shared.errors import UserError

# In the order in which "auto" takes them.
_AVAILABLE: dict[str, Callable[[], bool]] = {
    "cuda": torch.cuda.is_available,
    "mps": torch.backends.mps.is_available,
    "cpu": lambda: True,
}
_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def resolve_device(device: str = "auto") -> torch.device:
    """The device meant by ``device``; "auto" takes CUDA, else Apple's MPS, else the CPU.

    Raises:
        UserError: the name is unknown, or this machine has no such device.
    """
    if device == "auto":
        return torch.device(next(filter(is_available, _AVAILABLE)))
    if device not in _AVAILABLE:
        raise UserError(f"unknown device {device!r}; choose one of: auto, {', '.join(_AVAILABLE)}")
    if not is_available(device):
        raise UserError(f"device {device!r} was asked for, but torch finds none on this machine")
    return torch.device(device)


def is_available(device: str) -> bool:
    """Whether this machine has that device ("cpu", "cuda" or "mps") and torch can use it."""
    return device in _AVAILABLE and _AVAILABLE[device]()


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The precision meant by ``dtype``; "auto" takes the fastest that ``device`` computes natively.

    Raises:
        UserError: the name is unknown.
    """
    if dtype != "auto":
        if dtype not in _DTYPES:
            raise UserError(f"unknown dtype {dtype!r}; choose one of: auto, {', '.join(_DTYPES)}")
        return _DTYPES[dtype]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "cpu" and _cpu_computes_bfloat16():
        return torch.bfloat16
    return torch.float32


def dtype_name(dtype: torch.dtype) -> str:
    """``torch.float32`` -> ``"float32"``."""
    return str(dtype).removeprefix("torch.")


def _cpu_computes_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 itself; elsewhere emulation is slower than float32."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # newer than torch 2.4
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)
