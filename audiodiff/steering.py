"""Holding a sketch by gradients: the denoiser's estimate is heard, and moved to what is missing.

Guidance gradients through the decoder (Levy et al. 2023, arXiv 2311.00613): the estimate is decoded
to a spectrogram, what it lacks is a loss, and the state goes against the loss's gradient. It needs
no training, so it works with any model that has this codec.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from audiodiff import steering_losses as losses
from audiodiff.codec import MusicCodec
from audiodiff.fader import fader
from audiodiff.long_clips import decode_mel
from audiodiff.sketch import Sketch
from audiodiff.spectrogram import unpack
from audiodiff.steering_losses import MelLoss
from audiodiff.steering_rhythm import rhythm_loss
from shared.denoiser import DenoiseFn
from shared.errors import DivergenceError
from shared.guidance import Guidance, Loss, Step, even_step, gradient, normalised_step
from shared.guidance.compose import within

# Chosen on composed pieces that are in no evaluation. Above, the estimate is a blur, and below, the
# last steps clean up what the gradients did; together they are half of 25 steps.
SIGMAS = (0.3, 10.0)  # noise levels, low < sigma <= high, at which it acts
STEP = 0.15  # root-mean-square move of the estimate, in noise levels
# Times that, at most, in one place: what a loss lacks there alone, such as the bass of a bar's
# first beat, would have all of the move and come out as a burst.
PEAK = 2.0
# Beyond which no latent is moved: of music, 7 % of the loudest channel's lie there and .2 % of the
# others'. At high noise a move has room for bursts that no music has, and that neither the
# denoiser nor the fader gets rid of again. Static thresholding, as of pixels in Saharia et al. 2022
# (arXiv 2205.11487).
FURTHEST = 4.5


@dataclass(frozen=True)
class Term:
    """One loss, and how much it counts beside the others."""

    loss: MelLoss
    weight: float


def steering(
    sketch: Sketch | None, codec: MusicCodec, frames: int, step: float = STEP
) -> list[Guidance]:
    """The guidance that holds those parts of a sketch that are held by gradient; [] for none.

    Loudness is held by :func:`audiodiff.fader.fader`.

    Args:
        frames: latent frames that are sampled.
        step: see :func:`shared.guidance.normalised_step`.
    """
    if sketch is None:
        return []
    terms = terms_of(sketch, codec, frames)
    loss = Loss(lambda latents: shortfall(codec, terms, latents), sigma_range=SIGMAS)

    def guide(denoise: DenoiseFn) -> DenoiseFn:
        # Through the denoiser as well it costs twice as much and holds no better.
        guided = gradient(denoise, [loss], step_of(step), through_denoiser=False)
        return within(bounded(guided), denoise, SIGMAS)

    found: list[Guidance] = [guide] if terms else []
    if sketch.dynamics is not None and sketch.dynamics.in_gradient:
        found.append(fader(sketch.dynamics, codec, frames))  # last: it knows the way
    return found


def bounded(denoise: DenoiseFn) -> DenoiseFn:
    """Estimates that go no further than ``FURTHEST``."""
    return lambda x, sigma: denoise(x, sigma).clamp(-FURTHEST, FURTHEST)


def terms_of(sketch: Sketch, codec: MusicCodec, frames: int) -> Mapping[str, Term]:
    """Name -> the loss of each part that is held by gradient, but for dynamics."""
    front_end = codec.front_end
    found: dict[str, MelLoss] = {}
    if sketch.melody is not None:
        found["melody"] = losses.melody_loss(sketch.melody, frames, front_end)
    if sketch.chords is not None:
        found["chords"] = losses.chords_loss(sketch.chords, frames, front_end)
    if sketch.rhythm is not None:
        found["rhythm"] = rhythm_loss(sketch.rhythm, frames, front_end)
    if sketch.like is not None:
        found["like"] = losses.timbre_loss(sketch.like, front_end)
    for name, curve in (
        ("brightness", sketch.brightness),
        ("stereo_width", sketch.stereo_width),
        ("noisiness", sketch.noisiness),
        ("onset_density", sketch.onset_density),
    ):
        if curve is not None:
            found[name] = losses.curve_loss(name, curve, frames, front_end)
    parts = sketch.parts()
    return {
        name: Term(loss, parts[name].weight)
        for name, loss in found.items()
        if parts[name].in_gradient
    }


def shortfall(codec: MusicCodec, terms: Mapping[str, Term], latents: Tensor) -> Tensor:
    """The weighted sum of the losses of latents (b z rows t): (b).

    Each loss is scaled so that its gradient by the spectrogram has one size; otherwise the one with
    the steepest gradient would speak for all.

    Raises:
        DivergenceError: a loss or its gradient is no number; says which control's.
    """
    mel = decode_mel(codec, latents, keep=False)
    total = mel.new_zeros(len(mel))
    for name, term in terms.items():
        value = term.loss(unpack(mel, codec.front_end))
        (slope,) = torch.autograd.grad(value.sum(), mel, retain_graph=True)
        if not (value.isfinite().all() and slope.isfinite().all()):
            raise DivergenceError(
                f"the gradient of {name} diverged; leave it to --control-by {name}=channels, "
                f"or out, or lower its --weight"
            )
        size = slope.square().mean((1, 2, 3)).sqrt()
        # Where nothing pulls, as in a span without a beat, nothing is scaled up either.
        scale = torch.where(size > 0, 1 / size.clamp(min=torch.finfo(size.dtype).tiny), 0.0)
        total = total + term.weight * value * scale
    return total


def step_of(size: float) -> Step:
    """Moves of that root mean square, in noise levels, or less; see ``PEAK``."""
    return finite(even_step(normalised_step(size), PEAK * size))


def finite(step: Step) -> Step:
    """A step that stops where its gradient is no number.

    Raises:
        DivergenceError: when called, so.
    """

    def checked(slope: Tensor, sigma: Tensor) -> Tensor:
        if not slope.isfinite().all():
            raise DivergenceError(
                f"the gradient that holds the controls diverged at noise level {sigma[0]:.3g}; "
                "lower weights, more steps or --control-by channels help"
            )
        return step(slope, sigma)

    return checked
