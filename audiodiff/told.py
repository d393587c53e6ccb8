"""What a model is told beside the words: the control channels of each clip of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from audiodiff.codec import MusicCodec
from audiodiff.controls import CHANNELS, Controls, to_tensor, without
from audiodiff.loops import stated_controls
from audiodiff.settings import MusicSettings
from audiodiff.sketch_controls import by_weight, less, overlaid
from audiodiff.wishes import wishes_of
from shared.conditioning import Conditioning
from shared.errors import UserError
from shared.prompt_guidance import Emphasis


def told(
    batch: Sequence[MusicSettings], frames: int, controls: Sequence[Controls | None] | None
) -> list[Controls]:
    """The controls of each clip: its own, or what its prompt, options and sketch tell."""
    given = controls or [None] * len(batch)
    return [
        own or overlaid(stated_controls(wishes_of(one), one.loop, frames), one.sketch)
        for own, one in zip(given, batch, strict=True)
    ]


def lessened(
    batch: Sequence[MusicSettings], everything: Sequence[Controls]
) -> list[tuple[float, list[Controls]]]:
    """Weights other than 1 in the batch's sketch, with the controls less those that have it.

    A weight is a guidance scale: between, and beyond, the results without and with a control.
    """
    sketch = batch[0].sketch
    weights = {} if sketch is None else by_weight(sketch)
    return [(weight, [less(one, names) for one in everything]) for weight, names in weights.items()]


def _without(name: str, cond: Conditioning) -> Conditioning:
    assert cond.concat is not None
    return replace(cond, concat=without(cond.concat, name))


EMPHASES: Mapping[str, Emphasis] = {"dynamics": Emphasis(1.0, partial(_without, "dynamics"))}
"""Control channels that are lost among the others, and how much more they guide.

One channel of 67, of which the network makes least, see docs/controls.md. Chosen on composed pieces
that are in no evaluation.
"""


def emphases(controls: Sequence[Controls]) -> list[Emphasis]:
    """What of the controls is followed more than the others, see :data:`EMPHASES`."""
    known = [one.known for one in controls]
    return [one for name, one in EMPHASES.items() if any(each[name].any() for each in known)]


def check_length(controls: Controls | None, needed: int) -> None:
    """Raise UserError if there are controls that end before ``needed`` latent frames are over."""
    if controls is not None and controls.frames < needed:
        raise UserError(
            f"the controls end after {controls.frames} latent frames, {needed} are needed"
        )


def stacked(controls: Sequence[Controls], rows: int, frames: int) -> Tensor:
    """Controls as channels (b CHANNELS rows frames); beyond their end, all is unknown: zero."""
    channels = [to_tensor(one, rows)[..., :frames] for one in controls]
    return torch.stack([F.pad(one, (0, frames - one.shape[-1])) for one in channels])


def check_channels(name: str, unet: Mapping[str, Any], codec: MusicCodec) -> None:
    """Raise UserError unless a U-Net's config has the channels of latents and controls."""
    wanted = (codec.channels + CHANNELS, codec.channels)
    found = (unet.get("in_channels"), unet.get("out_channels"))
    if found != wanted:
        raise UserError(
            f"model {name!r} is not whole: its unet has {found[0]} channels in and {found[1]} out, "
            f"its latents and controls are {wanted[0]} and {wanted[1]}"
        )
