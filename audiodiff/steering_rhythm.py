"""What a spectrogram lacks of a rhythm: strokes, beats that stand out, bars that are begun.

Losses as in :mod:`audiodiff.steering_losses`. Beats and bars are asked for only as far as a
listener needs to find them: where they stand out enough nothing pulls, so that off-beats, and with
them the style, stay what they are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from audiodiff.bars import BASS
from audiodiff.labels import FRAME_SECONDS
from audiodiff.sketch import Rhythm
from audiodiff.sound_curves import band_hz
from audiodiff.spectrogram import FrontEnd, StereoMel
from audiodiff.steering_losses import QUIETEST, MelLoss, pitch_classes

STROKE = 0.02  # seconds about a stroke in which onsets are welcome
RISE = 300.0  # compression of levels before onsets are looked for, as in audiodiff.tempo
PLACES = 8  # of a beat, at each of which beats might be heard
EDGE = 0.05  # seconds at the start, where everything begins
# What half of all rendered clips reach:
BEATS_AHEAD = 0.3  # by how much, in logarithms, onsets on beats exceed those anywhere else
BARS_AHEAD = 0.6  # likewise the signs of a bar, each over its mean


def rhythm_loss(rhythm: Rhythm, frames: int, front_end: FrontEnd) -> MelLoss:
    """That of the strokes, or of the beats where there are none; and that of the bars."""
    loss = (strokes_loss if rhythm.strokes else beats_loss)(rhythm, frames, front_end)
    bars = bars_loss(rhythm, frames, front_end)
    return loss if bars is None else lambda mel: loss(mel) + bars(mel)


def strokes_loss(rhythm: Rhythm, frames: int, front_end: FrontEnd) -> MelLoss:
    """-log of the onsets' share that lies about strokes."""
    times = _times(frames, front_end)
    near = _about(rhythm.strokes, rhythm, times).sum(0).clamp(max=1)
    inside = torch.tensor([rhythm.covers(float(time)) for time in times])

    def loss(mel: StereoMel) -> Tensor:
        found = onsets(mel.level) * inside.to(mel.level)
        found = found[:, 4:]  # everything begins at the start
        about = (found * near[4:].to(found)).sum(1)
        return -((about + QUIETEST) / (found.sum(1) + QUIETEST)).log()

    return loss


def beats_loss(rhythm: Rhythm, frames: int, front_end: FrontEnd) -> MelLoss:
    """By how much onsets elsewhere in the beat exceed those on it less ``BEATS_AHEAD``."""
    times = _times(frames, front_end)
    beats = np.array(rhythm.beats)
    gaps = np.diff(beats, append=2 * beats[-1] - beats[-2])
    places = [
        _about((beats + place / PLACES * gaps).tolist(), rhythm, times).sum(0)
        for place in range(PLACES)
    ]
    if not places[0].any():  # a span between beats: nothing to stand out
        return lambda mel: 0 * mel.level.sum((1, 2))
    weights = torch.stack(places)
    weights = weights / (weights.sum(1, keepdim=True) + QUIETEST)

    def loss(mel: StereoMel) -> Tensor:
        found = (onsets(mel.level) @ weights.to(mel.level).mT + QUIETEST).log()  # b places
        return F.relu(found[:, 1:].amax(1) + BEATS_AHEAD - found[:, 0])

    return loss


def bars_loss(rhythm: Rhythm, frames: int, front_end: FrontEnd) -> MelLoss | None:
    """By how much another beat seems to begin bars more, less ``BARS_AHEAD``; None if none can.

    The signs of a bar are those of :func:`audiodiff.bars.first_downbeat`.
    """
    end = frames * FRAME_SECONDS
    beats = [time for time in rhythm.beats if EDGE <= time < end and rhythm.covers(time)]
    if rhythm.meter < 2 or len(beats) <= rhythm.meter or not rhythm.downbeats:
        return None
    times = _times(frames, front_end)
    about = _about(beats, rhythm, times)
    about = about / (about.sum(1, keepdim=True) + QUIETEST)
    # Which beat of its bar each is. What changes at the first of them is not known.
    first = min(range(len(beats)), key=lambda i: _off_bar(beats[i], rhythm))
    member = F.one_hot((torch.arange(len(beats)) - first) % rhythm.meter, rhythm.meter).float()
    segment = torch.tensor([bisect_right(beats, float(time)) for time in times])
    spans = F.one_hot(segment, len(beats) + 1).float()[:, 1:].mT  # beats t
    bass = band_hz(front_end) < BASS

    def by_place(sign: Tensor, member: Tensor) -> Tensor:
        relative = sign / (sign.mean(1, keepdim=True) + QUIETEST)
        return relative @ (member / member.sum(0)).to(sign)

    def loss(mel: StereoMel) -> Tensor:
        strokes = onsets(mel.level[:, bass.to(mel.level.device)]) @ about.to(mel.level).mT
        classes = pitch_classes(mel, front_end) @ spans.to(mel.level).mT  # b 12 beats
        alike = F.cosine_similarity(classes[..., 1:], classes[..., :-1], dim=1)
        found = by_place(strokes, member) + by_place(1 - alike, member[1:])
        return F.relu(found[:, 1:].amax(1) + BARS_AHEAD - found[:, 0])

    return loss


def onsets(level: Tensor) -> Tensor:
    """How much begins in each frame of a level (b f t): (b t)."""
    loudest = level.detach().amax((1, 2), keepdim=True) + QUIETEST  # nothing is won by a burst
    rise = (RISE / loudest * level).log1p().diff(dim=2, prepend=level[..., :1])
    return rise.clamp(min=0).sum(1)


def _times(frames: int, front_end: FrontEnd) -> Tensor:
    rate = front_end.sample_rate / front_end.hop_length
    return (torch.arange(round(frames * FRAME_SECONDS * rate)) + 0.5) / rate


def _about(marks: Sequence[float], rhythm: Rhythm, times: Tensor) -> Tensor:
    """How near each moment is to each mark that can be heard and is covered: (marks t), to 1."""
    kept = torch.tensor([mark for mark in marks if mark >= EDGE and rhythm.covers(mark)])
    return torch.exp(-0.5 * ((times - kept[:, None]) / STROKE).square())


def _off_bar(time: float, rhythm: Rhythm) -> float:
    """Seconds from a time to the nearest downbeat."""
    return min(abs(time - downbeat) for downbeat in rhythm.downbeats)
