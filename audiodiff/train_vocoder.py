"""Training a vocoder: mel spectrograms to samples.

Writes ``out/vocoder``; the run (checkpoint and log) lives in ``out/runs/vocoder``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic.dataclasses import dataclass as validated
from torch import Tensor, nn

from audiodiff.corpus import read_folder
from audiodiff.data import crop
from audiodiff.losses import log_mel_distance, mr_stft_distance, stft_error
from audiodiff.spectrogram import FrontEnd
from audiodiff.vocoder import VocosVocoder, load_vocoder, write_vocoder
from shared.config import STRICT, read_config
from shared.errors import UserError
from shared.training import Draw, LoopConfig, train

EXAMPLES = 16  # clips at the end of the data that the log's distances are measured on


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
        mel_weight: of the log-mel distance.
        phase_weight: of the distance of complex spectra. Phases cannot be told from a mel, but
            where neighbouring frames settle them this finds the way early.
        mel_noise: standard deviation of noise on the mels; an autoencoder's are imperfect.
        init: a ``vocoder`` folder whose network to begin with.
    """

    art: Literal["music"]
    loop: LoopConfig
    dim: int = 256
    layers: int = 8
    front_end: FrontEnd = field(default_factory=FrontEnd)
    crop: int = 86
    mel_weight: float = 1.0
    phase_weight: float = 0.1
    mel_noise: float = 0.02
    init: str | None = None


class VocoderObjective(nn.Module):
    """Distances of spectra, of left, right and what is between them."""

    def __init__(self, vocoder: VocosVocoder, config: VocoderConfig) -> None:
        super().__init__()
        self.vocoder = vocoder
        self.config = config

    def forward(self, samples: Tensor, mel: Tensor) -> Tensor:
        """Samples (b 2 s), their normalised mel (b 2 f t) -> loss (b,)."""
        made, true = with_mid_and_side(self.vocoder(mel)), with_mid_and_side(samples)
        with torch.autocast(samples.device.type, enabled=False):
            return (
                mr_stft_distance(made, true)
                + self.config.mel_weight * log_mel_distance(made, true, self.config.front_end)
                + self.config.phase_weight * stft_error(made, true, self.config.front_end)
            )


def with_mid_and_side(samples: Tensor) -> Tensor:
    """Left and right (b 2 s), and half their sum and difference: (b 4 s)."""
    left, right = samples.unbind(1)
    return torch.stack([left, right, (left + right) / 2, (left - right) / 2], dim=1)


def train_vocoder(config_path: Path, data: Path, out: Path, resume: bool = False) -> None:
    """Train a vocoder on the clips of a folder; write ``out/vocoder``.

    Raises:
        UserError: the config or the data is at fault, or a run is there and ``resume`` is off.
    """
    config = read_config(config_path, VocoderConfig)
    rows = read_folder(data)
    folder = Path(out) / "vocoder"
    _check_front_end(config.front_end, folder)
    torch.manual_seed(config.loop.seed)
    vocoder = VocosVocoder(config.front_end, config.dim, config.layers)
    if config.init is not None:
        begin, _ = load_vocoder(config.init)
        if not isinstance(begin, VocosVocoder) or begin.config != vocoder.config:
            raise UserError(f"init: {config.init} holds no network of this config's size and kind")
        vocoder.load_state_dict(begin.state_dict())

    def make_batch(draws: Sequence[Draw]) -> tuple[Tensor, ...]:
        parts = [
            _example(rows[draw.index].path, config, torch.Generator().manual_seed(draw.seed))
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


def _example(
    path: Path, config: VocoderConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A random part of a clip: samples (2 s) and its mel (2 f t) with noise."""
    place = float(torch.rand((), generator=generator))
    samples, mel = crop(path, config.crop, place, config.front_end)
    return samples, mel + config.mel_noise * torch.randn(mel.shape, generator=generator)


def _check_front_end(wanted: FrontEnd, folder: Path) -> None:
    if not (folder / "config.json").exists():
        return
    _, found = load_vocoder(folder)
    if found != wanted:
        raise UserError(
            f"the config's front_end is {wanted}, that of {folder} is {found}; they must be equal"
        )
