"""The commands that edit clips: parse, call, report. Heavy imports wait until they are needed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from audiodiff.edit_settings import (
    FILLING_GUIDANCE_SCALE,
    Edit,
    EditSettings,
    check_added,
    check_overlap,
    check_span,
    parse_span,
)
from audiodiff.sketch import Sketch, Timbre
from shared.console import Evaluating, Making, advance, progress, say
from shared.edit_settings import FillSettings
from shared.errors import UserError
from shared.sources import file_hash, found

if TYPE_CHECKING:
    import numpy as np

    from audiodiff.pipeline import MusicPipeline
    from audiodiff.sound_file import Sound


def extend(
    file: Path,
    prompt: str | None,
    seconds: float | None,
    before: bool,
    fill: FillSettings,
    making: Making,
) -> None:
    """Go on after ``file``, or before it."""
    if seconds is None:
        raise UserError("say how much to add: --seconds S")
    check_added(seconds)
    edit = Edit(
        source=str(file),
        source_hash=file_hash(file),
        **vars(fill),
        task="extend",
        added=seconds,
        before=before,
    )
    _make(file, prompt, edit, making)


def inpaint(
    file: Path, prompt: str | None, span: str | None, fill: FillSettings, making: Making
) -> None:
    """Make a span of ``file`` anew."""
    edit = Edit(
        source=str(file),
        source_hash=file_hash(file),
        **vars(fill),
        task="inpaint",
        span=_span(file, span),
    )
    _make(file, prompt, edit, making)


def vary(file: Path, prompt: str | None, span: str | None, noise: float, making: Making) -> None:
    """Make a span of ``file`` anew, of noise and itself."""
    edit = Edit(
        source=str(file),
        source_hash=file_hash(file),
        task="vary",
        span=_span(file, span),
        noise=noise,
    )
    _make(file, prompt, edit, making)


def restyle(
    file: Path,
    prompt: str | None,
    like: Path | None,
    span: str | None,
    strength: float,
    invert: str | None,
    making: Making,
) -> None:
    """Play ``file``, or a span of it, in another way: as a prompt says, or like a reference."""
    if prompt is None and like is None:
        raise UserError("say how it is to sound: a PROMPT, or --like FILE")
    part = None if span is None else _span(file, span)
    edit = Edit(
        source=str(file),
        source_hash=file_hash(file),
        other=None if like is None else str(like),
        other_hash=None if like is None else file_hash(like),
        task="restyle",
        span=part,
        strength=strength,
        invert=invert,
    )
    _make(file, prompt, edit, making)


def blend(
    file: Path,
    other: Path,
    prompt: str | None,
    overlap: float,
    noise: float,
    making: Making,
) -> None:
    """Lead from ``file`` to ``other``."""
    from audiodiff.sound_file import read_sound

    check_overlap(overlap, min(read_sound(path).seconds for path in (file, other)))
    edit = Edit(
        source=str(file),
        source_hash=file_hash(file),
        other=str(other),
        other_hash=file_hash(other),
        task="blend",
        overlap=overlap,
        noise=noise,
    )
    _make(file, prompt, edit, making)


def evaluate(evaluating: Evaluating) -> None:
    """Make parts of real clips anew in every way and print how good that is."""
    from audiodiff.adherence import PROMPTS, read_evaluation
    from shared.models import find_model

    find_model(evaluating.model, "music")
    names = evaluating.names()

    from audiodiff import MusicPipeline
    from audiodiff.evaluate_edit import evaluate_edit
    from audiodiff.judge import load_judge

    scale = evaluating.guidance_scale
    report = evaluate_edit(
        MusicPipeline.load(evaluating.model, evaluating.device, evaluating.dtype),
        load_judge(evaluating.judge, say),
        read_evaluation(evaluating.prompts or PROMPTS),
        methods=names,
        limit=evaluating.limit,
        seed=evaluating.seed,
        steps=evaluating.steps,
        guidance_scale=FILLING_GUIDANCE_SCALE if scale is None else scale,
        sampler=evaluating.sampler,
        say=say,
    )
    click.echo(json.dumps(report.record()) if evaluating.as_json else report.table())


def replay(
    file: Path,
    recorded: EditSettings,
    original: np.ndarray,
    output: Path | None,
    model: str | None,
    device: str | None,
    dtype: str | None,
    overwrite: bool,
) -> None:
    """Make the edited clip ``file`` again and compare with its samples, ``original``.

    Raises:
        UserError: a file that it was made of is not here or has changed.
    """
    from audiodiff.audio_file import read_audio
    from audiodiff.clip import difference
    from audiodiff.sound_file import check_holds, read_sound, suffixes_for
    from shared.files import output_paths

    source = read_sound(found(file, recorded.source, recorded.source_hash))
    second = None
    if recorded.other is not None:
        second = found(file, recorded.other, recorded.other_hash)
    other, like = _second(recorded, second)
    own = sorted(suffixes_for(file), key=lambda suffix: suffix != file.suffix.lower())
    (path,) = output_paths(output, [f"{file.stem}-replay"], [""], own, overwrite)
    check_holds(path.suffix.lower(), source)

    from audiodiff import MusicPipeline
    from shared.devices import is_available

    if device is None:
        device = recorded.device if is_available(recorded.device) else "auto"
    pipeline = MusicPipeline.load(model or recorded.model, device, dtype or recorded.dtype)
    edit = Edit(**{field.name: getattr(recorded, field.name) for field in fields(Edit)})
    making = Making(
        output=output,
        count=1,
        seed=recorded.seed,
        steps=recorded.steps,
        guidance_scale=recorded.guidance_scale,
        sampler=recorded.sampler,
        schedule=recorded.schedule,
        guidance=recorded.guidance,
        negative_prompt=recorded.negative_prompt,
        model=pipeline.name,
        device=device,
        dtype=recorded.dtype,
        as_json=False,
        overwrite=overwrite,
    )
    plan, made = _planned(pipeline, source, other, like, recorded.prompt, edit, making)
    for change in recorded.changes(plan[0]):
        say(f"Note: {change}")
    (sound,) = made
    _save(path, sound, plan[0], overwrite)
    click.echo(path)
    click.echo(difference(original, read_audio(path)[0]))


def _make(file: Path, prompt: str | None, edit: Edit, making: Making) -> None:
    """Check, make, write and report."""
    import secrets

    from audiodiff.finish import faded_edge
    from audiodiff.sound_file import LOSSY, check_holds, read_sound, suffixes_for
    from shared.files import output_paths
    from shared.models import find_model
    from shared.settings import check_count

    # First what can be told without torch, whose import takes longer than all of this.
    check_count(making.count)
    find_model(making.model, "music")
    sound = read_sound(file)
    other, like = _second(edit, None if edit.other is None else Path(edit.other))
    if edit.task == "extend" and faded_edge(sound.samples, sound.sample_rate, edit.before):
        end = "first 5 ms fade in" if edit.before else "last 5 ms fade out"
        say(f"Note: the {end}; they are made anew, all else stays")
    first = secrets.randbelow(2**31) if making.seed is None else making.seed
    seeds = [str(first + i) for i in range(making.count)]
    names = [f"{file.stem}-{edit.task}-{seed}" for seed in seeds]
    paths = output_paths(making.output, names, seeds, suffixes_for(file), making.overwrite)
    check_holds(paths[0].suffix.lower(), sound)
    if paths[0].suffix.lower() in LOSSY:
        say(f"Note: {paths[0].suffix} is lossy: what is not edited changes a little as well")
    text = _recorded_prompt(file) if prompt is None else prompt
    if edit.invert == "":
        edit = replace(edit, invert=_recorded_prompt(file))

    from audiodiff import MusicPipeline

    pipeline = MusicPipeline.load(making.model, making.device, making.dtype)
    for remark in pipeline.remarks(text) + pipeline.remarks(making.negative_prompt):
        say(f"Note: {remark}")
    making = replace(making, seed=first)
    plan, made = _planned(pipeline, sound, other, like, text, edit, making)
    for path, settings, one in zip(paths, plan, made, strict=True):
        _save(path, one, settings, making.overwrite)
        record = {"path": str(path)} | settings.record()
        print(json.dumps(record) if making.as_json else str(path), file=sys.stdout)


def _planned(
    pipeline: MusicPipeline,
    sound: Sound,
    other: Sound | None,
    like: Timbre | None,
    prompt: str,
    edit: Edit,
    making: Making,
) -> tuple[list[EditSettings], Iterator[Sound]]:
    """The plan, and the sounds as they are made.

    Args:
        other: what a transition leads to.
        like: how a restyled clip is to sound.
    """
    from audiodiff.editing import TASKS, edit_clip, region_of, walked_steps
    from audiodiff.edits import alike, planned
    from audiodiff.steering import steering
    from shared.editing import fill_steps

    if other is not None:
        _tell_conversion(other, sound)
        other = alike(other, sound)
    job = TASKS[edit.task](sound, edit, other)
    for line in () if job.meeting is None else job.meeting.told():
        say(f"Note: {line}")
    region = region_of(job, pipeline)
    plan = planned(
        pipeline,
        job,
        edit,
        prompt,
        negative_prompt=making.negative_prompt,
        count=making.count,
        seed=making.seed or 0,
        steps=making.steps,
        guidance_scale=making.guidance_scale,
        sampler=making.sampler,
        schedule=making.schedule,
        guidance=making.guidance,
    )
    sketch = None if like is None else Sketch(like=like)
    guidances = steering(sketch, pipeline.codec, region.frames)
    steps = walked_steps(pipeline, job, plan[0])
    up = 0 if plan[0].invert is None else steps
    if region.known().any():
        steps = fill_steps(plan[0].how(), steps)
    steps += up

    def sounds() -> Iterator[Sound]:
        with progress(steps * len(list(pipeline.batches(plan))), "step") as bar:
            yield from edit_clip(
                pipeline, job, plan, guidances=guidances, callback=lambda *_: advance(bar)
            )

    return plan, sounds()


def _second(edit: Edit, file: Path | None) -> tuple[Sound | None, Timbre | None]:
    """What an edit's second file is for: the clip that a transition leads to, or a reference."""
    if file is None:
        return None, None
    if edit.task == "restyle":
        from audiodiff.inputs.timbre import read_timbre

        return None, read_timbre(file, "--like")
    from audiodiff.sound_file import read_sound

    return read_sound(file), None


def _tell_conversion(other: Sound, sound: Sound) -> None:
    """Say what of the second clip of a transition is made like the first."""
    if other.sample_rate != sound.sample_rate or other.values.dtype != sound.values.dtype:
        say("Note: the second clip is converted to the sample rate and precision of the first")
    if len(other.values) != len(sound.values):
        say("Note: the second clip is given as many channels as the first")


def _save(path: Path, sound: Sound, settings: EditSettings, overwrite: bool) -> None:
    from audiodiff.edits import EditedClip

    EditedClip(sound, settings).save(path, overwrite)


def _span(file: Path, text: str | None) -> tuple[float, float]:
    """A span of a clip as it was written.

    Raises:
        UserError: none was, or one that does not lie within the clip.
    """
    from audiodiff.sound_file import read_sound

    if text is None:
        raise UserError("say which part: --span START:END in seconds, as 2:4")
    return check_span(parse_span(text), read_sound(file).seconds)


def _recorded_prompt(file: Path) -> str:
    """What the clip's file says that it was made of; nothing if it does not."""
    from audiodiff.clip import what_made

    prompt = what_made(file).get("prompt")
    return prompt if isinstance(prompt, str) else ""
