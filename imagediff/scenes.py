"""Captioned scenes, drawn by lot: what is in the picture, and how a person would say it.

A `Scene` says everything; `imagediff.data.render` makes pixels of it. Nothing here needs the font.

Three kinds: a *single* object, a *recolour* (one object repainted: "a purple cat") and a *pair* in
a relation ("a dog above a tree"). The evaluation prompts in ``prompts.jsonl`` name combinations
that `compose` never yields, so that a model that draws them has not simply seen them.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from imagediff.objects import BACKGROUNDS, TINTS, objects, tint_shows

PROMPTS = Path(__file__).with_name("prompts.jsonl")
PROMPTS_SEED = 2024

Key = tuple[str, ...]

KINDS = {"single": 0.55, "recolour": 0.15, "pair": 0.30}
NAMED_BACKGROUND = 0.65
GRADIENT = 0.4  # of the named backgrounds
NAME_FIRST = 0.75  # how often an object goes by its first phrase rather than by a synonym

# The plain wording of each relation comes first; the evaluation prompts use that one.
RELATIONS: dict[str, tuple[str, ...]] = {
    "left of": (
        "{0} to the left of {1}",
        "{0} left of {1}",
        "{0} on the left of {1}",
        "{0} on the left and {1} on the right",
        "{0} on the left, {1} on the right",
    ),
    "right of": (
        "{0} to the right of {1}",
        "{0} right of {1}",
        "{0} on the right of {1}",
        "{0} on the right and {1} on the left",
        "{0} on the right, {1} on the left",
    ),
    "above": (
        "{0} above {1}",
        "{0} over {1}",
        "{0} on top of {1}",
        "{0} at the top and {1} at the bottom",
    ),
    "below": (
        "{0} below {1}",
        "{0} under {1}",
        "{0} beneath {1}",
        "{0} underneath {1}",
        "{0} at the bottom and {1} at the top",
    ),
}
MEDIA = (
    "a picture of",
    "an image of",
    "an emoji of",
    "a drawing of",
    "an icon of",
    "an illustration of",
)
ON_BACKGROUND = (
    "{0} on {1} background",
    "{0} on {1} background",
    "{0} on {1} background",
    "{0} against {1} background",
    "{0} against {1} backdrop",
    "{0} in front of {1} background",
    "{0} with {1} background",
    "{0}, {2} background",
)
ON_GRADIENT = ("{0} on {1} gradient", "{0} on {1} gradient background", "{0}, {2} gradient")


@dataclass(frozen=True)
class Scene:
    """One picture and its caption.

    Attributes:
        kind: "single", "recolour" or "pair".
        objects: names out of the vocabulary; in a pair the first is the subject of the relation.
        relation: a key of `RELATIONS` for a pair, else None.
        colour: the name of the paint (`TINTS`) of a recolour, else None.
        background: a name out of `BACKGROUNDS`; None is near-white and goes unmentioned.
        gradient: whether the background runs from a darker to a lighter shade.
        caption: what a person would say.
        seed: sets size, position, angle and the exact shades.
        phrases: what the caption calls each object, such as "a purple cat".
    """

    kind: str
    objects: tuple[str, ...]
    relation: str | None
    colour: str | None
    background: str | None
    gradient: bool
    caption: str
    seed: int
    phrases: tuple[str, ...] = ()

    @property
    def key(self) -> Key | None:
        """What must not be shared with the evaluation prompts; None if sharing it is fine.

        A pair is the same in any relation, order and background, a recolour on any background; a
        plain object without a named background is what training is there to teach.
        """
        if self.kind == "pair":
            return ("pair", *sorted(self.objects))
        if self.kind == "recolour":
            return ("recolour", self.objects[0], str(self.colour))
        return ("single", self.objects[0], self.background) if self.background else None

    def labels(self) -> dict:
        """The columns that go beside the caption in a data set and in the prompt file."""
        return {
            "kind": self.kind,
            "objects": list(self.objects),
            "relation": self.relation,
            "colour": self.colour,
            "background": self.background,
        }


def compose(rng: random.Random, *, exclude: frozenset[Key] | None = None) -> Scene:
    """Draw a scene by lot.

    Args:
        rng: all chance comes from here; equal states give equal scenes.
        exclude: keys never to be yielded; by default those of the evaluation prompts.
    """
    exclude = held_out() if exclude is None else exclude
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    while True:
        background = rng.choice(list(BACKGROUNDS)) if rng.random() < NAMED_BACKGROUND else None
        gradient = background is not None and rng.random() < GRADIENT
        scene = DRAW[kind](rng, list(objects()), background, gradient)
        if scene is not None and scene.key not in exclude:
            return scene


def _draw_single(
    rng: random.Random, names: list[str], background: str | None, gradient: bool
) -> Scene | None:
    name = rng.choice(names)
    if background in objects()[name].clashes:
        return None
    return _scene(rng, "single", (name,), None, None, background, gradient)


def _draw_recolour(
    rng: random.Random, names: list[str], background: str | None, gradient: bool
) -> Scene | None:
    name, colour = rng.choice(names), rng.choice(list(TINTS))
    if colour not in objects()[name].tints or not tint_shows(colour, background):
        return None
    return _scene(rng, "recolour", (name,), None, colour, background, gradient)


def _draw_pair(
    rng: random.Random, names: list[str], background: str | None, gradient: bool
) -> Scene | None:
    first, second = rng.sample(names, 2)
    if any(background in objects()[name].clashes for name in (first, second)):
        return None
    relation = rng.choice(list(RELATIONS))
    return _scene(rng, "pair", (first, second), relation, None, background, gradient)


DRAW: dict[str, Callable[[random.Random, list[str], str | None, bool], Scene | None]] = {
    "single": _draw_single,
    "recolour": _draw_recolour,
    "pair": _draw_pair,
}


def _scene(
    rng: random.Random,
    kind: str,
    names: tuple[str, ...],
    relation: str | None,
    colour: str | None,
    background: str | None,
    gradient: bool,
) -> Scene:
    seed = rng.getrandbits(32)
    phrases = draw_phrases(rng, names, colour)
    text = phrases[0] if relation is None else rng.choice(RELATIONS[relation]).format(*phrases)
    caption = framed(rng, text, background, gradient)
    return Scene(kind, names, relation, colour, background, gradient, caption, seed, phrases)


def draw_phrases(
    rng: random.Random, names: Sequence[str], colour: str | None = None
) -> tuple[str, ...]:
    """What a caption calls each object; with a paint's name, the only one."""
    phrases = tuple(_phrase(rng, name) for name in names)
    if colour is None:
        return phrases
    return (with_adjective(phrases[0], _spelling(rng, colour)),)


def framed(rng: random.Random, text: str, background: str | None, gradient: bool) -> str:
    """A caption of what the objects are, with its medium and background as people name them."""
    if rng.random() < 0.3:
        text = f"{rng.choice(MEDIA)} {text}"
    if background is None:
        return text
    templates = ON_GRADIENT if gradient and rng.random() < 0.5 else ON_BACKGROUND
    shade = _spelling(rng, background)
    return rng.choice(templates).format(text, with_article(shade), shade)


def _phrase(rng: random.Random, name: str) -> str:
    phrases = objects()[name].phrases
    if len(phrases) == 1 or rng.random() < NAME_FIRST:
        return phrases[0]
    return rng.choice(phrases[1:])


def _spelling(rng: random.Random, colour: str) -> str:
    return "grey" if colour == "gray" and rng.random() < 0.3 else colour


def with_article(words: str) -> str:
    """ "orange" -> "an orange"; meant for colour words, where the first letter decides."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def with_adjective(phrase: str, adjective: str) -> str:
    """("an apple", "blue") -> "a blue apple"; ("grapes", "blue") -> "blue grapes"."""
    article, _, noun = phrase.partition(" ")
    if article in ("a", "an"):
        return f"{with_article(adjective)} {noun}"
    if article == "the":
        return f"the {adjective} {noun}"
    return f"{adjective} {phrase}"


def _plain_caption(scene: Scene) -> str:
    """The caption of the evaluation prompts: first phrases, first templates."""
    phrases = [objects()[name].phrases[0] for name in scene.objects]
    if scene.colour is not None:
        phrases = [with_adjective(phrases[0], scene.colour)]
    text = phrases[0] if scene.relation is None else RELATIONS[scene.relation][0].format(*phrases)
    if scene.background is None:
        return text
    return ON_BACKGROUND[0].format(text, with_article(scene.background))


# How many prompts of each kind the evaluation has, besides one plain prompt for every object.
EVALUATION = {"single": 100, "recolour": 100, "pair": 120}
# The vocabulary grew once. The prompts from before stay, so that models trained before have not
# seen them either; those that came with the new objects name at least one of these.
FIRST_OBJECTS = 330


def evaluation_scenes() -> list[Scene]:
    """The scenes of the evaluation prompts: seeded, no two alike, none with a gradient."""
    rng = random.Random(PROMPTS_SEED)
    names = list(objects())
    taken: set[Key] = set()
    first = _evaluation_round(rng, names[:FIRST_OBJECTS], names[:FIRST_OBJECTS], taken)
    return first + _evaluation_round(rng, names, names[FIRST_OBJECTS:], taken)


def _evaluation_round(
    rng: random.Random, names: list[str], wanted: list[str], taken: set[Key]
) -> list[Scene]:
    """A plain scene of each of ``wanted``, then combinations of ``names`` with one of them."""
    scenes = [_scene(rng, "single", (name,), None, None, None, False) for name in wanted]
    if not wanted:
        return scenes
    for kind, count in EVALUATION.items():
        while count:
            # Colour words are tested one at a time: recolours and pairs stay on near-white.
            background = rng.choice(list(BACKGROUNDS)) if kind == "single" else None
            scene = DRAW[kind](rng, names, background, False)
            if scene is None or scene.key is None or scene.key in taken:
                continue
            if not set(scene.objects) & set(wanted):
                continue
            taken.add(scene.key)
            scenes.append(scene)
            count -= 1
    return scenes


def write_prompts(path: Path = PROMPTS) -> None:
    """Write the evaluation prompts, one JSON object a line (after a change of the vocabulary)."""
    rows = [{"prompt": _plain_caption(scene)} | scene.labels() for scene in evaluation_scenes()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    held_out.cache_clear()


def read_prompts(path: Path = PROMPTS) -> list[dict]:
    """The evaluation prompts with their labels, in the order of the file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@lru_cache(maxsize=1)
def held_out() -> frozenset[Key]:
    """Keys of all combinations that belong to the evaluation."""
    keys = set()
    for row in read_prompts():
        labels = (row["relation"], row["colour"], row["background"])
        scene = Scene(row["kind"], tuple(row["objects"]), *labels, False, row["prompt"], 0)
        if scene.key is not None:
            keys.add(scene.key)
    return frozenset(keys)
