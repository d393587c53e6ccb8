"""The shape of a single sound: how loud and how bright it is, frame by frame, held by guidance.

Controls of music (:mod:`audiodiff.steering`) are heard over a second or so; a stroke of a drum is
over by then. These losses see every frame of the spectrogram.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from audiodiff.codec import MusicCodec
from audiodiff.long_clips import decode_mel
from audiodiff.sound_curves import band_hz
from audiodiff.spectrogram import FrontEnd, unpack
from shared.guidance import Guidance, Loss, gradient, normalised_step

Points = Sequence[tuple[float, float]]
"""(seconds, value), in the order of time; the first and the last value hold beyond."""

STEP = 0.7  # root-mean-square move of the estimate, in noise levels
DECIBELS = 6.0  # a level that far off counts 1
OCTAVES = 0.5  # likewise of the middle
QUIETEST = 1e-9  # of a power


def shaped(codec: MusicCodec, levels: Points, middles: Points) -> Guidance:
    """Guidance towards a course of levels (dB) and of middles of the power (Hz).

    Between points dB and octaves go evenly. 0 dB is the power of a mel whose bands' squared levels
    add up to 1; clips are brought to one loudness in the end, so only differences count.
    """
    loss = Loss(lambda latents: off_shape(codec, latents, levels, middles))
    return lambda denoise: gradient(denoise, [loss], normalised_step(STEP), through_denoiser=False)


def off_shape(codec: MusicCodec, latents: Tensor, levels: Points, middles: Points) -> Tensor:
    """The mean squared distance of latents (b z rows t) from that course: (b,)."""
    front_end = codec.front_end
    level, middle = course(decode_mel(codec, latents, keep=False), front_end)
    wanted = _values(levels, level.shape[1], front_end, lambda value: value)
    octave = _values(middles, level.shape[1], front_end, np.log2)
    off = (level - wanted.to(level)) / DECIBELS, (middle - octave.to(level)) / OCTAVES
    return off[0].square().mean(1) + off[1].square().mean(1)


def course(mel: Tensor, front_end: FrontEnd) -> tuple[Tensor, Tensor]:
    """Of a normalised mel (b 2 f t), each frame's level in dB and the middle of its power.

    Returns:
        Both (b t); the middle as log2 Hz.
    """
    power = unpack(mel, front_end).level.square() + QUIETEST
    octave = band_hz(front_end).clamp(min=front_end.f_min).log2()[:, None].to(power)
    return 10 * power.sum(1).log10(), (power * octave).sum(1) / power.sum(1)


def _values(
    points: Points, frames: int, front_end: FrontEnd, scale: Callable[[np.ndarray], np.ndarray]
) -> Tensor:
    times, values = np.array(points, float).T
    at = (np.arange(frames) + 0.5) * front_end.hop_length / front_end.sample_rate
    return torch.from_numpy(np.interp(at, times, scale(values))).float()
