"""The worse model that autoguidance pushes away from: found, checked and loaded by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch

from shared.checkpoints import load_denoiser, load_state, model_hash, read_config
from shared.conditioning import Conditioning
from shared.denoiser import DenoiseFn, Denoiser
from shared.errors import UserError
from shared.guidance import plain
from shared.models import find_model
from shared.pipelines import for_sampling
from shared.settings import GuidanceSettings
from shared.text import TextEncoder

ConditioningBy = Callable[[TextEncoder], Conditioning]
"""What a denoiser is told of the text, by the text encoder that it was trained with."""

WeakGuide = Callable[[Conditioning], DenoiseFn]
"""What the better denoiser is told -> what the worse one says of the same."""


def checked_weaker(guidance: GuidanceSettings, kind: str, folder: Path) -> GuidanceSettings:
    """The guidance with the hash of its worse model, if it has one, that suits the model there.

    Args:
        kind: "image" or "music".
        folder: of the model that is guided.

    Raises:
        UserError: there is no such model, or its latents are others than this one's.
    """
    if guidance.autoguidance is None:
        return guidance
    weak = find_model(guidance.autoguidance, kind).folder
    return replace(guidance, autoguidance_hash=_fitting(weak, folder, guidance.autoguidance))


def weak_guide(
    guidance: GuidanceSettings,
    kind: str,
    device: torch.device,
    dtype: torch.dtype,
    cond_by: ConditioningBy,
) -> WeakGuide | None:
    """The worse model that the guidance names; None if it names none or its scale is 1, off.

    It is told what the better one is, but the text by its own encoder. Of n windows of each sample,
    (n * b ...) window by window, each is told the text.

    Args:
        cond_by: the text of the samples, (b n d).
    """
    if guidance.autoguidance is None or guidance.autoguidance_scale == 1:
        return None
    denoiser, encoder = _load(find_model(guidance.autoguidance, kind).folder, device, dtype)
    context = cond_by(encoder).context
    assert context is not None

    def of(cond: Conditioning) -> DenoiseFn:
        assert cond.context is not None
        windows = len(cond.context) // len(context)
        return plain(denoiser, replace(cond, context=context.repeat(windows, 1, 1)))

    return of


@lru_cache(maxsize=1)
def _load(folder: Path, device: torch.device, dtype: torch.dtype) -> tuple[Denoiser, TextEncoder]:
    denoiser = for_sampling(load_denoiser(folder, device, dtype))
    return denoiser, TextEncoder.load(folder, device, dtype)


@lru_cache(maxsize=8)
def _fitting(weak: Path, folder: Path, name: str) -> str:
    """The hash of the model in ``weak``; a UserError if it does not fit the one in ``folder``."""
    configs = [read_config(root / "unet") for root in (weak, folder)]
    for channels in ("in_channels", "out_channels"):
        theirs, ours = (config.get(channels) for config in configs)
        if theirs != ours:
            raise UserError(
                f"model {name!r} cannot guide this one: its network has {theirs} {channels}, "
                f"not {ours}"
            )
    if configs[0].get("time_cond_proj_dim") is not None:
        raise UserError(f"model {name!r} takes a guidance scale; autoguidance wants one without")
    codes = [load_state(root / "vae") for root in (weak, folder)]
    same = codes[0].keys() == codes[1].keys() and all(
        # The same weights may be kept in another precision.
        one.shape == codes[1][key].shape
        and torch.allclose(one.float(), codes[1][key].float(), rtol=1e-2, atol=1e-3)
        for key, one in codes[0].items()
    )
    if not same:
        raise UserError(
            f"model {name!r} cannot guide this one: its autoencoder is another, so its latents "
            "mean something else; take a model that was trained less on the same latents"
        )
    return model_hash(weak)
