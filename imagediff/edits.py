"""An edit of a picture in one call: the plan of it, and what came out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from imagediff import editing
from imagediff.edit_settings import Edit, EditSettings
from imagediff.editing import TASKS, Job
from imagediff.picture_file import Picture, open_picture
from imagediff.pipeline import ImagePipeline
from imagediff.settings import DEFAULT_GUIDANCE_SCALE
from shared.naming import choose
from shared.samplers import Callback
from shared.settings import (
    DEFAULT_SAMPLER,
    DEFAULT_SCHEDULE,
    PROMPT_ALONE,
    GuidanceSettings,
)


def edited(
    pipeline: ImagePipeline,
    edit: Edit,
    prompt: str,
    *,
    count: int = 1,
    seed: int = 0,
    steps: int = 25,
    guidance_scale: float = DEFAULT_GUIDANCE_SCALE,
    callback: Callback | None = None,
) -> Iterator[tuple[Picture, EditSettings]]:
    """Edit the picture that ``edit.source`` names, with the seeds seed, seed + 1, ...

    Args:
        prompt: what to draw; nothing is as well.

    Raises:
        UserError: a file that cannot be read, or a value that the model does not take.
    """
    picture = open_picture(Path(edit.source))
    mask = None if edit.mask is None else open_picture(Path(edit.mask))
    job = choose("task", edit.task, TASKS)(pipeline, picture, edit, mask)
    plan = planned(
        pipeline, job, edit, prompt, count=count, seed=seed, steps=steps,
        guidance_scale=guidance_scale,
    )  # fmt: skip
    yield from zip(editing.edit(pipeline, job, plan, callback), plan, strict=True)


def planned(
    pipeline: ImagePipeline,
    job: Job,
    edit: Edit,
    prompt: str,
    *,
    negative_prompt: str = "",
    count: int = 1,
    seed: int = 0,
    steps: int = 25,
    guidance_scale: float = DEFAULT_GUIDANCE_SCALE,
    sampler: str = DEFAULT_SAMPLER,
    schedule: str = DEFAULT_SCHEDULE,
    guidance: GuidanceSettings = PROMPT_ALONE,
) -> list[EditSettings]:
    """The settings of an edit that was prepared, with the seeds seed, seed + 1, ..., checked.

    Raises:
        UserError: a value that the model or the sampler does not take.
    """
    sampled = pipeline.plan(
        prompt.strip() or "-",  # a picture cannot be made of no prompt, an edited one can
        negative_prompt=negative_prompt,
        count=count,
        seed=seed,
        steps=steps,
        guidance_scale=guidance_scale,
        sampler=sampler,
        schedule=schedule,
        guidance=guidance,
        size=job.part.size,
    )
    return [EditSettings(**{**vars(one), "prompt": prompt}, **vars(edit)) for one in sampled]
