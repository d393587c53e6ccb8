"""Model folders in diffusers' layout <-> modules: safetensors only, every tensor accounted for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from shared.denoiser import Denoiser
from shared.layout import ADAPTER, MODEL_INDEX, read_json, read_model_index
from shared.low_rank import DIFFERENCE, merged
from shared.parameterization import parameterization_from_config
from shared.schedules import schedule_from_config
from shared.student import STUDENT
from shared.unet import UNet
from shared.vae import AutoencoderKL
from shared.weights import load_into, load_state, read_config, save_component, write_json

__all__ = [
    "load_adapted",
    "load_denoiser",
    "load_state",
    "load_student",
    "load_unet",
    "load_vae",
    "model_hash",
    "read_config",
    "save_component",
    "write_model_index",
    "write_scheduler",
]

# What the VAEs of the first Stable Diffusions call the projections of their attention.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def load_unet(
    folder: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> UNet:
    """The U-Net of a folder with ``config.json`` and ``diffusion_pytorch_model.safetensors``.

    Raises:
        UserError: a file missing or truncated, tensors missing, unexpected or misshapen.
    """
    root = Path(folder)
    config = read_config(root)
    return load_into(
        lambda: UNet.from_config(config), load_state(root), root, device=device, dtype=dtype
    )


def load_vae(
    folder: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> AutoencoderKL:
    """The autoencoder of a folder like :func:`load_unet`'s; raises as that does."""
    root = Path(folder)
    config = read_config(root)
    state = {_current_key(key): tensor for key, tensor in load_state(root).items()}
    return load_into(
        lambda: AutoencoderKL.from_config(config), state, root, device=device, dtype=dtype
    )


def load_denoiser(
    root: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Denoiser:
    """``unet/`` with the schedule and prediction type of ``scheduler/scheduler_config.json``.

    Args:
        root: the model folder, the one with ``model_index.json``.

    Raises:
        UserError: not a model folder, or one of its parts is at fault.
    """
    root = Path(root)
    read_model_index(root)
    scheduler = read_json(root / "scheduler" / "scheduler_config.json")
    schedule = schedule_from_config(scheduler)
    network = load_unet(root / "unet", device, dtype)
    return Denoiser(network, parameterization_from_config(scheduler, schedule), schedule).eval()


def load_student(
    root: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Denoiser:
    """The denoiser of ``root/student``: a low-rank difference to ``root/unet``.

    Raises:
        UserError: there is none, or it does not fit.
    """
    root = Path(root)
    folder = root / STUDENT
    return _load_differing(root, folder, folder, device, dtype)


def load_adapted(
    root: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Denoiser:
    """The denoiser of ``root/adapter``: a low-rank difference that takes further input channels.

    Raises:
        UserError: there is none, or it does not fit.
    """
    root = Path(root)
    return _load_differing(root, root / ADAPTER, root, device, dtype)


def _load_differing(
    root: Path, folder: Path, scheduled: Path, device: torch.device | str, dtype: torch.dtype
) -> Denoiser:
    """``root/unet`` with the difference in ``folder/unet``, and the scheduler of ``scheduled``."""
    scheduler = read_json(scheduled / "scheduler" / "scheduler_config.json")
    schedule = schedule_from_config(scheduler)
    config = read_config(folder / "unet")
    state = merged(load_state(root / "unet"), load_state(folder / "unet", DIFFERENCE))
    network = load_into(
        lambda: UNet.from_config(config), state, folder / "unet", device=device, dtype=dtype
    )
    return Denoiser(network, parameterization_from_config(scheduler, schedule), schedule).eval()


def write_scheduler(root: Path, config: Mapping[str, Any]) -> None:
    """Write ``scheduler/scheduler_config.json``, in the words of diffusers' schedulers.

    Such as ``{"prediction_type": "v_prediction", "beta_schedule": "linear", ...}``. Where it says
    nothing else, diffusers' DDIM takes the steps that Duotone takes: the noisiest level first
    ("trailing"), latents not clipped.
    """
    # Stable Diffusion's steps_offset is without effect here, but its pipeline insists on it.
    defaults = {
        "_class_name": "DDIMScheduler",
        "clip_sample": False,
        "steps_offset": 1,
        "timestep_spacing": "trailing",
    }
    write_json(root / "scheduler" / "scheduler_config.json", {**defaults, **config})


def write_model_index(root: Path) -> None:
    """Write ``model_index.json`` so that diffusers opens the folder as a StableDiffusionPipeline.

    The scheduler's class is the one that ``scheduler/scheduler_config.json`` names.

    Raises:
        UserError: there is no scheduler config yet, or the system refuses to write.
    """
    scheduler = read_json(root / "scheduler" / "scheduler_config.json")
    absent = [None, None]
    write_json(
        root / MODEL_INDEX,
        {
            "_class_name": "StableDiffusionPipeline",
            "feature_extractor": absent,
            "image_encoder": absent,
            "requires_safety_checker": False,
            "safety_checker": absent,
            "scheduler": ["diffusers", scheduler.get("_class_name", "DDIMScheduler")],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )


def model_hash(root: Path | str) -> str:
    """16 hexadecimal digits of a SHA-256 over everything in a model folder that shapes its output.

    That is the names and bytes of every ``.safetensors`` and ``.json`` file and of ``merges.txt``;
    cards and word lists may change without making it another model.
    """
    root = Path(root)
    paths = sorted(
        path
        for path in root.rglob("*")
        if path.suffix in (".safetensors", ".json") or path.name == "merges.txt"
    )
    total = hashlib.sha256()
    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter's lock
        for path, digest in zip(paths, pool.map(_digest, paths), strict=True):
            total.update(path.relative_to(root).as_posix().encode() + b"\0" + digest)
    return total.hexdigest()[:16]


def _digest(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.digest()


def _current_key(key: str) -> str:
    if ".attentions." not in key:
        return key
    module, _, name = key.rpartition(".")  # name: weight or bias
    parent, _, projection = module.rpartition(".")
    return f"{parent}.{_OLD_ATTENTION.get(projection, projection)}.{name}"
