"""A clip that sounds like another one: guidance towards the spectrum of a reference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from audiodiff.audio_file import resample
from audiodiff.codec import MusicCodec
from audiodiff.labels import SAMPLE_RATE
from audiodiff.loudness import normalize
from audiodiff.spectrogram import waveform_to_mel
from shared.denoiser import DenoiseFn
from shared.errors import UserError
from shared.guidance import Guidance, Loss, gradient, normalised_step

HEARD_SECONDS = 30.0  # of a reference, from its beginning
STEP = 0.5  # how far each move goes, in noise levels
SILENT = 1e-4  # peak of a reference that cannot be heard


def like(codec: MusicCodec, samples: np.ndarray, sample_rate: int) -> Guidance:
    """Guidance that gives each band the mean and the spread of level that a reference has.

    The statistics of a spectrogram's bands over time, without their order, are the timbre and not
    the notes (as McDermott & Simoncelli 2011 have it for textures).

    Args:
        samples: the reference (c s), at any loudness.

    Raises:
        UserError: it is silent.
    """
    if np.abs(samples).max() < SILENT:
        raise UserError("the reference is silent; it has no sound to be like")
    part = samples[:, : round(HEARD_SECONDS * sample_rate)]
    heard = normalize(resample(part, sample_rate, SAMPLE_RATE), SAMPLE_RATE)
    both = np.broadcast_to(heard, (2, heard.shape[1])).astype(np.float32)
    wanted = _statistics(waveform_to_mel(torch.from_numpy(both)[None], codec.front_end))

    def distance(denoised: Tensor) -> Tensor:
        found = _statistics(codec.latents_to_mel(denoised))
        return (found - wanted.to(found)).square().flatten(1).sum(1)

    return towards(distance)


def towards(loss: Callable[[Tensor], Tensor]) -> Guidance:
    """Guidance by the gradient of a loss (b c h w) -> (b,)."""

    def guide(denoise: DenoiseFn) -> DenoiseFn:
        return gradient(denoise, [Loss(loss)], normalised_step(STEP))

    return guide


def _statistics(mel: Tensor) -> Tensor:
    """Mean and deviation of the bands' levels over time: (b 2 f t) -> (b 2 f)."""
    level = mel[:, 0]
    return torch.stack([level.mean(-1), level.std(-1)], dim=1)
