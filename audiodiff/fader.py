"""Riding the fader: each estimate is made as loud, moment by moment, as was asked for.

A sound that gets louder has the same logarithm added to all its levels, and latents are all but
linear in those. So there is one direction in which an estimate gets louder whatever it holds, and
what it lacks in loudness needs no gradient: it goes there at once, as data consistency does
(:func:`shared.guidance.consistent`; Wang et al. 2022, arXiv 2212.00490) where a measurement is
linear. What the denoiser makes of that in the next step is music that is played louder. What little
the finished sound still lacks is turned up and down in it, as at a mixing desk (:func:`ride`).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from audiodiff.codec import MusicCodec
from audiodiff.curves import values_at
from audiodiff.labels import SAMPLES_PER_FRAME
from audiodiff.long_clips import decode_mel
from audiodiff.loudness import loudness_curve
from audiodiff.sketch import Curve
from audiodiff.sound_curves import per_latent_frame, power
from audiodiff.spectrogram import FrontEnd, unpack
from audiodiff.steering_losses import QUIETEST, covered, mean_where, smooth
from shared.denoiser import DenoiseFn
from shared.guidance import Guidance
from shared.guidance.compose import within

# Noise levels, low < sigma <= high, at which it acts: above, the estimate is a blur; below, what is
# left to do is less than can be heard.
SIGMAS = (0.02, 10.0)
ROUNDS = 10  # towards a gain whose smoothed curve is what is missing
MOST = 20.0  # dB in one step
LOUDEST = 30.0  # dB; a spectrogram of music has about 0, guided ones up to 12
PROBE = 6.0  # dB, by which the direction is found
WINDOW = 16  # latent frames of the probe
LAST = 6.0  # dB, at most, in the finished sound: what is silent stays so
LAST_ROUNDS = 100


def fader(curve: Curve, codec: MusicCodec, frames: int) -> Guidance:
    """Guidance towards a curve of levels (dB) smoothed over a second, at whatever mean level.

    A weight below 1 goes that share of the way in each step.

    Args:
        frames: latent frames that are sampled.
    """
    wanted = torch.from_numpy(values_at(curve, frames)).float()
    inside = covered(curve, frames)
    share = min(curve.weight, 1.0)
    louder = share * decibel(codec)

    def guide(denoise: DenoiseFn) -> DenoiseFn:
        def guided(x: Tensor, sigma: Tensor) -> Tensor:
            denoised = denoise(x, sigma)
            found = levels(decode_mel(codec, denoised), codec.front_end, frames)
            gain = missing(found, wanted.to(found), inside.to(found.device))
            return denoised + gain[:, None, None].to(denoised) * louder.to(denoised)

        return within(guided, denoise, SIGMAS)

    return guide


def ride(samples: np.ndarray, curve: Curve) -> np.ndarray:
    """Samples (2 s) whose level runs, smoothed over a second, as the curve does, within its span.

    A gain of at most ``LAST`` dB either way, gliding from latent frame to latent frame.
    """
    found = torch.from_numpy(loudness_curve(samples))[None]
    frames = found.shape[1]
    wanted = torch.from_numpy(values_at(curve, frames)).float()
    gain = missing(found, wanted, covered(curve, frames), LAST_ROUNDS)[0] * min(curve.weight, 1.0)
    middles = (np.arange(frames) + 0.5) * SAMPLES_PER_FRAME
    each = np.interp(np.arange(samples.shape[1]), middles, gain.clamp(-LAST, LAST).numpy())
    return samples * (10 ** (each / 20)).astype(np.float32)


@torch.no_grad()
def decibel(codec: MusicCodec) -> Tensor:
    """What a decibel more adds to latents, (1 z rows 1), about the mean of all music."""
    device = next(codec.vae.parameters()).device
    mean = torch.zeros(1, codec.channels, codec.rows, WINDOW, device=device)
    mel = codec.latents_to_mel(mean)
    raised = mel.clone()
    raised[:, 0] += PROBE * math.log(10) / 20 / codec.front_end.std
    change = codec.mel_to_latents(raised) - codec.mel_to_latents(mel)
    return change.mean(-1, keepdim=True) / PROBE


def levels(mel: Tensor, front_end: FrontEnd, frames: int) -> Tensor:
    """The level of each latent frame of a normalised mel (b 2 f t), dB: (b frames).

    What other guidance makes of an estimate at high noise may be no sound at all: louder than
    ``LOUDEST`` nothing is, lest a frame of that speak for all.
    """
    found = per_latent_frame(power(unpack(mel, front_end), front_end), frames)
    return (10 * (found + QUIETEST).log10()).clamp(max=LOUDEST)


def missing(found: Tensor, wanted: Tensor, inside: Tensor, rounds: int = ROUNDS) -> Tensor:
    """What to add to levels (b t), dB, so that, smoothed, they run as the wanted ones (t) do.

    Only ``inside`` (t) counts, and no mean. The gain is smooth itself: gradient descent on the
    squared distance of the smoothed curves, from 0.
    """
    gain = torch.zeros_like(found)
    for _ in range(rounds):
        off = smooth(wanted[None]) - smooth(found + gain)
        off = (off - mean_where(off, inside)[:, None]) * inside
        gain = gain + smooth(off)
    return gain.clamp(-MOST, MOST) * inside
