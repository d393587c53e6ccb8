"""An edit of a clip in one call: the plan of it, what came out, and the file that tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from audiodiff.audio_file import Tags, resample
from audiodiff.clip import record_of
from audiodiff.controls import Controls
from audiodiff.edit_settings import Edit, EditSettings, guidance_scale_of
from audiodiff.editing import TASKS, Job, edit_clip, region_of
from audiodiff.labels import FRAME_SECONDS
from audiodiff.pipeline import MusicPipeline
from audiodiff.sound_file import Sound, read_sound, write_sound
from shared.guidance import Guidance
from shared.samplers import Callback
from shared.settings import (
    DEFAULT_SAMPLER,
    DEFAULT_SCHEDULE,
    PROMPT_ALONE,
    GuidanceSettings,
)


@dataclass(frozen=True, eq=False)
class EditedClip:
    """A clip that was edited.

    Attributes:
        settings: what made it.
        steered: whether more than that did, which a record does not hold.
    """

    sound: Sound
    settings: EditSettings
    steered: bool = False

    def save(self, path: Path, overwrite: bool = False) -> None:
        """Write it, whole or not at all, with its settings inside.

        What was steered by more than its settings cannot be made again from them; its file tells
        them in a comment only.

        Raises:
            UserError: another suffix, a format that does not hold such samples, or a file in the
                way.
        """
        tags = Tags(record_of(self.settings, self.steered), self.settings.parameters())
        write_sound(path, self.sound, tags, overwrite)


def edited(
    pipeline: MusicPipeline,
    edit: Edit,
    prompt: str,
    *,
    count: int = 1,
    seed: int = 0,
    steps: int = 25,
    guidance_scale: float | None = None,
    controls: Callable[[float, int], Controls] | None = None,
    guidances: Sequence[Guidance] = (),
    callback: Callback | None = None,
) -> Iterator[EditedClip]:
    """Edit the file that ``edit.source`` names, with the seeds seed, seed + 1, ...

    Args:
        prompt: what to play there; nothing is as well.
        guidance_scale: None for that of the task (`guidance_scale_of`).
        controls: given the second of the clip at which the part that the model works on begins, and
            its latent frames, what to follow there.
        guidances: more that steers, the first innermost.

    Raises:
        UserError: a file that cannot be read, or a value that the model does not take.
    """
    sound = read_sound(Path(edit.source))
    other = None if edit.other is None else read_sound(Path(edit.other))
    if edit.task == "blend" and other is not None:
        other = alike(other, sound)
    job = TASKS[edit.task](sound, edit, other)
    plan = planned(
        pipeline, job, edit, prompt, count=count, seed=seed, steps=steps,
        guidance_scale=guidance_scale,
    )  # fmt: skip
    region = region_of(job, pipeline)
    told = controls and controls(region.start / sound.sample_rate, region.frames)
    made = edit_clip(pipeline, job, plan, told, guidances=guidances, callback=callback)
    for one, settings in zip(made, plan, strict=True):
        yield EditedClip(one, settings, steered=bool(controls or guidances))


def planned(
    pipeline: MusicPipeline,
    job: Job,
    edit: Edit,
    prompt: str,
    *,
    negative_prompt: str = "",
    count: int = 1,
    seed: int = 0,
    steps: int = 25,
    guidance_scale: float | None = None,
    sampler: str = DEFAULT_SAMPLER,
    schedule: str = DEFAULT_SCHEDULE,
    guidance: GuidanceSettings = PROMPT_ALONE,
) -> list[EditSettings]:
    """The settings of an edit that was prepared, with the seeds seed, seed + 1, ..., checked.

    Without a guidance scale it is that of the task (`guidance_scale_of`).

    Raises:
        UserError: a value that the model or the sampler does not take.
    """
    if guidance_scale is None:
        guidance_scale = guidance_scale_of(edit.task)
    sampled = pipeline.plan(
        prompt.strip() or "-",  # a clip cannot be made of no prompt, an edited one can
        seconds=region_of(job, pipeline).frames * FRAME_SECONDS,
        negative_prompt=negative_prompt,
        count=count,
        seed=seed,
        steps=steps,
        guidance_scale=guidance_scale,
        sampler=sampler,
        schedule=schedule,
        guidance=guidance,
        sample_rate=job.sound.sample_rate,
    )
    return [EditSettings(**{**vars(one), "prompt": prompt}, **vars(edit)) for one in sampled]


def alike(other: Sound, sound: Sound) -> Sound:
    """The second clip of a transition with the rate, channels and precision of the first."""
    if other.sample_rate == sound.sample_rate and other.values.dtype == sound.values.dtype:
        values = other.values
        if sound.values.dtype == np.int32:  # as many bits as the first has, perhaps fewer
            values = sound.as_values(values / 2.0**31)
    else:
        values = sound.as_values(resample(other.samples, other.sample_rate, sound.sample_rate))
    if len(values) != len(sound.values):
        if len(values) == 1:
            values = np.repeat(values, 2, axis=0)
        else:
            mid = other.samples.mean(axis=0, keepdims=True)
            values = sound.as_values(resample(mid, other.sample_rate, sound.sample_rate))
    return replace(sound, values=values)
