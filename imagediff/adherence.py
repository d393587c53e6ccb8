"""Do pictures show what their prompts ask for? Questions, and their answers on labelled prompts.

Every figure stands beside two others: what real scenes of the same labels reach (the ceiling, which
tells how far the judge can be trusted) and what the same pictures reach when their prompts are
swapped among them (the floor, which a model that ignores its prompts reaches).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from imagediff.judge import HALVES, Judge, look, places, view
from imagediff.metrics import background_name, paint_name
from imagediff.objects import BACKGROUNDS, TINTS, objects
from imagediff.scenes import PROMPTS, RELATIONS
from shared.labelled import read_prompts, refuse_faults
from shared.report import Figure
from shared.statistics import wilson


@dataclass(frozen=True)
class Prompt:
    """One prompt and what a picture of it has to show; ``number`` is its place in the file."""

    number: int
    text: str
    kind: str
    objects: tuple[str, ...]
    relation: str | None = None
    colour: str | None = None
    background: str | None = None

    @property
    def group(self) -> tuple[str, bool]:
        """Prompts of one group ask for the same sort of picture."""
        return self.kind, self.background is not None


def read_evaluation(path: Path = PROMPTS) -> list[Prompt]:
    """Prompts with their labels: JSON lines as in ``prompts.jsonl``.

    Those of ``metadata.jsonl``, which ``duotone data scenes`` writes, serve as well.

    Raises:
        UserError: no such file, or a line whose labels are missing or outside the vocabulary.
    """
    return read_prompts(path, "prompt, kind and objects", _prompt)


def _prompt(row: dict[str, Any], number: int) -> Prompt:
    text = row["prompt"] if "prompt" in row else row["text"]
    kind, names = row["kind"], tuple(row["objects"])
    relation, colour, background = (row.get(name) for name in ("relation", "colour", "background"))
    refuse_faults(
        {
            "prompt is empty": not isinstance(text, str) or not text.strip(),
            "kind must be single, recolour or pair": kind not in ("single", "recolour", "pair"),
            "a pair has two objects and a relation, other kinds have one object and none": (
                (len(names), relation is not None) != ((2, True) if kind == "pair" else (1, False))
            ),
            "an object is outside the vocabulary": any(
                name not in list(objects()) for name in names
            ),
            f"relation must be one of {', '.join(RELATIONS)}": relation not in (None, *RELATIONS),
            f"a recolour's colour, and no other's, is one of {', '.join(TINTS)}": (
                colour not in (tuple(TINTS) if kind == "recolour" else (None,))
            ),
            f"background must be one of {', '.join(BACKGROUNDS)}": (
                background not in (None, *BACKGROUNDS)
            ),
        }
    )
    return Prompt(number, text, kind, names, relation, colour, background)


def draw_by_lot(prompts: Sequence[Prompt], limit: int | None, seed: int) -> list[Prompt]:
    """At most ``limit`` prompts of each group, in their order; all of them without a limit."""
    if limit is None:
        return list(prompts)
    rng = random.Random(seed)
    chosen = [
        prompt
        for members in _groups(prompts)
        for prompt in rng.sample(members, min(limit, len(members)))
    ]
    return sorted(chosen, key=lambda prompt: prompt.number)


def swap_labels(prompts: Sequence[Prompt], seed: int = 0) -> list[Prompt]:
    """To each prompt another one of its group, every one given once."""
    rng = random.Random(seed)
    swapped: dict[int, Prompt] = {}
    for members in _groups(prompts):
        rng.shuffle(members)
        for prompt, other in zip(members, members[1:] + members[:1], strict=True):
            swapped[prompt.number] = other
    return [swapped[prompt.number] for prompt in prompts]


def _groups(prompts: Sequence[Prompt]) -> list[list[Prompt]]:
    def group(prompt: Prompt) -> tuple[str, bool]:
        return prompt.group

    return [list(members) for _, members in groupby(sorted(prompts, key=group), key=group)]


@dataclass(frozen=True)
class Sight:
    """What is seen in one picture: by the judge in each view, and by rule of its colours.

    Attributes:
        scores: view -> name -> log-probability.
        features: view -> features of the judge (d,).
    """

    scores: dict[str, dict[str, float]]
    features: dict[str, np.ndarray]
    background: str
    paint: str

    def rank(self, place: str, name: str) -> int:
        """1 if every other object scores lower in the view ``place``; a tie counts against it."""
        scores = self.scores[place]
        return sum(score >= scores[name] for score in scores.values())


def see(judge: Judge, prompts: Sequence[Prompt], pictures: Sequence[Image.Image]) -> list[Sight]:
    """Look at pictures: at the halves of a pair, at others whole."""
    looks = [HALVES if prompt.kind == "pair" else ("whole",) for prompt in prompts]
    views = [
        view(picture, name)
        for names, picture in zip(looks, pictures, strict=True)
        for name in names
    ]
    log_probs, features = (tensor.numpy() for tensor in look(judge, views))
    sights, start = [], 0
    for names, picture in zip(looks, pictures, strict=True):
        rows = range(start, start + len(names))
        start += len(names)
        sights.append(
            Sight(
                scores={
                    name: dict(zip(judge.names, log_probs[row].tolist(), strict=True))
                    for name, row in zip(names, rows, strict=True)
                },
                features={name: features[row] for name, row in zip(names, rows, strict=True)},
                background=background_name(picture),
                paint=paint_name(picture),
            )
        )
    return sights


def in_top(prompt: Prompt, sight: Sight, k: int) -> bool:
    """Whether each object is among the first ``k`` of its own half, or of the whole picture."""
    return all(
        sight.rank(place, name) <= k
        for name, place in zip(prompt.objects, places(prompt.relation), strict=True)
    )


def in_order(prompt: Prompt, sight: Sight) -> bool:
    """Whether each object of a pair scores higher in its own half than in the other's."""
    first, second = places(prompt.relation)
    subject, other = prompt.objects
    return (
        sight.scores[first][subject] > sight.scores[second][subject]
        and sight.scores[second][other] > sight.scores[first][other]
    )


@dataclass(frozen=True)
class Question:
    """A yes-or-no question about pictures: of which prompts it is asked, and its answer."""

    title: str
    asked: Callable[[Prompt], bool]
    answer: Callable[[Prompt, Sight], bool]


def _of_kind(kind: str) -> Callable[[Prompt], bool]:
    return lambda prompt: prompt.kind == kind


def _of_relation(relation: str) -> Callable[[Prompt], bool]:
    return lambda prompt: prompt.relation == relation


QUESTIONS: dict[str, Question] = {
    "object_top1": Question("object, top-1", _of_kind("single"), lambda p, s: in_top(p, s, 1)),
    "object_top5": Question("object, top-5", _of_kind("single"), lambda p, s: in_top(p, s, 5)),
    "background": Question(
        "background colour",
        lambda p: p.kind == "single" and p.background is not None,
        lambda p, s: s.background == p.background,
    ),
    "recolour": Question(
        "recoloured object: paint", _of_kind("recolour"), lambda p, s: s.paint == p.colour
    ),
    "recolour_top1": Question(
        "  its object, top-1", _of_kind("recolour"), lambda p, s: in_top(p, s, 1)
    ),
    "recolour_top5": Question(
        "  its object, top-5", _of_kind("recolour"), lambda p, s: in_top(p, s, 5)
    ),
    "recolour_both": Question(
        "  paint, and object in top-5",
        _of_kind("recolour"),
        lambda p, s: s.paint == p.colour and in_top(p, s, 5),
    ),
    "relation": Question(
        "two objects: each in its half's top-5", _of_kind("pair"), lambda p, s: in_top(p, s, 5)
    ),
    **{
        f"relation_{relation.replace(' ', '_')}": Question(
            f"  {relation}", _of_relation(relation), lambda p, s: in_top(p, s, 5)
        )
        for relation in RELATIONS
    },
    "relation_strict": Question(
        "  each top-1 of its half", _of_kind("pair"), lambda p, s: in_top(p, s, 1)
    ),
    "relation_lenient": Question("  each likelier in its own half", _of_kind("pair"), in_order),
}


def answers(question: Question, prompts: Sequence[Prompt], sights: Sequence[Sight]) -> list[bool]:
    """The answers for the pictures whose prompts the question is asked of."""
    return [
        question.answer(prompt, sight)
        for prompt, sight in zip(prompts, sights, strict=True)
        if question.asked(prompt)
    ]


def adherence(
    prompts: Sequence[Prompt],
    sights: Sequence[Sight],
    real: Sequence[tuple[Sequence[Prompt], Sequence[Sight]]] = (),
) -> dict[str, Figure]:
    """Figures of all `QUESTIONS` that some prompt asks.

    Args:
        sights: of the generated pictures.
        real: prompts and sights of sets of real scenes.
    """
    swapped = swap_labels(prompts)
    figures = {}
    for key, question in QUESTIONS.items():
        given = answers(question, prompts, sights)
        if not given:
            continue
        figure = Figure(
            question.title,
            value=float(np.mean(given)),
            n=len(given),
            interval=wilson(sum(given), len(given)),
            swapped=float(np.mean(answers(question, swapped, sights))),
        )
        true = [answer for these in real for answer in answers(question, *these)]
        figures[key] = replace(figure, real=float(np.mean(true))) if true else figure
    return figures


def judge_features(prompts: Sequence[Prompt], sights: Sequence[Sight]) -> np.ndarray:
    """Features of every object's view, (n d)."""
    return np.stack(
        [
            sight.features[place]
            for prompt, sight in zip(prompts, sights, strict=True)
            for place in places(prompt.relation)
        ]
    )
