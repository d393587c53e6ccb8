"""Control channels: what is told to the denoiser moment by moment, beside the prompt.

A control is a few numbers for each latent frame (4096 samples) and one more, its mask: 1 where the
control is known, 0 where it is not and its numbers are 0. All of them are input channels of the
U-Net, the same in every row, joined to the noisy latents.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from audiodiff.labels import FRAME_SECONDS, Labels
from audiodiff.theory import Chord, Key, parse_chord, parse_key
from shared.errors import UserError
from shared.layout import read_json
from shared.weights import write_json

CONTROLS: dict[str, int] = {
    "melody": 13,
    "chords": 24,
    "key": 24,
    "dynamics": 1,
    "beats": 4,
    "tempo": 1,
}
"""Each control's channels, its mask not counted, in the order of the channels.

- melody: the share of the frame that each pitch class (C first) sounds, and that nothing does;
- chords: the notes of the chord, and which pitch class is its bass;
- key: the notes of the scale, and which is the tonic;
- dynamics: (dB + 20) / 10;
- beats: sine and cosine of the place in the beat, then in the bar, at the middle of the frame;
- tempo: log2(beats a minute / 110).
"""
CHANNELS = sum(CONTROLS.values()) + len(CONTROLS)
FILE = "controls.json"

QUIETEST = -60.0  # dB; below, it makes no difference how quiet it is
# Of the random masks that a denoiser learns with.
HIDE_ALL, HIDE_PLAYED, HIDE_SPANS = 0.05, 0.15, 0.3

_OWNERS = torch.tensor([i for i, n in enumerate(CONTROLS.values()) for _ in range(n + 1)])
_IN_WORDS = torch.tensor([name in ("key", "beats", "tempo") for name in CONTROLS])  # "Am, 90 bpm"


@dataclass(frozen=True, eq=False)
class Controls:
    """What is known of a stretch of ``frames`` latent frames.

    Attributes:
        values: control -> (c t) float32, c as in ``CONTROLS``.
        known: control -> (t) bool; where it is false, the values count for nothing.
    """

    values: Mapping[str, Tensor]
    known: Mapping[str, Tensor]

    @property
    def frames(self) -> int:
        """The length in latent frames."""
        return len(self.known["tempo"])

    def window(self, first: int, frames: int) -> Controls:
        """The part from frame ``first`` on."""
        span = slice(first, first + frames)
        return Controls(
            {name: values[:, span] for name, values in self.values.items()},
            {name: known[span] for name, known in self.known.items()},
        )

    def with_tempo(self, bpm: float, meter: int = 4) -> Controls:
        """With this tempo throughout, and beats and bars that begin with the first frame."""
        return self._with(
            tempo=_constant([math.log2(bpm / 110)], self.frames),
            beats=_all_known(_beats(_steady(bpm, meter, self.frames), self.frames, 0.0)),
        )

    def with_key(self, key: Key) -> Controls:
        """With this key throughout."""
        return self._with(key=_constant(_key(key), self.frames))

    def with_chords(self, chords: Sequence[Chord], bpm: float, meter: int = 4) -> Controls:
        """With these chords, a bar each, over and over.

        Raises:
            UserError: there are none.
        """
        if not chords:
            raise UserError("at least one chord is needed, such as Am")
        labels = _steady(bpm, meter, self.frames)
        each = [chords[beat // meter % len(chords)] for beat in range(len(labels.beats))]
        return self._with(chords=_chords(each, labels.beats, self.frames, 0.0))

    def _with(self, **changes: tuple[Tensor, Tensor]) -> Controls:
        return Controls(
            {**self.values, **{name: values for name, (values, _) in changes.items()}},
            {**self.known, **{name: known for name, (_, known) in changes.items()}},
        )


def unknown(frames: int) -> Controls:
    """Nothing known for ``frames`` latent frames."""
    return Controls(
        {name: torch.zeros(channels, frames) for name, channels in CONTROLS.items()},
        {name: torch.zeros(frames, dtype=torch.bool) for name in CONTROLS},
    )


def from_labels(labels: Labels, frames: int, start_s: float = 0.0) -> Controls:
    """What the labels tell of ``frames`` latent frames from ``start_s`` (seconds) on.

    A clip whose labels have no melody, no beats, ... does not know it; nor is anything known of
    what comes after the clip's end.

    Raises:
        UserError: a key or a chord that is none.
    """
    found: dict[str, tuple[Tensor, Tensor]] = {}
    if labels.melody:
        found["melody"] = _all_known(_melody(labels.melody, frames, start_s))
    if labels.chords and labels.beats:
        chords = [parse_chord(name) for name in labels.chords]
        found["chords"] = _chords(chords, labels.beats, frames, start_s)
    if labels.key is not None:
        found["key"] = _constant(_key(parse_key(labels.key)), frames)
    if labels.dynamics:
        found["dynamics"] = _dynamics(labels.dynamics, frames, start_s)
    if len(labels.beats) > 1 and _has_bars(labels):
        found["beats"] = _all_known(_beats(labels, frames, start_s))
    if labels.tempo is not None:
        found["tempo"] = _constant([math.log2(labels.tempo / 110)], frames)
    if labels.duration is not None:
        inside = torch.from_numpy(_times(frames, start_s) < labels.duration)
        found = {name: (values * inside, known & inside) for name, (values, known) in found.items()}
    return unknown(frames)._with(**found)


def to_channels(controls: Controls) -> Tensor:
    """All controls with their masks as channels (CHANNELS t) float32; what is unknown is 0."""
    parts = []
    for name in CONTROLS:
        known = controls.known[name].float()[None]
        parts += [controls.values[name] * known, known]
    return torch.cat(parts)


def to_tensor(controls: Controls, rows: int) -> Tensor:
    """:func:`to_channels`, the same in every row of the latents: (CHANNELS rows t)."""
    return to_channels(controls)[:, None].expand(-1, rows, -1)


def draw_hidden(frames: int, generator: torch.Generator) -> Tensor:
    """Which controls to hide where, (controls t) bool, for a denoiser to learn to do without.

    With ``HIDE_ALL`` all of them. With ``HIDE_PLAYED`` all but those that a prompt's words tell,
    each of which stays with 3/4. Else each with a share that is drawn for the sample, so that any
    number of them is as likely, all at once and one alone included; and in ``HIDE_SPANS`` of these
    samples half of what is left is unknown for a random span of time.
    """
    n = len(CONTROLS)
    sizes = [1, 1, 1, n, n, 2 * n]
    drawn = torch.rand(sum(sizes), generator=generator).split(sizes)
    choice, share, spans, whole, partly, ends = drawn
    if choice < HIDE_ALL:
        return torch.ones(n, frames, dtype=torch.bool)
    if choice < HIDE_ALL + HIDE_PLAYED:
        return ((whole < 0.25) | ~_IN_WORDS)[:, None].expand(-1, frames)
    ends = ends.view(2, n, 1) * frames
    middles = torch.arange(frames) + 0.5
    span = (middles >= ends.amin(0)) & (middles < ends.amax(0))
    return (whole < share)[:, None] | ((spans < HIDE_SPANS) & (partly < 0.5)[:, None] & span)


def hide(channels: Tensor, hidden: Tensor) -> Tensor:
    """Channels (... CHANNELS t) with 0 where ``hidden`` (... controls t), masks included."""
    return channels * ~hidden[..., _OWNERS, :]


def without(channels: Tensor, name: str) -> Tensor:
    """Channels (b CHANNELS rows t) with that control unknown."""
    others = _OWNERS.to(channels.device) != list(CONTROLS).index(name)
    return channels * others[:, None, None]


def write_controls(folder: Path) -> None:
    """Write ``controls.json``: which control channels a model was trained with, in their order."""
    write_json(folder / FILE, CONTROLS)


def check_controls(folder: Path) -> None:
    """Make sure that the model in a folder takes these controls.

    Raises:
        UserError: it takes others, or its ``controls.json`` is missing.
    """
    found = read_json(folder / FILE)
    if list(found.items()) != list(CONTROLS.items()):
        raise UserError(
            f"{folder / FILE} names the control channels {found}; this version makes {CONTROLS}"
        )


def _times(frames: int, start_s: float) -> np.ndarray:
    """The middle of each frame in seconds (t)."""
    return start_s + (np.arange(frames) + 0.5) * FRAME_SECONDS


def _all_known(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values (c t) with the mask (t) that goes with them."""
    return values, torch.ones(values.shape[1], dtype=torch.bool)


def _constant(values: Sequence[float], frames: int) -> tuple[Tensor, Tensor]:
    """Values (c) for all ``frames`` as (c t), known."""
    return _all_known(torch.tensor(values, dtype=torch.float32)[:, None].repeat(1, frames))


def _key(key: Key) -> list[float]:
    scale = [float(pitch in key.pitch_classes) for pitch in range(12)]
    return scale + [float(pitch == key.tonic) for pitch in range(12)]


def _shares(spans: Sequence[tuple[float, float]], frames: int, start_s: float) -> np.ndarray:
    """The share of each frame that each span of time (start, end in seconds) covers, (n t)."""
    edges = start_s / FRAME_SECONDS + np.arange(frames + 1)
    starts, ends = np.asarray(spans, dtype=np.float64).reshape(-1, 2).T[:, :, None] / FRAME_SECONDS
    return (np.minimum(ends, edges[1:]) - np.maximum(starts, edges[:-1])).clip(0, 1)


def _melody(notes: Sequence[tuple[float, float, int]], frames: int, start_s: float) -> Tensor:
    shares = _shares([(start, end) for start, end, _ in notes], frames, start_s)
    weights = np.zeros((13, frames))
    np.add.at(weights, [pitch % 12 for _, _, pitch in notes], shares)
    weights[12] = (1 - weights.sum(0)).clip(0)
    return torch.from_numpy(weights / weights.sum(0).clip(1)).float()


def _chords(
    chords: Sequence[Chord], beats: Sequence[float], frames: int, start_s: float
) -> tuple[Tensor, Tensor]:
    """One chord a beat; the last lasts as long as the one before, if there is one."""
    last = beats[-1] + (beats[-1] - beats[-2] if len(beats) > 1 else FRAME_SECONDS)
    spans = list(pairwise([*beats, last]))[: len(chords)]
    shares = _shares(spans, frames, start_s)
    members = np.zeros((len(spans), 24))
    for row, chord in zip(members, chords, strict=False):
        row[[*chord.pitch_classes, 12 + chord.bass]] = 1
    covered = shares.sum(0)
    values = members.T @ shares / covered.clip(1e-9)
    return torch.from_numpy(values).float(), torch.from_numpy(covered > 0.5)


def _dynamics(levels: Sequence[float], frames: int, start_s: float) -> tuple[Tensor, Tensor]:
    at = start_s / FRAME_SECONDS + np.arange(frames)
    values = np.interp(at, np.arange(len(levels)), np.maximum(levels, QUIETEST))
    return (
        torch.from_numpy((values + 20) / 10).float()[None],
        torch.from_numpy((at > -0.5) & (at < len(levels) - 0.5)),
    )


def _has_bars(labels: Labels) -> bool:
    return len(labels.downbeats) > 1 or bool(labels.downbeats and labels.meter)


def _beats(labels: Labels, frames: int, start_s: float) -> Tensor:
    """(4 t): at least two beats, and either two downbeats or one and the meter."""
    times = _times(frames, start_s)
    beat = _count(times, labels.beats)
    if len(labels.downbeats) > 1:
        bar = _count(times, labels.downbeats)
    else:
        assert labels.meter is not None
        bar = (beat - _count(np.array(labels.downbeats), labels.beats)) / labels.meter
    angles = 2 * np.pi * np.stack([beat, beat, bar, bar])
    angles[1::2] += np.pi / 2  # sin(a + pi/2) = cos(a)
    return torch.from_numpy(np.sin(angles)).float()


def _count(times: np.ndarray, marks: Sequence[float]) -> np.ndarray:
    """How many marks have passed at each time, fractions in between; evenly on at either end."""
    ticks = np.asarray(marks, dtype=np.float64)
    index = np.clip(np.searchsorted(ticks, times, side="right") - 1, 0, len(ticks) - 2)
    return index + (times - ticks[index]) / (ticks[index + 1] - ticks[index])


def _steady(bpm: float, meter: int, frames: int) -> Labels:
    """Labels with nothing but beats of this tempo for the whole of ``frames``."""
    count = math.ceil(frames * FRAME_SECONDS * bpm / 60) + meter + 1
    beats = tuple(i * 60 / bpm for i in range(count))
    return Labels(tempo=bpm, meter=meter, beats=beats, downbeats=beats[::meter])
