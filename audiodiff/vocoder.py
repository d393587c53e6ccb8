"""Mel spectrograms to samples: Griffin-Lim, by itself or with levels that a small network finds.

Both are what the folder ``vocoder/`` of a model holds; its ``config.json`` also tells the front
end, which must be the one that the mels were made with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiodiff.griffin_lim import griffin_lim, linear_stereo, samples_of, shares_of_bands
from audiodiff.spectrogram import (
    FrontEnd,
    StereoMel,
    mel_bands,
    mel_filters,
    mix_rows,
    mostly_zeros,
    unpack,
)
from shared.errors import UserError
from shared.naming import choose
from shared.weights import load_into, load_state, read_config, save_component, write_json

__all__ = [
    "GriffinLim",
    "NeuralGriffinLim",
    "Vocoder",
    "check_front_end",
    "griffin_lim",
    "load_vocoder",
    "write_vocoder",
]  # fmt: skip

KERNEL = 3  # frames that a block sees
LARGEST_CORRECTION = 7.0  # natural logarithm
HOLDS = 2  # times that levels are held to those of the mel


class Vocoder(Protocol):
    """Normalised mel (b 2 f t) -> samples (b 2 t*hop_length), float32, not clamped."""

    def __call__(self, mel: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class GriffinLim:
    """:func:`griffin_lim` as a vocoder: nothing to train, nothing to store."""

    front_end: FrontEnd

    def __call__(self, mel: Tensor, /) -> Tensor:
        """Normalised mel (b 2 f t) -> samples (b 2 t*hop_length)."""
        return griffin_lim(mel, self.front_end)


class Block(nn.Module):
    """ConvNeXt's block in one dimension (Liu et al. 2022, arXiv 2201.03545): (b t c) -> (b t c)."""

    def __init__(self, dim: int, scale: float) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(dim, dim, KERNEL, padding=KERNEL // 2, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, dim)
        self.pwconv2 = nn.Linear(dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), scale))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.dwconv(x.mT).mT)
        return x + self.gamma * self.pwconv2(F.gelu(self.pwconv1(h)))


class NeuralGriffinLim(nn.Module):
    """Griffin-Lim whose levels of linear frequencies come from a network.

    From 1 kHz on a mel band is wider than the lines of a spectrum: where in it a partial lies is
    lost, least squares make a hill of each band, and no phases fit such levels. The network has
    learnt what spectra look like; what it finds is held to the levels that the mel tells.

    Raises:
        UserError: a size is no number above 0.
    """

    def __init__(self, front_end: FrontEnd, dim: int = 384, layers: int = 2) -> None:
        super().__init__()
        for name, value in (("dim", dim), ("layers", layers)):
            if not isinstance(value, int) or value < 1:
                raise UserError(f"the vocoder's {name} must be a number above 0, not {value!r}")
        self.front_end = front_end
        self.config: dict[str, Any] = {
            "_class_name": "NeuralGriffinLim", "dim": dim, "layers": layers, **front_end.to_config()
        }  # fmt: skip
        self.embed = nn.Linear(2 * front_end.n_mels, dim)
        self.blocks = nn.ModuleList(Block(dim, 1 / layers) for _ in range(layers))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, front_end.bins)
        nn.init.normal_(self.head.weight, std=0.02)  # to begin with the bands' own levels, about
        nn.init.zeros_(self.head.bias)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> NeuralGriffinLim:
        """Build from the content of ``config.json``.

        Raises:
            UserError: a key is missing or its value impossible.
        """
        missing = [key for key in ("dim", "layers") if key not in config]
        if missing:
            raise UserError(f"the vocoder's config lacks {', '.join(missing)}")
        return cls(FrontEnd.from_config(config), config["dim"], config["layers"])

    def forward(self, mel: Tensor) -> Tensor:
        """Normalised mel (b 2 f t) -> samples (b 2 t*hop_length), float32, without a gradient."""
        # One at a time: sums over a batch may round otherwise, and phases remember a last digit.
        return torch.stack([self._one(each[None].float()) for each in mel])

    @torch.no_grad()
    def _one(self, mel: Tensor) -> Tensor:
        return samples_of(*self.spectra(mel), self.front_end)

    def spectra(self, mel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Level, pan and width (b bins t) of linear frequencies, of a mel (b 2 f t)."""
        h = self.embed(mel.to(self.embed.weight.dtype).flatten(1, 2).mT)
        for block in self.blocks:
            h = block(h)
        correction = self.head(self.norm(h)).mT
        with torch.autocast(mel.device.type, enabled=False):
            return self._corrected(unpack(mel.float(), self.front_end), correction.float())

    def _corrected(self, bands: StereoMel, correction: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What bands stand for, by the natural logarithms of what levels are off (b bins t)."""
        shares, widths = _bands(self.front_end, correction.device)
        bounded = correction.clamp(-LARGEST_CORRECTION, LARGEST_CORRECTION)
        level = mix_rows(shares, bands.level / widths) * bounded.exp()
        floor = self.front_end.log_floor
        wanted = bands.level + floor
        for _ in range(HOLDS):  # a bin is moved by what the bands that it is in lack
            lacking = (wanted / (mel_bands(level, self.front_end) + floor)).log()
            level = level * mix_rows(shares, lacking).exp()
        return level, *linear_stereo(bands, self.front_end)


@lru_cache(maxsize=2)
@torch.inference_mode(False)
def _bands(front_end: FrontEnd, device: torch.device) -> tuple[Tensor, Tensor]:
    """The share of each band in a bin (bins f), and how many bins wide bands are (f 1)."""
    filters = mel_filters(front_end)
    # The narrowest bands may lie between two bins.
    widths = filters.sum(1, keepdim=True).clamp(min=0.3)
    return mostly_zeros(shares_of_bands(filters), device), widths.to(device)


def load_vocoder(
    folder: Path | str, device: torch.device | str = "cpu"
) -> tuple[Vocoder, FrontEnd]:
    """The vocoder of a folder, in float32, and the front end whose mels it takes.

    Raises:
        UserError: there is no ``config.json``, it is at fault, or the weights do not fit it.
    """
    root = Path(folder)
    config = read_config(root)
    load = choose("vocoder", str(config.get("_class_name")), _LOADERS)
    return load(root, config, device), FrontEnd.from_config(config)


def write_vocoder(
    folder: Path, front_end: FrontEnd, vocoder: NeuralGriffinLim | None = None
) -> None:
    """Write a vocoder's folder; without a network it tells the front end, for Griffin-Lim.

    Raises:
        UserError: the system refuses to write.
    """
    if vocoder is None:
        config = {"_class_name": "GriffinLim", **front_end.to_config()}
        write_json(Path(folder) / "config.json", config)
    else:
        save_component(vocoder, Path(folder))


def check_front_end(wanted: FrontEnd, folder: Path) -> None:
    """That a ``vocoder`` folder, where there is one, takes the mels of this front end.

    Raises:
        UserError: it takes others.
    """
    if not (folder / "config.json").exists():
        return
    _, found = load_vocoder(folder)
    if found != wanted:
        raise UserError(
            f"the config's front_end is {wanted}, that of {folder} is {found}; they must be equal"
        )


def _load_griffin_lim(
    folder: Path, config: Mapping[str, Any], device: torch.device | str
) -> Vocoder:
    return GriffinLim(FrontEnd.from_config(config))


def _load_neural(folder: Path, config: Mapping[str, Any], device: torch.device | str) -> Vocoder:
    return load_into(
        lambda: NeuralGriffinLim.from_config(config), load_state(folder), folder, device=device
    )


_Load = Callable[[Path, Mapping[str, Any], torch.device | str], Vocoder]
_LOADERS: dict[str, _Load] = {"GriffinLim": _load_griffin_lim, "NeuralGriffinLim": _load_neural}
