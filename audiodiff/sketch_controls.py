"""A sketch as control channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from audiodiff.controls import CONTROLS, Controls, from_labels, unknown
from audiodiff.curves import loudness_of, values_at
from audiodiff.labels import FRAME_SECONDS, Labels
from audiodiff.loudness import LUFS
from audiodiff.sketch import Chords, Sketch

CHANNELS_OF: Mapping[str, tuple[str, ...]] = {
    "melody": ("melody",),
    "chords": ("chords",),
    "rhythm": ("beats", "tempo"),
    "dynamics": ("dynamics",),
}
"""What is given -> the control channels that tell it."""


def overlaid(controls: Controls, sketch: Sketch | None) -> Controls:
    """The controls with what the sketch tells the channels in their place."""
    if sketch is None:
        return controls
    values, known = dict(controls.values), dict(controls.known)
    middles = (np.arange(controls.frames) + 0.5) * FRAME_SECONDS
    for name, part in sketch.parts().items():
        if not part.in_channels or name not in CHANNELS_OF:
            continue
        told = from_labels(labels_of(sketch, name, controls.frames), controls.frames)
        inside = torch.tensor([part.covers(float(time)) for time in middles])
        if isinstance(part, Chords):
            inside &= torch.tensor([part.sounds_at(float(time)) for time in middles])
        for channel in CHANNELS_OF[name]:
            values[channel] = told.values[channel]
            known[channel] = told.known[channel] & inside
    return Controls(values, known)


def less(controls: Controls, names: Sequence[str]) -> Controls:
    """The controls with those channels unknown."""
    nothing = unknown(controls.frames)
    return Controls(
        {name: (nothing if name in names else controls).values[name] for name in CONTROLS},
        {name: (nothing if name in names else controls).known[name] for name in CONTROLS},
    )


def by_weight(sketch: Sketch) -> Mapping[float, tuple[str, ...]]:
    """Weight -> the control channels that have it; those of weight 1 are left out."""
    found: dict[float, tuple[str, ...]] = {}
    for name, part in sketch.parts().items():
        if part.in_channels and name in CHANNELS_OF and part.weight != 1:
            found[part.weight] = found.get(part.weight, ()) + CHANNELS_OF[name]
    return found


def labels_of(sketch: Sketch, name: str, frames: int) -> Labels:
    """One part of a sketch as labels, whole: its span is for others to mind.

    Dynamics are brought to the loudness that clips have which the model learnt from.
    """
    if name == "melody" and sketch.melody is not None:
        return Labels(melody=sketch.melody.notes)
    if name == "chords" and sketch.chords is not None:
        return chord_labels(sketch.chords.spans)
    if name == "rhythm" and sketch.rhythm is not None:
        rhythm = sketch.rhythm
        return Labels(tempo=rhythm.tempo, beats=rhythm.beats, downbeats=rhythm.downbeats)
    if name == "dynamics" and sketch.dynamics is not None:
        levels = values_at(sketch.dynamics, frames)
        return Labels(dynamics=tuple((levels + LUFS - loudness_of(levels)).tolist()))
    raise ValueError(f"no labels of {name}")


def chord_labels(spans: Sequence[tuple[float, float, str]]) -> Labels:
    """Chords as labels whose "beats" are the chords' own beginnings, and the last one's end.

    Labels know no gaps; the chord before one goes on.
    """
    starts = tuple(start for start, _, _ in spans)
    return Labels(chords=tuple(name for _, _, name in spans), beats=(*starts, spans[-1][1]))
