"""Training a denoiser of music on its captions and control channels, with its text encoder.

Completes the model folder ``out`` beside ``out/vae`` and ``out/vocoder``; the run (checkpoint, log,
spectrograms of samples, latents) lives in ``out/runs/diffusion``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic.dataclasses import dataclass as validated
from torch import Tensor, nn

from audiodiff.codec import MusicCodec
from audiodiff.controls import CHANNELS, write_controls
from audiodiff.corpus import read_folder
from audiodiff.data import load_clips
from audiodiff.mel_sheet import save_mels
from audiodiff.spectrogram import FrontEnd, waveform_to_mel
from audiodiff.vocoder import load_vocoder
from shared.config import STRICT, read_config
from shared.errors import UserError
from shared.latents import encoder_files
from shared.layout import MODEL_INDEX
from shared.linear_code import LinearCode
from shared.train_denoiser import (
    Captions,
    DenoiserConfig,
    DiffusionObjective,
    build_objective,
    caption_gap,
    control_gap,
    draw_noise,
    rows_where,
    sample_latents,
    save_objective,
)
from shared.training import Draw, processes, train
from shared.weights import write_json

EXAMPLES = 64  # clips that the gaps are measured on


@validated(frozen=True, config=STRICT)
@dataclass(frozen=True, kw_only=True)
class DiffusionConfig(DenoiserConfig):
    """A run of ``train diffusion`` on music: what any denoiser's training asks for.

    ``unet`` has a ``sample_size`` of [rows, frames], the window in latent frames that is learnt,
    and takes the control channels besides those of the latents.
    """

    art: Literal["music"]

    def __post_init__(self) -> None:
        size = self.unet.get("sample_size")
        if not (
            isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) for n in size)
        ):
            raise UserError(f"unet: sample_size must be [rows, frames], not {size!r}")
        channels, wanted = self.unet.get("in_channels"), self.shape[0] + CHANNELS
        if channels != wanted:
            raise UserError(
                f"unet: in_channels must be {wanted}, out_channels and {CHANNELS} control "
                f"channels, not {channels!r}"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z rows frames) of a window's latents."""
        rows, frames = self.unet["sample_size"]
        return self.unet.get("out_channels", 4), rows, frames


def train_diffusion(config_path: Path, data: Path, out: Path, resume: bool = False) -> None:
    """Train a denoiser and its text encoder on the clips of a folder; complete the folder ``out``.

    ``out/vae`` and ``out/vocoder`` have to be there (``train vae``).

    Raises:
        UserError: the config or the data is at fault, or a run is there and ``resume`` is off.
    """
    config = read_config(config_path, DiffusionConfig)
    out = Path(out)
    run = out / "runs" / "diffusion"
    rows = read_folder(data)
    _, front_end = load_vocoder(out / "vocoder")
    frames = config.shape[2]
    encode = encoder(config.latents, out, front_end)
    with processes().main_process_first():  # the others find what it has written
        clips = load_clips(
            rows, encode, encoder_files(config.latents, out / "vae"),
            run / f"latents-{config.latents}.safetensors", frames, front_end,
        )  # fmt: skip
        found = (*clips.latents.shape[1:], frames)
        if found != config.shape:
            raise UserError(
                f"the autoencoder's latents have {found[0]} channels and {found[1]} rows, the "
                f"U-Net's out_channels and sample_size are {config.shape[0]} and {config.shape[1]}"
            )
        objective = build_objective(config, [text for row in rows for text in row.texts], out)
    captions = Captions.tokenize([row.texts for row in rows], objective.text)
    chosen = rows_where([vars(row.labels) for row in rows], config.where, config.repeat)
    schedule = objective.schedule
    last = range(max(0, len(rows) - EXAMPLES), len(rows))

    def make_batch(draws: Sequence[Draw]) -> tuple[Tensor, ...]:
        items = [chosen[draw.index] for draw in draws]
        windows = clips.random_windows(items, frames, [draw.seed for draw in draws])
        noise, sigma, ids = draw_noise(draws, items, config.shape, captions, config, schedule)
        return windows.latents, noise, sigma, ids, windows.controls

    def report(step: int, objective: nn.Module) -> dict[str, Any]:
        assert isinstance(objective, DiffusionObjective)
        _save_model(objective, config, out)
        latents = sample(objective, config)
        save_mels(decoder(out)(latents), run / "samples" / f"{step:06d}.png")
        examples = clips.windows(last, frames, [0] * len(last))
        x0, controls = examples.latents, examples.controls
        ids = captions.ids[captions.first[last]]
        return {
            # Of words alone: beside controls they have little left to tell.
            "caption_gap": caption_gap(objective, x0, ids, torch.zeros_like(controls)),
            "control_gap": control_gap(objective, x0, ids, controls),
        }

    finished = train(
        objective, make_batch, len(chosen), config.loop, run, resume=resume, report=report
    )
    assert isinstance(finished, DiffusionObjective)
    _save_model(finished, config, out)


def sample(objective: DiffusionObjective, config: DiffusionConfig) -> Tensor:
    """Latents (b z rows frames) of the config's prompts, one seed each, nothing else known."""
    prompts = config.prompts or ("",)
    controls = torch.zeros(len(prompts), CHANNELS, *config.shape[1:])
    return sample_latents(objective, prompts, config.shape, config.guidance_scale, controls)


def encoder(kind: str, out: Path, front_end: FrontEnd) -> Callable[[Tensor], Tensor]:
    """Samples (b 2 s) to latents, by the model\'s autoencoder ("vae") or its linear code."""
    if kind == "code":
        code = LinearCode.load(out / "vae")
        return lambda samples: code.encode(waveform_to_mel(samples, front_end))
    return MusicCodec.load(out).encode


def decoder(out: Path) -> Callable[[Tensor], Tensor]:
    """Latents to log-mels, by the autoencoder if there is one, else by the code."""
    if (out / "vae" / "config.json").exists():
        return torch.no_grad()(MusicCodec.load(out).latents_to_mel)
    return LinearCode.load(out / "vae").decode


def _save_model(objective: DiffusionObjective, config: DiffusionConfig, out: Path) -> None:
    save_objective(objective, config, out)
    write_controls(out)
    write_json(
        out / MODEL_INDEX,
        {
            "_class_name": "DuotoneMusicPipeline",
            "scheduler": ["diffusers", "DDIMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )
