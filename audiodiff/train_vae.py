"""Training an autoencoder of log-mel spectrograms.

Writes ``out/vae``, and ``out/vocoder/config.json`` with the front end, so that both make a codec;
the run (checkpoint, log, spectrograms beside their reconstructions) lives in ``out/runs/vae``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic.dataclasses import dataclass as validated
from torch import Tensor, nn

from audiodiff.codec import FOLD, fold, unfold
from audiodiff.corpus import Row, read_folder
from audiodiff.data import mel_crop
from audiodiff.mel_sheet import save_mels
from audiodiff.spectrogram import FrontEnd, log_channels
from audiodiff.vocoder import check_front_end, load_vocoder, write_vocoder
from shared.config import STRICT, read_config
from shared.errors import UserError
from shared.latents import read_ahead
from shared.layers import channels_last
from shared.linear_code import LinearCode, fit_correction
from shared.noise import seeded_noise
from shared.train_autoencoder import (
    AutoencoderConfig,
    AutoencoderObjective,
    build_autoencoder,
    fitted_code,
    latent_noise,
    save_autoencoder,
)
from shared.training import Draw, processes, train
from shared.vae import AutoencoderKL

EXAMPLES = 32
CORRECTION_KERNEL = (1, 3)  # latents: a row of bands, the frames before and after


@validated(frozen=True, config=STRICT)
@dataclass(frozen=True, kw_only=True)
class VAEConfig(AutoencoderConfig):
    """A run of ``train vae`` on music, besides what any autoencoder's training asks for.

    Attributes:
        front_end: what a spectrogram is; see :class:`audiodiff.spectrogram.FrontEnd`.
        code_clips: clips that the linear code is fitted on, a crop of ``code_frames`` each.
        code_frames: their length in spectrogram frames.
        crop: length in spectrogram frames of the random parts of clips that are trained on.
        correction_clips: clips that the decoder's correction is fitted on, in the end.
        correction_noise: standard deviation of the noise on their latents. None would show the
            edges of the patches in what a denoiser makes.
    """

    art: Literal["music"]
    front_end: FrontEnd = field(default_factory=FrontEnd)
    code_clips: int = 600
    code_frames: int = 512
    crop: int = 64
    correction_clips: int = 160
    correction_noise: float = 0.3


def train_vae(config_path: Path, data: Path, out: Path, resume: bool = False) -> None:
    """Train an autoencoder on the clips of a folder; write ``out/vae``.

    Raises:
        UserError: the config or the data is at fault, or a run is there and ``resume`` is off.
    """
    config = read_config(config_path, VAEConfig)
    rows = read_folder(data)
    vae = build_autoencoder(config)
    f, out = vae.downsampling, Path(out)
    if config.crop % f or config.code_frames % f:
        raise UserError(
            f"crop {config.crop} and code_frames {config.code_frames} must be multiples of {f}, "
            "the frames that a latent stands for"
        )
    front_end = config.front_end
    check_front_end(front_end, out / "vocoder")
    with processes().main_process_first():
        if not (out / "vocoder" / "config.json").exists():
            write_vocoder(out / "vocoder", front_end)
    every = math.ceil(len(rows) / config.code_clips)
    code = fitted_code(
        out / "vae",
        lambda: _crops(rows[::every], config.code_frames, front_end),
        vae.latent_channels,
        (FOLD * f, f),
    )

    def make_batch(draws: Sequence[Draw]) -> tuple[Tensor, ...]:
        seeds = [draw.seed for draw in draws]
        # Not the seed's own stream, which is the noise.
        places = [
            torch.rand((), generator=torch.Generator().manual_seed(s ^ 0xC809)) for s in seeds
        ]
        paths = [rows[draw.index].path for draw in draws]
        parts = [
            mel_crop(path, config.crop, float(place), front_end)
            for path, place in zip(paths, places, strict=True)
        ]
        mels = torch.stack(parts)
        latents = code.encode(mels)
        return fold(mels), latents, latent_noise(seeds, latents.shape[1:], config)

    examples = torch.cat(list(_crops(rows[-EXAMPLES:], config.crop, front_end)))
    latents = code.encode(examples)

    @torch.no_grad()
    def report(step: int, objective: nn.Module) -> dict[str, Any]:
        assert isinstance(objective, AutoencoderObjective)
        save_autoencoder(objective.vae, out / "vae")
        vae, device = objective.vae, next(objective.parameters()).device
        read = latents.to(device)
        if vae.encoder is not None:
            read = vae.encode(fold(examples).to(device)).mean
        decoded = unfold(vae.decode(read)).cpu()
        pairs = torch.stack([examples[:16], decoded[:16]], dim=1).flatten(0, 1)
        save_mels(pairs, out / "runs" / "vae" / "samples" / f"{step:06d}.png", columns=8)
        return {
            "mel_error_db": round(mel_error_db(examples, decoded, front_end), 3),
            "code_error": round((read.cpu() - latents).square().mean().sqrt().item(), 4),
        }

    objective = AutoencoderObjective(channels_last(vae), config)
    finished = train(
        objective, make_batch, len(rows), config.loop, out / "runs" / "vae",
        resume=resume, report=report,
    )  # fmt: skip
    assert isinstance(finished, AutoencoderObjective)
    save_autoencoder(finished.vae, out / "vae")
    with processes().main_process_first():
        if processes().is_main_process:
            write_correction(finished.vae.eval().cpu(), rows, config, out)


@torch.no_grad()
def write_correction(vae: AutoencoderKL, rows: Sequence[Row], config: VAEConfig, out: Path) -> None:
    """Fit the correction of a decoder (:meth:`LinearCode.corrected`) into the code of ``out``."""
    every = math.ceil(len(rows) / config.correction_clips)
    _, front_end = load_vocoder(out / "vocoder")
    code = LinearCode.load(out / "vae")

    def made() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for seed, mel in enumerate(_crops(rows[::every], config.code_frames, front_end)):
            latents = code.encode(mel)
            noise = seeded_noise([seed], latents.shape[1:])
            noisy = latents + config.correction_noise * noise
            yield mel, unfold(vae.decode(noisy)), noisy

    fit_correction(code, made(), CORRECTION_KERNEL).save(out / "vae")


def mel_error_db(first: Tensor, second: Tensor, front_end: FrontEnd) -> float:
    """How far the levels of two log-mels (b 2 f t) are apart in dB, on average over all bands."""
    distance = log_channels(first, front_end) - log_channels(second, front_end)
    return distance.abs().mean().item() * 20 / math.log(10)


def _crops(rows: Sequence[Row], frames: int, front_end: FrontEnd) -> Iterator[Tensor]:
    """The middle of each clip as a log-mel (1 2 f frames)."""
    for mel in read_ahead(lambda row: mel_crop(row.path, frames, 0.5, front_end), rows, threads=1):
        yield mel[None]
