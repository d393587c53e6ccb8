"""Training a vocoder: the levels of linear frequencies that a mel stands for.

Writes ``out/vocoder``; the run (checkpoint and log) lives in ``out/runs/vocoder``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass as validated
from torch import Tensor, nn

from audiodiff.codec import MusicCodec
from audiodiff.corpus import read_folder
from audiodiff.data import crop, read_part
from audiodiff.losses import log_mel_distance, mr_stft_distance
from audiodiff.spectrogram import FrontEnd, mel_bands, stft, waveform_to_mel
from audiodiff.vocoder import (
    NeuralGriffinLim,
    check_front_end,
    load_vocoder,
    write_vocoder,
)
from shared.config import STRICT, read_config
from shared.devices import resolve_dtype
from shared.errors import UserError
from shared.training import Draw, LoopConfig, train

EXAMPLES = 16  # clips at the end of the data that the log's distances are measured on
EDGE = 4  # frames at the ends of a crop that hear beyond it
QUIETEST = 1e-7  # magnitude, a sine of amplitude 1 having 1: about what rounding to 16 bits leaves
LOUDER = (-12.0, 2.0)  # dB, within which each crop is made louder or quieter


@validated(frozen=True, config=STRICT)
@dataclass(frozen=True, kw_only=True)
class VocoderConfig:
    """A run of ``train vocoder``.

    Attributes:
        loop: see :class:`shared.training.LoopConfig`.
        dim: channels of the network.
        layers: its blocks.
        front_end: what a spectrogram is; see :class:`audiodiff.spectrogram.FrontEnd`.
        crop: length in spectrogram frames of the random parts of clips that are trained on.
        decoded: share of the crops of which the network sees what the autoencoder in ``out/vae``
            makes of them, as it will see what that makes of a denoiser's latents.
        latent_noise: greatest standard deviation of noise on the latents of half of these.
        convergence_weight, mel_weight: of spectral convergence and of the log-mel distance,
            beside the distance of log magnitudes.
        init: a ``vocoder`` folder whose network to begin with.
    """

    art: Literal["music"]
    loop: LoopConfig
    dim: int = 384
    layers: int = 2
    front_end: FrontEnd = field(default_factory=FrontEnd)
    crop: Annotated[int, Field(gt=2 * EDGE)] = 72
    decoded: Annotated[float, Field(ge=0, le=1)] = 0.5
    latent_noise: Annotated[float, Field(ge=0)] = 0.3
    convergence_weight: float = 1.0
    mel_weight: float = 0.5
    init: str | None = None


class VocoderObjective(nn.Module):
    """How far levels of linear frequencies are from the true ones, left and right apart."""

    def __init__(self, vocoder: NeuralGriffinLim, config: VocoderConfig) -> None:
        super().__init__()
        self.vocoder = vocoder
        self.config = config

    def forward(self, samples: Tensor, mel: Tensor) -> Tensor:
        """Samples (b 2 s) and a mel that stands for them (b 2 f t) -> loss (b,)."""
        level, pan, _ = self.vocoder.spectra(mel)
        made = torch.stack([level * (1 + pan), level * (1 - pan)], dim=1)[..., EDGE:-EDGE]
        front_end = self.vocoder.front_end
        with torch.autocast(samples.device.type, enabled=False):
            true = stft(samples, front_end).abs()[..., EDGE:-EDGE]
            ratio = (made + QUIETEST) / (true + QUIETEST)
            distance = ratio.log().abs().flatten(1).mean(1)
            # A root has no gradient at 0.
            error = (made - true).square().flatten(1).sum(1) + 1e-9
            convergence = (error / (true.square().flatten(1).sum(1) + 1e-9)).sqrt()
            floor = front_end.log_floor
            bands, wanted = (mel_bands(each, front_end) + floor for each in (made, true))
            return (
                distance
                + self.config.convergence_weight * convergence
                + self.config.mel_weight * (bands / wanted).log().abs().flatten(1).mean(1)
            )


def train_vocoder(config_path: Path, data: Path, out: Path, resume: bool = False) -> None:
    """Train a vocoder on the clips of a folder; write ``out/vocoder``.

    ``out/vae`` has to be there (``train vae``) unless ``decoded`` is 0.

    Raises:
        UserError: the config or the data is at fault, or a run is there and ``resume`` is off.
    """
    config = read_config(config_path, VocoderConfig)
    rows = read_folder(data)
    folder = Path(out) / "vocoder"
    check_front_end(config.front_end, folder)
    codec = _codec(config, Path(out)) if config.decoded else None
    torch.manual_seed(config.loop.seed)
    vocoder = NeuralGriffinLim(config.front_end, config.dim, config.layers)
    if config.init is not None:
        begin, _ = load_vocoder(config.init)
        if not isinstance(begin, NeuralGriffinLim) or begin.config != vocoder.config:
            raise UserError(f"init: {config.init} holds no network of this config's size and kind")
        vocoder.load_state_dict(begin.state_dict())

    def make_batch(draws: Sequence[Draw]) -> tuple[Tensor, ...]:
        parts = [
            example(rows[draw.index].path, config, codec, torch.Generator().manual_seed(draw.seed))
            for draw in draws
        ]
        return tuple(torch.stack(tensors) for tensors in zip(*parts, strict=True))

    examples = [crop(row.path, config.crop, 0.5, config.front_end) for row in rows[-EXAMPLES:]]
    samples, mels = (torch.stack(tensors) for tensors in zip(*examples, strict=True))

    @torch.no_grad()
    def report(step: int, objective: nn.Module) -> dict[str, Any]:
        assert isinstance(objective, VocoderObjective)
        write_vocoder(folder, config.front_end, objective.vocoder)
        made = objective.vocoder(mels.to(next(objective.parameters()).device)).cpu()
        return {
            "mr_stft": round(mr_stft_distance(made, samples).mean().item(), 4),
            "log_mel": round(log_mel_distance(made, samples, config.front_end).mean().item(), 4),
        }

    run = Path(out) / "runs" / "vocoder"
    objective = VocoderObjective(vocoder, config)
    finished = train(
        objective, make_batch, len(rows), config.loop, run, resume=resume, report=report
    )
    assert isinstance(finished, VocoderObjective)
    write_vocoder(folder, config.front_end, finished.vocoder)


def example(
    path: Path, config: VocoderConfig, codec: MusicCodec | None, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A random part of a clip: samples (2 s), and its mel (2 f t) or a codec's reading of it."""
    place, louder, read, noisy, noise = torch.rand(5, generator=generator).tolist()
    length = config.crop * config.front_end.hop_length
    samples = read_part(path, length, 0, place, config.front_end.sample_rate)
    samples = samples * 10 ** ((LOUDER[0] + (LOUDER[1] - LOUDER[0]) * louder) / 20)
    mel = waveform_to_mel(samples[None], config.front_end)
    if codec is not None and read < config.decoded:
        latents = codec.mel_to_latents(mel)
        if noisy < 0.5:
            standard = torch.randn(latents.shape, generator=generator)
            latents = latents + config.latent_noise * noise * standard
        mel = codec.latents_to_mel(latents)
    return samples, mel[0]


def _codec(config: VocoderConfig, out: Path) -> MusicCodec:
    """The codec in ``out``, in the dtype that the CPU is fastest in.

    Raises:
        UserError: there is none, or it does not fit the config.
    """
    if not (out / "vae").is_dir():
        raise UserError(
            f"{out} has no vae, whose mels a vocoder learns: train vae first, or say decoded: 0"
        )
    codec = MusicCodec.load(out, dtype=resolve_dtype("auto", torch.device("cpu")))
    frames = codec.vae.downsampling
    if config.crop % frames:
        raise UserError(
            f"crop {config.crop} must be a multiple of {frames}, the frames that a latent of "
            f"{out / 'vae'} stands for"
        )
    return codec
