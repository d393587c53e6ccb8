"""Guidance by prompts and controls over latents of any length: in overlapping windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from audiodiff.long_clips import in_one_piece
from shared.conditioning import Conditioning, concatenate
from shared.denoiser import DenoiseFn
from shared.prompt_guidance import PromptGuidance
from shared.windows import circular, windowed

OVERLAP = 24  # latent frames that neighbouring windows of a long clip share, at least
WINDOWS_AT_ONCE = 4  # computed in one call of the network


def guided_windows(
    guide: PromptGuidance, cond: Conditioning, uncond: Conditioning, window: int, *, loop: bool
) -> DenoiseFn:
    """The guided ``DenoiseFn`` over latents (b z rows t) as long as the conditionings' channels.

    Args:
        cond, uncond: (b ...) each, with controls as ``concat`` (b channels rows t).
        window: latent frames that the network was trained at.
        loop: the end goes on at the beginning.
    """
    assert cond.concat is not None
    frames = cond.concat.shape[-1]
    if not loop and frames <= in_one_piece(window):
        window = frames

    def denoise_windows(starts: Sequence[int]) -> DenoiseFn:
        return guide(_windows_of(cond, starts, window), _windows_of(uncond, starts, window))

    join = circular if loop else windowed
    return join(denoise_windows, frames, window, min(OVERLAP, window // 2), at_once=WINDOWS_AT_ONCE)


def _windows_of(cond: Conditioning, starts: Sequence[int], window: int) -> Conditioning:
    """The conditioning (b ...) of windows in time, stacked window by window: (n * b ...)."""
    assert cond.concat is not None
    around = torch.arange(window, device=cond.concat.device)  # a loop's reach over its end
    parts = (cond.concat[..., (s + around) % cond.concat.shape[-1]] for s in starts)
    return concatenate([replace(cond, concat=part) for part in parts])
