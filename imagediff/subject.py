"""What a picture is to show, of the ways in which ``duotone image`` can be told; no torch."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shared.errors import UserError

if TYPE_CHECKING:
    from imagediff.regions import Drawn


@dataclass(frozen=True)
class Subject:
    """What it shows.

    Attributes:
        prompt: in words; empty for a picture that is told nothing in words.
        drawn: what is to be where, if that was said.
    """

    prompt: str
    drawn: Drawn | None = None


def read_subject(
    prompt: str | None,
    name: str | None,
    unconditional: bool,
    layout: Path | None,
    legend: str | None,
) -> Subject:
    """What was asked for.

    Args:
        prompt: in words.
        name: of an object of the vocabulary, the class.
        unconditional: whether it is told nothing in words.
        layout, legend: see :func:`imagediff.regions.read_layout`; in words it is then what the
            regions hold, unless one of the others says it.

    Raises:
        UserError: nothing or too much, or what there is not.
    """
    ways = [prompt is not None, name is not None, unconditional]
    if sum(ways) > 1 or not (any(ways) or layout is not None):
        raise UserError(
            "say what to make in one way: PROMPT, --class NAME or --unconditional, "
            "or --layout alone"
        )
    if legend is not None and layout is None:
        raise UserError("--legend says what the colours of a map are; it needs --layout MAP")
    drawn = None
    if layout is not None:
        from imagediff.regions import read_layout

        drawn = read_layout(layout, legend)
    if unconditional:
        return Subject("", drawn)
    if name is not None:
        return Subject(class_phrase(name), drawn)
    if prompt is None and drawn is not None:
        return Subject(drawn.prompt(), drawn)
    return Subject(prompt or "", drawn)


def class_phrase(name: str) -> str:
    """What captions call the objects of a class: "apple" -> "a red apple".

    Raises:
        UserError: the vocabulary has no such object; the nearest names are told.
    """
    from imagediff.objects import objects

    wanted = name.strip().lower()
    if wanted in objects():
        return objects()[wanted].phrases[0]
    nearest = difflib.get_close_matches(wanted[:60], objects(), n=5, cutoff=0.5)
    hint = f"; the nearest are {', '.join(nearest)}" if nearest else ""
    raise UserError(f"there is no class {name[:60]!r} among the {len(objects())} objects{hint}")
