"""Mel spectrograms to samples: a small network in the manner of Vocos, or Griffin-Lim without one.

Both are what the folder ``vocoder/`` of a model holds; its ``config.json`` also tells the front
end, which must be the one that the mels were made with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from audiodiff.griffin_lim import griffin_lim, linear
from audiodiff.spectrogram import FrontEnd, istft, unpack
from shared.errors import UserError
from shared.naming import choose
from shared.weights import load_into, load_state, read_config, save_component, write_json

__all__ = ["GriffinLim", "Vocoder", "VocosVocoder", "griffin_lim", "load_vocoder", "write_vocoder"]

LOUDEST = 2.3  # natural logarithm of the largest magnitude that a network's spectra may have


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
    """ConvNeXt's block in one dimension (Liu et al. 2022, arXiv 2201.03545): (b c t) -> (b c t)."""

    def __init__(self, dim: int, scale: float) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, 3 * dim)
        self.pwconv2 = nn.Linear(3 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), scale))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.dwconv(x).mT)
        h = self.pwconv2(nn.functional.gelu(self.pwconv1(h)))
        return x + (self.gamma * h).mT


class VocosVocoder(nn.Module):
    """Spectra at frame rate, then one inverse transform (Vocos: Siuzdak 2023, arXiv 2306.00814).

    Left and right come from one network: their magnitudes, what phase they share, and how far
    either turns from it, so that a centred sound stays in the centre. Magnitudes begin as those
    that Griffin-Lim would take; the network learns what to correct.

    Raises:
        UserError: a size is no number above 0.
    """

    def __init__(self, front_end: FrontEnd, dim: int = 256, layers: int = 8) -> None:
        super().__init__()
        for name, value in (("dim", dim), ("layers", layers)):
            if not isinstance(value, int) or value < 1:
                raise UserError(f"the vocoder's {name} must be a number above 0, not {value!r}")
        self.front_end = front_end
        self.config: dict[str, Any] = {
            "_class_name": "VocosVocoder", "dim": dim, "layers": layers, **front_end.to_config()
        }  # fmt: skip
        self.embed = nn.Linear(2 * front_end.n_mels, dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.blocks = nn.ModuleList(Block(dim, 1 / layers) for _ in range(layers))
        self.final_norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, 4 * front_end.bins)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> VocosVocoder:
        """Build from the content of ``config.json``.

        Raises:
            UserError: a key is missing or its value impossible.
        """
        missing = [key for key in ("dim", "layers") if key not in config]
        if missing:
            raise UserError(f"the vocoder's config lacks {', '.join(missing)}")
        return cls(FrontEnd.from_config(config), config["dim"], config["layers"])

    def forward(self, mel: Tensor) -> Tensor:
        """Normalised mel (b 2 f t) -> samples (b 2 t*hop_length), float32."""
        h = self.norm(self.embed(mel.to(self.embed.weight.dtype).flatten(1, 2).mT)).mT
        for block in self.blocks:
            h = block(h)
        # Phases want more digits than bfloat16 has.
        out = self.head(self.final_norm(h.mT)).mT.float()
        correction, shared, turn = out.split(
            [2 * self.front_end.bins, *[self.front_end.bins] * 2], 1
        )
        log_magnitude = self._prior(mel.float()) + correction.unflatten(1, (2, -1))
        phase = torch.stack([shared + turn, shared - turn], dim=1)
        spectra = torch.polar(log_magnitude.clamp(max=LOUDEST).exp(), phase)
        return istft(spectra, self.front_end)

    def _prior(self, mel: Tensor) -> Tensor:
        """Logarithms of left's and right's magnitudes (b 2 bins t), by least squares."""
        level, pan, _ = linear(unpack(mel, self.front_end), self.front_end)
        sides = torch.stack([level * (1 + pan), level * (1 - pan)], dim=1)
        return (sides + self.front_end.log_floor / 10).log()


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


def write_vocoder(folder: Path, front_end: FrontEnd, vocoder: VocosVocoder | None = None) -> None:
    """Write a vocoder's folder; without a network it tells the front end, for Griffin-Lim.

    Raises:
        UserError: the system refuses to write.
    """
    if vocoder is None:
        config = {"_class_name": "GriffinLim", **front_end.to_config()}
        write_json(Path(folder) / "config.json", config)
    else:
        save_component(vocoder, Path(folder))


def _load_griffin_lim(
    folder: Path, config: Mapping[str, Any], device: torch.device | str
) -> Vocoder:
    return GriffinLim(FrontEnd.from_config(config))


def _load_vocos(folder: Path, config: Mapping[str, Any], device: torch.device | str) -> Vocoder:
    return load_into(
        lambda: VocosVocoder.from_config(config), load_state(folder), folder, device=device
    )


_Load = Callable[[Path, Mapping[str, Any], torch.device | str], Vocoder]
_LOADERS: dict[str, _Load] = {"GriffinLim": _load_griffin_lim, "VocosVocoder": _load_vocos}
