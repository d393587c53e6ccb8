"""Scenes of one to four objects anywhere in the frame: what a model learns layouts from.

Nothing here needs the font. No scene holds a combination that belongs to the evaluation prompts.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations

from imagediff.objects import BACKGROUNDS, TINTS, objects, tint_shows
from imagediff.placement import Point, scattered
from imagediff.scenes import (
    GRADIENT,
    NAMED_BACKGROUND,
    RELATIONS,
    Key,
    Scene,
    draw_phrases,
    framed,
    held_out,
)

SCATTERED = "scattered"  # the kind of these scenes
COUNTS = {1: 0.4, 2: 0.34, 3: 0.16, 4: 0.1}
RECOLOURED = 0.2  # of single objects
RELATED = 0.5  # of the pairs are told by their relation, the others by "and"


def compose_scattered(rng: random.Random, *, exclude: frozenset[Key] | None = None) -> Scene:
    """Draw a scene of scattered objects by lot; arguments as in :func:`imagediff.scenes.compose`.

    Its kind is "scattered"; ``relation`` is None also for two objects.
    """
    exclude = held_out() if exclude is None else exclude
    count = rng.choices(list(COUNTS), list(COUNTS.values()))[0]
    recoloured = count == 1 and rng.random() < RECOLOURED
    while True:
        background = rng.choice(list(BACKGROUNDS)) if rng.random() < NAMED_BACKGROUND else None
        gradient = background is not None and rng.random() < GRADIENT
        names = tuple(rng.sample(list(objects()), count))
        colour = rng.choice(list(TINTS)) if recoloured else None
        if _suits(names, colour, background) and not _keys(names, colour, background) & exclude:
            break
    seed = rng.getrandbits(32)
    phrases = draw_phrases(rng, names, colour)
    centres = [(place.x, place.y) for place in scattered(seed, count)]
    text = sentence(phrases, centres if rng.random() < RELATED else None)
    caption = framed(rng, text, background, gradient)
    return Scene(SCATTERED, names, None, colour, background, gradient, caption, seed, phrases)


def sentence(phrases: Sequence[str], centres: Sequence[Point] | None) -> str:
    """ "a dog", "a dog to the left of a tree", "a dog, a tree and a hat".

    Args:
        centres: of each, x and y from the left and the top in any unit; two are then told by
            their relation.
    """
    if len(phrases) == 2 and centres is not None:
        return RELATIONS[relation_of(*centres)][0].format(*phrases)
    return " and ".join(filter(None, (", ".join(phrases[:-1]), phrases[-1])))


def relation_of(first: Point, second: Point) -> str:
    """Where the first is, seen from the second: a key of :data:`imagediff.scenes.RELATIONS`."""
    across, down = (there - here for here, there in zip(first, second, strict=True))
    if abs(across) >= abs(down):
        return "left of" if across >= 0 else "right of"
    return "above" if down >= 0 else "below"


def _suits(names: Sequence[str], colour: str | None, background: str | None) -> bool:
    """Whether all of them show on the background."""
    if colour is not None:
        return colour in objects()[names[0]].tints and tint_shows(colour, background)
    return not any(background in objects()[name].clashes for name in names)


def _keys(names: Sequence[str], colour: str | None, background: str | None) -> set[Key]:
    """What must not be shared with the evaluation prompts, see :attr:`Scene.key`."""
    keys: set[Key] = {("pair", *sorted(two)) for two in combinations(names, 2)}
    if colour is not None:
        keys.add(("recolour", names[0], colour))
    elif len(names) == 1 and background is not None:
        keys.add(("single", names[0], background))
    return keys
