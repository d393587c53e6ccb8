"""Distilling a picture model: what its students learn from, and what they look like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from imagediff.data import read_folder
from imagediff.latents import precompute
from imagediff.sheets import save_sheet
from imagediff.train_diffusion import decoder, encoder
from shared.distillation.rounds import Art, Examples
from shared.distillation.settings import DistillConfig
from shared.latents import encoder_files
from shared.training import Draw


def read_examples(model: Path, data: Path, config: DistillConfig, run: Path) -> Examples:
    """The latents of a folder of captioned pictures, encoded as the model wants them.

    Raises:
        UserError: the data is at fault.
    """
    rows = read_folder(data)
    vae = model / "vae"
    latents = precompute(
        [row.path for row in rows],
        encoder(config.latents, vae),
        encoder_files(config.latents, vae),
        run / f"latents-{config.latents}",
    )

    def pick(draws: Sequence[Draw], items: Sequence[int]) -> tuple[Tensor, None]:
        return latents[list(items)].float(), None

    def look(samples: Tensor, path: Path) -> None:
        save_sheet(decoder(vae)(samples).clamp(-1, 1), path)

    channels, height, width = latents.shape[1:]
    return Examples(
        captions=[[row.text] for row in rows],
        labels=[row.labels for row in rows],
        shape=(channels, height, width),
        concat=None,
        pick=pick,
        look=look,
    )


ART = Art(read_examples, Path(__file__).parent / "configs")
