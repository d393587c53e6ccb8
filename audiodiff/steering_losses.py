"""What a spectrogram lacks of what it should hold: differentiable losses, about 1 where nothing is.

Each is a function of what the two channels of a mel say (:class:`StereoMel`), levels (b f t), to
one number a sample (b). They see 256 bands of 12 ms, the measures of :mod:`audiodiff.kept` hear the
finished sound.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from audiodiff.curves import values_at
from audiodiff.inputs.timbre import heard_by, statistics
from audiodiff.labels import FRAME_SECONDS, Labels
from audiodiff.metrics import (
    CHORD_RANGE,
    HARMONIC_DECAY,
    HARMONICS,
    MELODY_RANGE,
    SMOOTHING,
    chord_templates,
    melody_classes,
)
from audiodiff.sketch import Chords, Curve, Melody, Timbre
from audiodiff.sketch_controls import chord_labels
from audiodiff.sound_curves import CURVES, band_hz, per_latent_frame
from audiodiff.spectrogram import FrontEnd, StereoMel

MelLoss = Callable[[StereoMel], Tensor]
"""What the channels of a mel say (b f t) -> loss (b)."""

QUIETEST = 1e-9
SEMITONE = 0.4  # spread of a tone over the bands round it, semitones
CONTRAST = 12.0  # of pitch classes' saliences, made into probabilities
OCTAVES = 0.5  # a centroid that far off counts 1
UNITS = {"stereo_width": 0.1, "noisiness": 0.1, "onset_density": 2.0}  # likewise of these
LOG_LEVEL = 0.7  # likewise of a band's mean log level


def melody_loss(melody: Melody, frames: int, front_end: FrontEnd) -> MelLoss:
    """Cross-entropy of the melody's pitch class in frames that a note fills.

    The salience of a pitch is that of :mod:`audiodiff.metrics`: the weighted sum of its harmonics'
    roots, from C4 to B5, but of mel bands, and a class has a soft maximum of its octaves.
    """
    classes = torch.from_numpy(melody_classes(Labels(melody=melody.heard()), frames))
    sounding = classes >= 0
    steps = [round(12 * np.log2(number)) for number in range(1, HARMONICS + 1)]
    count = len(MELODY_RANGE)
    tones_of = _tone_bands(front_end, MELODY_RANGE.start, MELODY_RANGE.stop + steps[-1])

    def loss(mel: StereoMel) -> Tensor:
        tones = (tones_of.to(mel.level) @ mel.level + QUIETEST).sqrt()  # b pitches t
        salience = sum(
            HARMONIC_DECAY**number * tones[:, step : step + count]
            for number, step in enumerate(steps)
        )
        assert isinstance(salience, Tensor)
        salience = salience.unflatten(2, (frames, -1)).mean(3)  # b pitches frames
        salience = CONTRAST * salience / (salience.mean(1, keepdim=True) + QUIETEST)
        octaves = salience.unflatten(1, (-1, 12)).logsumexp(1)  # C4 begins an octave: b 12 frames
        return mean_where(
            F.cross_entropy(
                octaves, classes.clamp(min=0).expand(len(octaves), -1), reduction="none"
            ),
            sounding,
        )

    return loss


def chords_loss(chords: Chords, frames: int, front_end: FrontEnd) -> MelLoss:
    """Cross-entropy of the energy's pitch classes from A2 to Ab6 with the chord's own."""
    wanted = torch.from_numpy(chord_templates(chord_labels(chords.heard()), frames))  # t 12
    known = wanted.any(1)

    def loss(mel: StereoMel) -> Tensor:
        classes = pitch_classes(mel, front_end).unflatten(2, (frames, -1)).mean(3)  # b 12 frames
        shares = (classes + QUIETEST) / (classes + QUIETEST).sum(1, keepdim=True)
        return mean_where(-(wanted.T.to(shares) * shares.log()).sum(1), known)

    return loss


def curve_loss(name: str, curve: Curve, frames: int, front_end: FrontEnd) -> MelLoss:
    """Mean square distance of one of :data:`audiodiff.sound_curves.CURVES`, smoothed."""
    wanted = torch.from_numpy(values_at(curve, frames)).float()
    inside = covered(curve, frames)

    def loss(mel: StereoMel) -> Tensor:
        found = smooth(per_latent_frame(CURVES[name](mel, front_end), frames))
        if name == "brightness":
            error = (found.clamp(min=1).log2() - wanted.to(found).log2()) / OCTAVES
        else:
            error = (found - wanted.to(found)) / UNITS[name]
        return mean_where(error.square(), inside)

    return loss


def timbre_loss(timbre: Timbre, front_end: FrontEnd) -> MelLoss:
    """Mean square distance of the bands' mean log levels over time, and of their spreads.

    Statistics of features stand for a style in Gatys et al. 2016, "Image style transfer using
    convolutional neural networks"; of spectrograms, in McDermott & Simoncelli 2011, "Sound texture
    perception via statistics of the auditory periphery".
    """
    mean, spread = heard_by(timbre, front_end)

    def loss(mel: StereoMel) -> Tensor:
        found_mean, found_spread = statistics(mel.level, front_end.log_floor)
        off = (found_mean - mean.to(found_mean)).square() + (
            found_spread - spread.to(found_spread)
        ).square()
        return off.mean(1) / LOG_LEVEL**2

    return loss


def pitch_classes(mel: StereoMel, front_end: FrontEnd) -> Tensor:
    """The energy of each pitch class from A2 to Ab6, C first: (b 12 t)."""
    low, high = round(CHORD_RANGE[0] + 0.5), round(CHORD_RANGE[1] + 0.5)
    energy = (_tone_bands(front_end, low, high).to(mel.level) @ mel.level).square()
    return energy.unflatten(1, (-1, 12)).sum(1).roll(low % 12, 1)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _tone_bands(front_end: FrontEnd, low: int, high: int) -> Tensor:
    """Weights of the mel bands about MIDI pitches low .. high - 1: (pitches f), a row's sum 1.

    Bands lie further apart than semitones at the bottom; there the nearest ones speak for a pitch.
    """
    hz = band_hz(front_end)
    pitches = 69 + 12 * (hz / 440).log2()
    apart = pitches.diff(append=pitches[-1:] + 1).abs()  # semitones to the next band
    spread = (0.5 * apart).clamp(min=SEMITONE)
    away = (pitches - torch.arange(low, high)[:, None]) / spread
    weights = torch.exp(-0.5 * away.square())
    return weights / weights.sum(1, keepdim=True)


def smooth(curve: Tensor) -> Tensor:
    """A running mean over about a second of latent frames (b t); the ends repeat."""
    width = min(SMOOTHING, curve.shape[1] // 2 * 2 - 1)
    if width < 3:
        return curve
    padded = F.pad(curve[:, None], (width // 2, width // 2), mode="replicate")
    return F.avg_pool1d(padded, width, 1)[:, 0]


def covered(curve: Curve, frames: int) -> Tensor:
    """Which of ``frames`` latent frames a curve counts in: (frames) bool."""
    return torch.tensor([curve.covers((frame + 0.5) * FRAME_SECONDS) for frame in range(frames)])


def mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean of (b t) over the chosen (t); 0 if there are none."""
    chosen = chosen.to(values)
    return (values * chosen).sum(1) / chosen.sum().clamp(min=1)
