"""What ``duotone distill`` writes: a whole model folder, and what of it a teacher can carry.

Beside the model's own parts stands ``student.json``, which tells how it wants to be sampled. A
student of low rank is also written as ``student/``, small enough to be put into its teacher's
folder: the difference of the U-Nets, the scheduler and ``student.json``.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from shared.checkpoints import write_scheduler
from shared.denoiser import Denoiser
from shared.distillation.student import plain_network
from shared.errors import UserError
from shared.layout import MODEL_INDEX, component_names, pipeline_of, read_model_index
from shared.low_rank import DIFFERENCE, difference
from shared.student import STUDENT, STUDENT_FILE, Student
from shared.unet import UNet
from shared.weights import save_component, write_bytes, write_json


def check_out(out: Path, resume: bool) -> None:
    """Refuse a folder that holds a model already.

    Raises:
        UserError: it does, and ``resume`` is off.
    """
    if (out / MODEL_INDEX).exists() and not resume:
        raise UserError(f"{out} holds a model already; go on with --resume or choose another --out")


def copy_parts(teacher: Path, out: Path) -> None:
    """Copy what the student has in common with its teacher: all but U-Net and scheduler."""
    index = read_model_index(teacher)
    for name in (*component_names(index), *pipeline_of(index).needs):
        source, target = teacher / name, out / name
        if name in ("unet", "scheduler") or target.exists():
            continue
        out.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)


def save_student(
    denoiser: Denoiser, scheduler: Mapping[str, Any], student: Student, teacher: Path, out: Path
) -> None:
    """Write the U-Net, scheduler, index and card of ``out``, and ``out/student`` if rank is low.

    Raises:
        UserError: the system refuses to write.
    """
    network = denoiser.network
    assert isinstance(network, UNet)
    save_component(plain_network(network), out / "unet")
    small = difference(network)
    if any(".lora_" in key for key in small):
        root = out / STUDENT
        state = {key: tensor.to("cpu", torch.float16) for key, tensor in small.items()}
        tensors = {key: tensor.contiguous() for key, tensor in state.items()}
        write_bytes(
            root / "unet" / f"{DIFFERENCE}.safetensors", save(tensors, metadata={"format": "pt"})
        )
        write_json(root / "unet" / "config.json", network.config)
        write_scheduler(root, scheduler)
        write_json(root / STUDENT_FILE, asdict(student))
    write_scheduler(out, scheduler)
    write_json(out / STUDENT_FILE, asdict(student))
    index = read_model_index(teacher)
    write_json(out / MODEL_INDEX, index | {"scheduler": ["diffusers", scheduler["_class_name"]]})
