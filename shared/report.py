"""Measured figures as a table for people; both arts' evaluations print theirs in this form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        interval: of 95 %, where there is one.
        n: cases it was measured on.
        real: the same of real samples with the same labels: the ceiling.
        swapped: the same with the labels swapped among the samples: the floor.
    """

    title: str
    value: float
    n: int
    interval: tuple[float, float] | None = None
    real: float | None = None
    swapped: float | None = None
    unit: str = ""


def table(settings: Mapping[str, Any], figures: Iterable[Figure], legend: str) -> str:
    """The settings in a line, the figures in columns, and what the columns mean."""
    head = ("", "value", "95 % interval", "n", "real", "swapped")
    return grid(settings, [head, *(_cells(figure) for figure in figures)], legend)


def grid(
    settings: Mapping[str, Any], rows: Sequence[Sequence[str]], legend: str, left: int = 1
) -> str:
    """Rows in columns, the first ``left`` of them flush left, under the settings in a line."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    facts = ", ".join(f"{key} {value}" for key, value in settings.items())
    return "\n".join([facts, "", *lines, "", legend])


def _cells(figure: Figure) -> tuple[str, ...]:
    def number(value: float | None) -> str:
        if value is None:
            return ""
        return f"{value:.2f} {figure.unit}".rstrip() if figure.unit else f"{value:.3f}"

    interval = " to ".join(map(number, figure.interval)) if figure.interval else ""
    return (
        *(figure.title, number(figure.value), interval, str(figure.n)),
        *(number(figure.real), number(figure.swapped)),
    )
