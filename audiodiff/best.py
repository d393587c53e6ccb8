"""Of several clips, the one that holds its controls best."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from audiodiff.clip import Clip
from audiodiff.kept import Kept, kept, score


@dataclass(frozen=True, eq=False)
class Best:
    """A clip that was chosen.

    Attributes:
        kept: how well it holds what was given.
        tried: the seed and the score of each clip that it was chosen among.
    """

    clip: Clip
    kept: Kept
    tried: tuple[tuple[int, float], ...]

    def record(self) -> dict[str, Any]:
        """What there is to say beside the clip's settings."""
        if len(self.tried) == 1:
            return {"kept": self.kept}
        tried = [{"seed": seed, "score": score} for seed, score in self.tried]
        return {"kept": self.kept, "tried": tried}


def best_of_each(clips: Iterable[Clip], n: int, listening: bool = True) -> Iterator[Best]:
    """Of each ``n`` clips in turn the one with the highest score, the first of equals.

    Without ``listening`` nothing is measured, and the first is taken.
    """
    coming = iter(clips)
    while group := list(islice(coming, n)):
        found = [
            kept(clip.samples, clip.sample_rate, clip.settings) if listening else {}
            for clip in group
        ]
        scores = [round(score(one), 4) for one in found]
        place = scores.index(max(scores))
        seeds = [clip.settings.seed for clip in group]
        yield Best(group[place], found[place], tuple(zip(seeds, scores, strict=True)))
