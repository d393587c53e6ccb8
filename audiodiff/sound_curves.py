"""Curves that a sound designer turns, of spectrograms: brightness, width, noisiness, onsets.

Each is differentiable, so that it can both steer a clip and be measured in one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from audiodiff.labels import SAMPLES_PER_FRAME
from audiodiff.spectrogram import FrontEnd, StereoMel, mel_filters, unpack, waveform_to_mel

QUIETEST = 1e-6  # of a sum of levels; silence has a curve as well
ONSET_COMPRESSION = 300.0  # of levels relative to the loudest, as in audiodiff.tempo
ONSET_APART = 0.05  # seconds; what begins closer together counts as one
ONSET_HEIGHT = 0.15  # mean rise over the bands, from one frame to the next, of what begins
ONSET_SHARPNESS = 8.0


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def band_hz(front_end: FrontEnd) -> Tensor:
    """Where the mel bands' weight lies, Hz: (f)."""
    filters = mel_filters(front_end)
    hz = torch.linspace(0, front_end.sample_rate / 2, front_end.bins)
    return filters @ hz / filters.sum(1)


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def band_bins(front_end: FrontEnd) -> Tensor:
    """How many frequencies of the linear spectrum a mel band adds up: (f)."""
    return mel_filters(front_end).sum(1)


def power(mel: StereoMel, front_end: FrontEnd) -> Tensor:
    """About the power of each frame (b t): as if a band's frequencies were equally strong."""
    return (mel.level.square() / band_bins(front_end).to(mel.level)[:, None]).sum(1)


def brightness(mel: StereoMel, front_end: FrontEnd) -> Tensor:
    """The spectral centroid of each frame (b t), Hz: where half its levels lie on either side."""
    hz = band_hz(front_end).to(mel.level)[:, None]
    return (mel.level * hz).sum(1) / (mel.level.sum(1) + QUIETEST)


def stereo_width(mel: StereoMel, front_end: FrontEnd) -> Tensor:
    """The width of each frame (b t), 0 to 1, loud bands counting more."""
    loud = mel.level.unflatten(1, (-1, 2)).sum(2)  # of pairs of bands
    return (loud * mel.width).sum(1) / (loud.sum(1) + QUIETEST)


def noisiness(mel: StereoMel, front_end: FrontEnd) -> Tensor:
    """The spectral flatness of each frame (b t), 0 to 1: geometric over arithmetic mean of levels.

    Of the mean level of a band's frequencies, lest the wide bands on top count as noise.
    """
    mean = mel.level / band_bins(front_end).to(mel.level)[:, None] + QUIETEST
    return mean.log().mean(1).exp() / mean.mean(1)


def onset_density(mel: StereoMel, front_end: FrontEnd) -> Tensor:
    """How many sounds begin about each frame (b t), a second.

    The onset strength of `audiodiff.tempo`, of mel bands: where a frame stands out against those
    next to it, and against the recording's mean, it counts as one. Both are soft, for gradients.
    """
    rate = front_end.sample_rate / front_end.hop_length
    loudest = mel.level.amax((1, 2), keepdim=True) + QUIETEST
    levels = (ONSET_COMPRESSION / loudest * mel.level).log1p()
    rise = levels.diff(dim=2, prepend=levels[..., :1]).clamp(min=0).mean(1)  # b t
    reach = round(ONSET_APART * rate)
    near = F.pad(rise, (reach, reach)).unfold(1, 2 * reach + 1, 1)  # b t 2*reach+1
    peak = (near * (ONSET_SHARPNESS / ONSET_HEIGHT)).softmax(2)[..., reach]
    stands_out = ((rise - ONSET_HEIGHT) * (ONSET_SHARPNESS / ONSET_HEIGHT)).sigmoid()
    return rate * peak * stands_out


CURVES: Mapping[str, Callable[[StereoMel, FrontEnd], Tensor]] = {
    "brightness": brightness,
    "stereo_width": stereo_width,
    "noisiness": noisiness,
    "onset_density": onset_density,
}


def per_latent_frame(curve: Tensor, frames: int) -> Tensor:
    """Means of a curve (b t) over each of ``frames`` latent frames: (b frames)."""
    return curve.unflatten(1, (frames, -1)).mean(2)


@torch.inference_mode()
def measured(samples: np.ndarray, name: str) -> np.ndarray:
    """A curve of a clip (2 s) at 44.1 kHz, in each latent frame (t)."""
    front_end = FrontEnd()
    frames = -(-samples.shape[1] // SAMPLES_PER_FRAME)
    padded = np.zeros((2, frames * SAMPLES_PER_FRAME), np.float32)
    padded[:, : samples.shape[1]] = samples
    mel = unpack(waveform_to_mel(torch.from_numpy(padded)[None], front_end), front_end)
    return per_latent_frame(CURVES[name](mel, front_end), frames)[0].numpy()
