"""Do clips hold what was asked for? Measures, and their figures on labelled prompts.

Every figure stands beside two others: what real renders of the same labels reach (the ceiling,
which tells how far the measure can be trusted) and what the same clips reach when their labels are
swapped among them (the floor, which a model that ignores what it is told reaches).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audiodiff import metrics
from audiodiff.judge import Judge, Opinion, listen
from audiodiff.labels import Labels, from_json
from audiodiff.metrics import Heard, hear
from shared.labelled import read_prompts, refuse_faults
from shared.report import Figure
from shared.statistics import bootstrap_interval, mean_interval, wilson

PROMPTS = Path(__file__).with_name("prompts.jsonl")
KINDS = ("text", "controls")


@dataclass(frozen=True)
class Prompt:
    """One prompt and what a clip of it has to hold.

    Attributes:
        number: its place in the file.
        text: what is asked for in words.
        kind: "text", or "controls" if the labels are given as control channels.
        labels: of the clip that is wanted.
        seed: that its score is composed from; "" if there is no such score.
        start: latent frame of the score at which the clip begins.
        bpm: beats a minute given as an option, not in words.
        key: likewise.
    """

    number: int
    text: str
    kind: str
    labels: Labels
    seed: str = ""
    start: int = 0
    bpm: float | None = None
    key: str | None = None


def read_evaluation(path: Path = PROMPTS) -> list[Prompt]:
    """Prompts with their labels: JSON lines as in ``prompts.jsonl``.

    Raises:
        UserError: no such file, or a line without a prompt, its kind, or labels.
    """
    return read_prompts(path, "prompt, kind and labels", _prompt)


def _prompt(row: dict[str, Any], number: int) -> Prompt:
    text, kind, labels = row["prompt"], row["kind"], from_json(row["labels"])
    seed, start = row.get("seed", ""), row.get("start", 0)
    bpm, key = row.get("bpm"), row.get("key")
    refuse_faults(
        {
            "prompt is empty": not isinstance(text, str) or not text.strip(),
            f"kind must be {' or '.join(KINDS)}": kind not in KINDS,
            "the labels need style, tempo and key": None
            in (labels.style, labels.tempo, labels.key),
            "seed must be a text": not isinstance(seed, str),
            "start must be a number of latent frames": not isinstance(start, int) or start < 0,
            "bpm must be a positive number": bpm is not None
            and (not isinstance(bpm, (int, float)) or bpm <= 0),
            "key must be a text": key is not None and not isinstance(key, str),
        }
    )
    return Prompt(number, text, kind, labels, seed, start, bpm, key)


def draw_by_lot(prompts: Sequence[Prompt], limit: int | None, seed: int) -> list[Prompt]:
    """At most ``limit`` prompts of each kind, in their order; all of them without a limit."""
    if limit is None:
        return list(prompts)
    rng = random.Random(seed)
    chosen: list[Prompt] = []
    for kind in KINDS:
        members = [prompt for prompt in prompts if prompt.kind == kind]
        chosen += rng.sample(members, min(limit, len(members)))
    return sorted(chosen, key=lambda prompt: prompt.number)


def swap_labels(labels: Sequence[Labels], seed: int = 0) -> list[Labels]:
    """To each the labels of another, all of them given once."""
    order = list(range(len(labels)))
    random.Random(seed).shuffle(order)
    swapped = dict(zip(order, order[1:] + order[:1], strict=True))
    return [labels[swapped[number]] for number in range(len(labels))]


@dataclass(frozen=True)
class Take:
    """What was heard in one clip, by rule and by the judge."""

    heard: Heard
    opinion: Opinion


def take_in(judge: Judge, clips: Sequence[np.ndarray]) -> list[Take]:
    """Listen to clips (2 s) at 44.1 kHz."""
    opinions = listen(judge, clips)
    return [Take(hear(clip), opinion) for clip, opinion in zip(clips, opinions, strict=True)]


@dataclass(frozen=True)
class Measure:
    """A number from what was heard and what was wanted.

    Attributes:
        value: None where the labels do not say anything that it could measure.
        yes_or_no: whether the values are only 0 and 1, so that their mean is a share.
    """

    title: str
    value: Callable[[Take, Labels], float | None]
    yes_or_no: bool = True


def instrument_f1(found: frozenset[str], wanted: Sequence[str]) -> float:
    """Harmonic mean of precision and recall; 1 if both are the same."""
    together = len(found) + len(set(wanted))
    return 2 * len(found & set(wanted)) / together if together else 1.0


def _within(rank: int | None, best: int) -> float | None:
    return None if rank is None else float(rank <= best)


def _instruments(take: Take, labels: Labels) -> float:
    return instrument_f1(take.opinion.instruments, labels.instruments)


def _tempo(octaves: bool) -> Callable[[Take, Labels], float | None]:
    def right(take: Take, labels: Labels) -> float | None:
        found = metrics.tempo_right(take.heard, labels, octaves)
        return None if found is None else float(found)

    return right


def _scale(take: Take, labels: Labels) -> float | None:
    return _within(metrics.scale_rank(take.heard, labels.key), 3) if labels.key else None


STYLE = Measure("style", lambda take, labels: float(take.opinion.style == labels.style))
INSTRUMENTS = Measure("instruments, F1", _instruments, yes_or_no=False)
TEMPO = Measure("tempo ± 4 %, or an octave of it", _tempo(octaves=True))
TEMPO_EXACT = Measure("tempo ± 4 %", _tempo(octaves=False))
SCALE = Measure("scale, top 3 of 12 transpositions", _scale)
SCALE_FIT = Measure(
    "scale, share of energy on it",
    lambda take, labels: metrics.scale_fit(take.heard, labels.key) if labels.key else None,
    yes_or_no=False,
)
MELODY = Measure(
    "melody, share of frames right",
    lambda take, labels: metrics.melody_top1(take.heard, labels),
    yes_or_no=False,
)
MELODY_RANK = Measure(
    "melody, best of 12 transpositions",
    lambda take, labels: _within(metrics.melody_rank(take.heard, labels), 1),
)
CHORDS = Measure(
    "chords, best of 12 transpositions",
    lambda take, labels: _within(metrics.chord_rank(take.heard, labels), 1),
)
BEATS = Measure(
    "beats, top 3 of 16 phases",
    lambda take, labels: _within(metrics.beat_phase_rank(take.heard, labels), 3),
)
DYNAMICS = Measure(
    "dynamics, r",
    lambda take, labels: metrics.dynamics_r(take.heard, labels),
    yes_or_no=False,
)

TEXT: Mapping[str, Measure] = {
    "style": STYLE,
    "instruments": INSTRUMENTS,
    "tempo": TEMPO,
    "tempo_exact": TEMPO_EXACT,
    "scale": SCALE,
}
CODEC: Mapping[str, Measure] = {
    "melody": MELODY,
    "scale_fit": SCALE_FIT,
    "scale": SCALE,
    "chords": CHORDS,
    "style": STYLE,
    "instruments": INSTRUMENTS,
}
# Names of control channels -> what they are measured by.
CONTROLS: Mapping[str, Mapping[str, Measure]] = {
    "melody": {"melody": MELODY, "melody_rank": MELODY_RANK},
    "chords": {"chords": CHORDS},
    "beats": {"beats": BEATS},
    "dynamics": {"dynamics": DYNAMICS},
}


Pairs = Sequence[tuple[Take, Labels]]
"""What was heard in clips, and what was wanted."""


def swapped(pairs: Pairs) -> Pairs:
    """The same clips with another's labels each."""
    return list(zip((take for take, _ in pairs), swap_labels([w for _, w in pairs]), strict=True))


def values_of(measure: Measure, pairs: Pairs) -> np.ndarray:
    """The measure's values where it applies (n,)."""
    values = [measure.value(take, wanted) for take, wanted in pairs]
    return np.array([value for value in values if value is not None], dtype=np.float64)


def figures(
    measures: Mapping[str, Measure],
    pairs: Pairs,
    real: Pairs = (),
    *,
    key: str = "",
    title: str = "",
) -> dict[str, Figure]:
    """The mean of each measure that applies to some clip, with its interval, ceiling and floor.

    Args:
        pairs: generated clips, and what was wanted of each.
        real: renders, and their labels.
        key: put before the measures' names.
        title: put before their titles.
    """
    found = {}
    for name, measure in measures.items():
        values = values_of(measure, pairs)
        if not len(values):
            continue
        hits = int(values.sum())
        found[key + name] = Figure(
            title + measure.title,
            float(values.mean()),
            len(values),
            wilson(hits, len(values)) if measure.yes_or_no else mean_interval(values),
            real=_mean(values_of(measure, real)),
            swapped=_mean(values_of(measure, swapped(pairs))) if len(pairs) > 1 else None,
        )
    return found


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def macro_dynamics(pairs: Pairs, real: Pairs = (), title: str = "") -> Figure | None:
    """Pearson's r of loudness over all clips' frames together; the interval draws clips again.

    The "macro" correlation of Music ControlNet, arXiv 2311.07069, section 4.3. It also asks that
    loud clips are louder than soft ones, which loudness normalisation takes away.
    """
    levels = [metrics.smooth_pair(take.heard, wanted) for take, wanted in pairs]
    value = _pooled(levels)
    if value is None:
        return None

    def again(chosen: np.ndarray) -> float:
        return _pooled([levels[number] for number in chosen]) or 0.0

    return Figure(
        title + "dynamics, r over all clips",
        value,
        len(levels),
        bootstrap_interval(again, len(levels)),
        real=_pooled([metrics.smooth_pair(take.heard, wanted) for take, wanted in real]),
        swapped=_pooled([metrics.smooth_pair(take.heard, w) for take, w in swapped(pairs)]),
    )


def _pooled(levels: Sequence[tuple[np.ndarray, np.ndarray]]) -> float | None:
    if not levels:
        return None
    found, wanted = (np.concatenate(side) for side in zip(*levels, strict=True))
    return metrics.correlation(found, wanted)
