"""Training a text-conditioned denoiser, with its text encoder, in an autoencoder's latents.

Completes the model folder ``out`` beside ``out/vae``; the run (checkpoint, log, sample grids,
latents) lives in ``out/runs/diffusion``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic.dataclasses import dataclass as validated
from torch import Tensor, nn

from imagediff.codec import ImageCodec
from imagediff.data import read_folder
from imagediff.latents import precompute
from imagediff.sheets import save_sheet
from shared.checkpoints import load_vae, write_model_index
from shared.config import STRICT, read_config
from shared.latents import encoder_files
from shared.linear_code import LinearCode
from shared.train_denoiser import (
    Captions,
    DenoiserConfig,
    DiffusionObjective,
    build_objective,
    caption_gap,
    draw_noise,
    rows_where,
    sample_latents,
    save_objective,
)
from shared.training import Draw, processes, train


@validated(frozen=True, config=STRICT)
@dataclass(frozen=True, kw_only=True)
class DiffusionConfig(DenoiserConfig):
    """A run of ``train diffusion`` on pictures: what any denoiser's training asks for."""

    art: Literal["image"] = "image"


def train_diffusion(config_path: Path, data: Path, out: Path, resume: bool = False) -> None:
    """Train a text-conditioned denoiser and its text encoder; complete the model folder ``out``.

    ``out/vae`` has to be there (``train vae``, or any diffusers AutoencoderKL with its config).

    Raises:
        UserError: the config or the data is at fault, or a run is there and ``resume`` is off.
    """
    config = read_config(config_path, DiffusionConfig)
    out = Path(out)
    run = out / "runs" / "diffusion"
    rows = read_folder(data)
    encode = encoder(config.latents, out / "vae")
    with processes().main_process_first():  # the others find what it has written
        latents = precompute(
            [row.path for row in rows],
            encode,
            encoder_files(config.latents, out / "vae"),
            run / f"latents-{config.latents}",
        )
        objective = build_objective(config, [row.text for row in rows], out)
    captions = Captions.tokenize([[row.text] for row in rows], objective.text)
    chosen = rows_where([row.labels for row in rows], config.where, config.repeat)
    schedule = objective.schedule
    last = range(max(0, len(rows) - 256), len(rows))

    def make_batch(draws: Sequence[Draw]) -> tuple[Tensor, ...]:
        items = [chosen[draw.index] for draw in draws]
        x0 = latents[items].float()
        return x0, *draw_noise(draws, items, x0.shape[1:], captions, config, schedule)

    def report(step: int, objective: nn.Module) -> dict[str, Any]:
        assert isinstance(objective, DiffusionObjective)
        _save_model(objective, config, out)
        sheet = run / "samples" / f"{step:06d}.png"
        save_sheet(sample(objective, config, decoder(out / "vae")), sheet)
        ids = captions.ids[captions.first[last]]
        return {"caption_gap": caption_gap(objective, latents[last].float(), ids)}

    finished = train(
        objective, make_batch, len(chosen), config.loop, run, resume=resume, report=report
    )
    assert isinstance(finished, DiffusionObjective)
    _save_model(finished, config, out)


def sample(
    objective: DiffusionObjective, config: DiffusionConfig, decode: Callable[[Tensor], Tensor]
) -> Tensor:
    """Pictures (b 3 h w) of the config's prompts, one seed each, for looking at."""
    side = config.unet["sample_size"]
    shape = (config.unet["in_channels"], side, side)
    latents = sample_latents(objective, config.prompts or ("",), shape, config.guidance_scale)
    return decode(latents).clamp(-1, 1)


def encoder(kind: str, vae: Path) -> Callable[[Tensor], Tensor]:
    """Pictures (b 3 h w) to latents, by the autoencoder of a folder ("vae") or its linear code."""
    if kind == "code":
        return LinearCode.load(vae).encode
    return ImageCodec(load_vae(vae)).encode


def decoder(vae: Path) -> Callable[[Tensor], Tensor]:
    """Latents to pictures, by the autoencoder if there is one, else by the code."""
    if (vae / "config.json").exists():
        return ImageCodec(load_vae(vae)).decode
    return LinearCode.load(vae).decode


def _save_model(objective: DiffusionObjective, config: DiffusionConfig, out: Path) -> None:
    save_objective(objective, config, out)
    write_model_index(out)
