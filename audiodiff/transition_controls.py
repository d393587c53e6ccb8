"""What the model is told of a transition: its beats, its pace, keys and the chords between them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch

from audiodiff.controls import Controls, from_labels, unknown
from audiodiff.labels import FRAME_SECONDS, Labels
from audiodiff.transitions import Meeting


def transition_controls(meeting: Meeting, start: float, frames: int) -> Controls:
    """Controls of ``frames`` latent frames.

    Args:
        start: their beginning, in seconds from that of the transition; mostly negative.
    """
    controls = unknown(frames)
    times = start + (np.arange(frames) + 0.5) * FRAME_SECONDS
    first, second = meeting.first, meeting.second
    values, known = dict(controls.values), dict(controls.known)
    middle = torch.from_numpy(times < meeting.seconds / 2)
    if first.key is not None and second.key is not None:
        keys = [controls.with_key(key).values["key"] for key in (first.key, second.key)]
        values["key"] = torch.where(middle, *keys)
        known["key"] = torch.ones(frames, dtype=torch.bool)
    if meeting.on_beats:
        beats, downbeats = _beats(meeting, times[0], times[-1])
        told = from_labels(Labels(beats=beats, downbeats=downbeats, meter=4), frames, start)
        values["beats"], known["beats"] = told.values["beats"], told.known["beats"]
        gaps = np.diff(beats)
        places = np.clip(np.searchsorted(beats, times) - 1, 0, len(gaps) - 1)
        pace = np.log2(60 / gaps[places] / 110)
        values["tempo"] = torch.from_numpy(pace).float()[None]
        known["tempo"] = torch.ones(frames, dtype=torch.bool)
    if meeting.chords:
        spans = np.linspace(0, meeting.seconds, len(meeting.chords) + 1)
        if meeting.on_beats:  # chords change on beats
            marks = np.asarray(meeting.marks)
            spans = marks[np.abs(marks[:, None] - spans).argmin(axis=0)]
        kept = [(a, b, name) for (a, b), name in zip(pairwise(spans), meeting.chords, strict=True)
                if b > a]  # fmt: skip
        labels = Labels(
            chords=tuple(name for _, _, name in kept), beats=(*(a for a, _, _ in kept), kept[-1][1])
        )
        told = from_labels(labels, frames, start)
        values["chords"], known["chords"] = told.values["chords"], told.known["chords"]
    return replace(controls, values=values, known=known)


def _beats(
    meeting: Meeting, first: float, last: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """All beats about the transition, from its beginning on, and those that begin bars.

    The first track's bars count to the middle, then the second's.
    """
    assert meeting.first.grid is not None and meeting.second.grid is not None
    marks = meeting.marks
    opening, closing = marks[1] - marks[0], marks[-1] - marks[-2]
    sooner = int(np.ceil(max(0.0, -first) / opening)) + 1
    later = int(np.ceil(max(0.0, last - marks[-1]) / closing)) + 1
    beats = (
        *(-opening * number for number in range(sooner, 0, -1)),
        *marks,
        *(marks[-1] + closing * number for number in range(1, later + 1)),
    )
    count = len(marks) - 1
    lead = round(meeting.first.grid.beat(meeting.before[0]))
    follow = round(meeting.second.grid.beat(meeting.after[-1]))
    downbeats = tuple(
        beat
        for number, beat in enumerate(beats, start=-sooner)
        if (lead + number if 2 * number < count else follow + number - count) % 4 == 0
    )
    return beats, downbeats
