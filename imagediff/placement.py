"""Where the objects of a scene go; all chance comes from the scene's own seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import combinations

# Longest side of each of so many scattered objects, in frame sides.
SIDES = {1: (0.3, 0.9), 2: (0.3, 0.55), 3: (0.28, 0.42), 4: (0.28, 0.38)}


Point = tuple[float, float]
"""x and y in frame sides, from the left and the top."""


@dataclass(frozen=True)
class Placement:
    """Where an object goes: centre and longest side in frame sides, angle in degrees."""

    x: float
    y: float
    side: float
    angle: float


def middle(seed: int) -> tuple[Placement]:
    """One object that fills most of the frame."""
    rng = random.Random(seed)
    side = rng.uniform(0.76, 0.9)
    slack = (0.96 - side) / 2  # turned corners want some room too
    x, y = (0.5 + rng.uniform(-slack, slack) for _ in range(2))
    return (Placement(x, y, side, rng.uniform(-6, 6)),)


def halves(seed: int, relation: str) -> tuple[Placement, Placement]:
    """The subject of a relation and its other object, each in the half that is its own."""
    rng = random.Random(seed)
    return _half(rng, relation, True), _half(rng, relation, False)


def _half(rng: random.Random, relation: str, subject: bool) -> Placement:
    first_half = subject == (relation in ("left of", "above"))
    along = (0.26 if first_half else 0.74) + rng.uniform(-0.015, 0.015)
    across = 0.5 + rng.uniform(-0.1, 0.1)
    x, y = (along, across) if relation in ("left of", "right of") else (across, along)
    return Placement(x, y, rng.uniform(0.43, 0.48), rng.uniform(-6, 6))


def scattered(seed: int, count: int) -> tuple[Placement, ...]:
    """One to four objects of any size anywhere in the frame, beside each other."""
    rng = random.Random(seed)
    while True:
        places = tuple(_anywhere(rng, *SIDES[count]) for _ in range(count))
        if all(_apart(*two) for two in combinations(places, 2)):
            return places


def _anywhere(rng: random.Random, least: float, most: float) -> Placement:
    side = rng.uniform(least, most)
    slack = (0.98 - side) / 2
    x, y = (0.5 + rng.uniform(-slack, slack) for _ in range(2))
    return Placement(x, y, side, rng.uniform(-6, 6))


def _apart(first: Placement, second: Placement) -> bool:
    """Whether the squares around two objects share a sliver at most."""
    distance = max(abs(first.x - second.x), abs(first.y - second.y))
    return distance > 0.95 * (first.side + second.side) / 2
