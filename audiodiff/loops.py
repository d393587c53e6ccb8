"""Loops: clips of whole bars whose end goes on at their beginning, without a seam.

Latents of a loop lie on a circle of whole frames, denoised by windows that reach over its end
(:func:`shared.windows.circular`). Bars are hardly ever whole frames long, so the circle has the
nearest number of frames, its beats are laid on exactly those, and the spectrogram that it decodes
to is played so much slower or faster that the period is right to the sample: half a frame at most
over the whole loop, at the same pitch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from audiodiff.codec import MusicCodec
from audiodiff.controls import Controls
from audiodiff.labels import FRAME_SECONDS
from audiodiff.long_clips import FADE, MEL_OVERLAP, VOCODER_MARGIN, decode_mel, fade_over, vocode
from audiodiff.wishes import Wishes, controls_of


@dataclass(frozen=True)
class Circle:
    """A loop as the model makes it.

    Attributes:
        frames: latent frames round the circle.
        samples: of its sound, at the codec's rate.
    """

    frames: int
    samples: int


def circle(seconds: float, codec: MusicCodec) -> Circle:
    """The circle of a loop of that length."""
    samples = round(seconds * codec.front_end.sample_rate)
    return Circle(max(1, round(samples / codec.samples_per_frame)), samples)


def stated_controls(wishes: Wishes, loop: int | None, frames: int) -> Controls:
    """The wishes as controls for ``frames`` latent frames, or for a circle of so many.

    Round a circle there are exactly the beats of ``loop`` bars.
    """
    if loop is None:
        return controls_of(wishes, frames)
    return controls_of(wishes, frames, 60 * loop * wishes.meter / (frames * FRAME_SECONDS))


def decode_circle(codec: MusicCodec, latents: Tensor, samples: int) -> Tensor:
    """Latents (b z rows t) round a circle -> the ``samples`` of one round: (b 2 samples).

    The spectrogram is a function of time with that period, of which a vocoder gets one round and
    some more on either side. What it plays after the end is faded over into the beginning, so that
    the last sample leads to the first.
    """
    frames = latents.shape[-1]
    hop = codec.front_end.hop_length
    factor = codec.samples_per_frame // hop
    around = torch.arange(-MEL_OVERLAP, frames + MEL_OVERLAP) % frames
    extended = decode_mel(codec, latents[..., around.to(latents.device)])
    mel = extended[..., MEL_OVERLAP * factor : (MEL_OVERLAP + frames) * factor]

    fade = min(FADE * hop, samples // 2)
    before = VOCODER_MARGIN
    count = before + -(-(samples + fade) // hop) + VOCODER_MARGIN
    middles = (torch.arange(count, dtype=torch.float64) - before + 0.5) * hop
    played = vocode(codec.vocoder, at(mel, middles / samples), hop)
    first = before * hop
    once = played[..., first : first + samples].clone()
    after = played[..., first + samples : first + samples + fade]
    once[..., :fade] = fade_over(after, once[..., :fade])
    return once


def at(mel: Tensor, rounds: Tensor) -> Tensor:
    """Frames of a circular spectrogram (... t) at moments counted in rounds: (... len(rounds)).

    Frame i of n stands for the moment (i + 1/2) / n; between frames it is interpolated.
    """
    count = mel.shape[-1]
    places = rounds * count - 0.5
    # Rounding must not make a neighbour speak where moments are those of frames.
    places = torch.where((places - places.round()).abs() < 1e-6, places.round(), places)
    left = places.floor()
    share = (places - left).to(mel)
    left = left.long().to(mel.device) % count
    return torch.lerp(mel[..., left], mel[..., (left + 1) % count], share)
