"""Distilling a music model: what its students learn from, and what they look like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from audiodiff.controls import CHANNELS
from audiodiff.corpus import read_folder
from audiodiff.data import load_clips
from audiodiff.mel_sheet import save_mels
from audiodiff.told import EMPHASES
from audiodiff.train_diffusion import decoder, encoder
from audiodiff.vocoder import load_vocoder
from shared.checkpoints import read_config
from shared.distillation.rounds import Art, Examples
from shared.distillation.settings import DistillConfig
from shared.errors import UserError
from shared.latents import encoder_files
from shared.training import Draw


def read_examples(model: Path, data: Path, config: DistillConfig, run: Path) -> Examples:
    """The latents and controls of a folder of captioned clips, encoded as the model wants them.

    Raises:
        UserError: the data is at fault, or the model has no window that it was trained at.
    """
    rows = read_folder(data)
    size = read_config(model / "unet").get("sample_size")
    if not (isinstance(size, list) and len(size) == 2):
        raise UserError(f"{model}: the U-Net's sample_size must be [rows, frames], not {size!r}")
    frames = size[1]
    _, front_end = load_vocoder(model / "vocoder")
    clips = load_clips(
        rows, encoder(config.latents, model, front_end),
        encoder_files(config.latents, model / "vae"),
        run / f"latents-{config.latents}.safetensors", frames, front_end,
    )  # fmt: skip

    def pick(draws: Sequence[Draw], items: Sequence[int]) -> tuple[Tensor, Tensor]:
        windows = clips.random_windows(list(items), frames, [draw.seed for draw in draws])
        return windows.latents, windows.controls

    def look(samples: Tensor, path: Path) -> None:
        save_mels(decoder(model)(samples), path)

    channels, rows_of_latents = clips.latents.shape[1:]
    return Examples(
        captions=[row.texts for row in rows],
        labels=[vars(row.labels) for row in rows],
        shape=(channels, rows_of_latents, frames),
        concat=torch.zeros(CHANNELS, rows_of_latents, frames),
        pick=pick,
        look=look,
    )


ART = Art(read_examples, Path(__file__).parent / "configs", tuple(EMPHASES.values()))
