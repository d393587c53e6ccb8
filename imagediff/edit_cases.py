"""What is edited to be measured: real scenes, what of them is hidden, and what is to be seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from imagediff.adherence import Prompt, draw_by_lot
from imagediff.edit_settings import Edit
from imagediff.editing import free_box, with_margins
from imagediff.evaluate import REAL_SEEDS, real_pictures
from imagediff.judge import places
from imagediff.picture_file import Picture
from shared.errors import UserError

FEATHER = 4  # px, the commands' default
FILLED = ("inpaint", "extend")
WHOLE = ("restyle", "vary", "blend")


@dataclass(frozen=True, eq=False)
class Case:
    """A real scene, what is to become of it, and what the judge is to see then.

    Attributes:
        before: what the scene shows.
        prompt: what is drawn.
        scene: what is edited; of what is filled, what is hidden as well.
        other: what a blend leads to, the scene of the prompt; a scene of the prompt elsewhere.
        edit: of the task, with the method and strength left as they are by default.
        free: bool (h w), what is filled; None for a task of the whole picture.
        place: the judge's view, which holds nothing of what is wanted but what was drawn.
        wanted: objects, one of which is to be seen there.
    """

    before: Prompt
    prompt: Prompt
    scene: Image.Image
    other: Image.Image
    edit: Edit
    free: np.ndarray | None
    place: str
    wanted: tuple[str, ...]

    @property
    def source(self) -> Picture:
        """What there is before: the scene, or what the margins leave of it."""
        _, _, right, _ = self.edit.margins
        width, height = self.scene.size
        return Picture(self.scene.crop((0, 0, width - right, height)), "PNG")


def cases(
    prompts: Sequence[Prompt], limit: int | None, seed: int, size: int
) -> dict[str, list[Case]]:
    """Cases by task, as many for each as there are prompts.

    Of scenes of a single object the middle is hidden, three quarters of each side, and with it the
    object. Of scenes of two objects beside each other the right half is cut off, and with it one
    of them. Scenes of a single object are restyled to the prompt of the next one, varied with
    their own, and blended with the next one.

    Args:
        limit: at most so many prompts with and without a background, drawn by lot.

    Raises:
        UserError: no prompt of a single object, or the emoji font is not installed.
    """
    singles = draw_by_lot([prompt for prompt in prompts if prompt.kind == "single"], limit, seed)
    if not singles:
        raise UserError("none of the prompts is of a single object; edits are measured on those")
    beside = [prompt for prompt in prompts if prompt.relation in ("left of", "right of")]
    pairs = draw_by_lot(beside, len(singles), seed)
    scenes = real_pictures(singles, REAL_SEEDS[0], size)
    following = [*list(range(1, len(singles))), 0]
    eighth = size // 8
    box = (eighth, eighth, size - 2 * eighth, size - 2 * eighth)
    plain = Edit(task="restyle", source="", source_hash="")
    held = replace(plain, feather=FEATHER)

    inpaint = replace(held, task="inpaint", box=box)
    free = free_box(box, (size, size))
    found = {
        "inpaint": [
            Case(prompt, prompt, scene, scene, inpaint, free, "whole", prompt.objects)
            for prompt, scene in zip(singles, scenes, strict=True)
        ]
    }

    half = size // 2
    extend = replace(held, task="extend", margins=(0, 0, half, 0), opaque=True)
    free = with_margins(Picture(Image.new("RGB", (size - half, size)), "PNG"), extend.margins)[1]
    found["extend"] = [
        Case(
            prompt,
            prompt,
            scene,
            scene,
            extend,
            free,
            "right",
            (prompt.objects[places(prompt.relation).index("right")],),
        )
        for prompt, scene in zip(pairs, real_pictures(pairs, REAL_SEEDS[0], size), strict=True)
    ]

    vary = replace(plain, task="vary")
    for task in WHOLE:
        found[task] = []
    for one, other in enumerate(following):
        here, there = singles[one], singles[other]
        drawn = here, there, scenes[one], scenes[other], plain, None, "whole"
        found["restyle"].append(Case(*drawn, wanted=there.objects))
        found["blend"].append(Case(*drawn, wanted=(*here.objects, *there.objects)))
        found["vary"].append(
            Case(here, here, scenes[one], scenes[one], vary, None, "whole", here.objects)
        )
    return found
