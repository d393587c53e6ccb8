"""An adapter for the tiny model, with random weights."""

import shutil
from pathlib import Path

import torch

from imagediff.adapter_objective import AdapterConfig, build_objective, save_adapter
from shared.text import TextEncoder
from shared.training import LoopConfig


def tiny_adapter_config(model: Path) -> AdapterConfig:
    return AdapterConfig(loop=LoopConfig(steps=1), model=str(model), rank=2, phrases=3)


def write_tiny_adapter(model: Path, folder: Path) -> None:
    """A copy of the tiny model that carries an adapter which heeds what it is told."""
    shutil.copytree(model, folder)
    objective = build_objective(tiny_adapter_config(model), model, TextEncoder.load(model))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in objective.denoiser.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    save_adapter(objective, folder)
