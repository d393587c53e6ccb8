"""The adapter that a picture model may carry: told on the latents' grid what is to be where.

One network takes two things beside the noisy latents, as further input channels (Rombach et al.
2022, arXiv 2112.10752, section 4.3): a layout, which is regions and what each is to hold, and the
part of a picture that is known already. Either may be left out. The network is a low-rank
difference to the model's own U-Net with a wider first convolution; ``adapter/`` holds it beside
what this module adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from imagediff.regions import shares_of, stacked
from imagediff.settings import Settings
from shared.editing import Known
from shared.layout import ADAPTER, check_adapter
from shared.text import TextEncoder
from shared.weights import load_into, load_state, read_config

INPUTS = "inputs"  # folder of the adapter's own module


@dataclass(frozen=True, eq=False)
class Told:
    """What the network is told of a batch.

    Attributes:
        shares: (b r h w) of 0..1: how much of each cell each region fills; together at most 1.
        phrases: (b r d) what each is to hold, as :func:`encode_phrases` gives it.
        said: (b,) 1 where there is a layout; 0 where nothing is said of where things are.
        free: (b 1 h w) 1 where the picture is to be made, 0 where it is known.
        known: (b c h w) its latents; what they are where free does not matter.
    """

    shares: Tensor
    phrases: Tensor
    said: Tensor
    free: Tensor
    known: Tensor


class AdapterInputs(nn.Module):
    """What is told -> further input channels of the U-Net.

    Channels: the regions' phrases in a few numbers each, painted on their cells; what regions fill;
    whether there is a layout; what is free; the known latents.

    Args:
        text: length of a phrase's encoding.
        phrases: channels that it is projected to.
        latents: channels of the latents.
    """

    def __init__(self, text: int, phrases: int, latents: int) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"text": text, "phrases": phrases, "latents": latents}
        self.project = nn.Linear(text, phrases, bias=False)

    @property
    def channels(self) -> int:
        """How many there are."""
        return self.config["phrases"] + self.config["latents"] + 3

    def forward(self, told: Told) -> Tensor:
        """(b channels h w), in the dtype of the weights."""
        dtype = self.project.weight.dtype
        said = told.said.to(dtype)[:, None, None, None]
        shares = told.shares.to(dtype) * said
        what = torch.einsum("brhw,brk->bkhw", shares, self.project(told.phrases.to(dtype)))
        free = told.free.to(dtype)
        everywhere = said.expand_as(free)
        filled = shares.sum(1, keepdim=True)
        return torch.cat([what, filled, everywhere, free, told.known.to(dtype) * (1 - free)], 1)


def tell(
    settings: Settings,
    shape: tuple[int, int, int],
    inputs: AdapterInputs,
    text: TextEncoder,
    known: Known | None,
) -> Told:
    """What the settings' layout and what is known say of one picture (b = 1).

    Args:
        shape: c h w of its latents.
    """
    _, *grid = shape
    device = inputs.project.weight.device
    shares = [shares_of(region, settings.size, (grid[0], grid[1])) for region in settings.layout]
    filled = stacked(shares) if shares else np.zeros((1, *grid), np.float32)
    phrases = [region.what for region in settings.layout]
    latents, free = torch.zeros(1, *shape, device=device), torch.ones(1, 1, *grid, device=device)
    if known is not None:
        latents, mask = known.at(latents)
        free = 1 - mask.to(latents).expand(1, 1, *grid)
    return Told(
        shares=torch.from_numpy(filled).to(device)[None],
        phrases=encode_phrases(text, phrases or [""])[None],
        said=torch.full((1,), float(bool(shares)), device=device),
        free=free,
        known=latents,
    )


def encode_phrases(text: TextEncoder, phrases: Sequence[str]) -> Tensor:
    """Phrases (n d): the context of each at its first end token, which has seen all of it."""
    ids = text.tokenize(phrases)
    end = (ids == ids[:, -1:]).int().argmax(1)  # what fills up the rest is end tokens too
    with torch.no_grad():
        context = text.forward_ids(ids)
    return context[torch.arange(len(ids), device=context.device), end.to(context.device)]


def load_inputs(
    root: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> AdapterInputs:
    """The adapter's own module of the model folder ``root``.

    Raises:
        UserError: the model carries no adapter, or it is damaged.
    """
    check_adapter(root)
    folder = root / ADAPTER / INPUTS
    config = read_config(folder)
    return load_into(
        lambda: AdapterInputs(**config), load_state(folder), folder, device=device, dtype=dtype
    )
