"""The commands that edit pictures: parse, call, report. Heavy imports wait until needed."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagediff.edit_settings import Box, Edit, EditSettings, check_margins, parse_box
from imagediff.settings import DEFAULT_GUIDANCE_SCALE
from imagediff.sources import prompt_of
from shared.console import Evaluating, Making, advance, progress, say
from shared.edit_settings import CONCAT, FillSettings
from shared.errors import UserError
from shared.sources import file_hash, found

if TYPE_CHECKING:
    from imagediff.picture_file import Picture
    from imagediff.pipeline import ImagePipeline


def restyle(
    file: Path,
    prompt: str,
    strength: float,
    invert: str | None,
    work_side: int | None,
    making: Making,
) -> None:
    """Make pictures of PROMPT that keep what ``file`` is like, perhaps by inverting it."""
    edit = Edit(
        source=str(file),
        source_hash=file_hash(file),
        task="restyle",
        strength=strength,
        invert=invert,
        work_side=work_side,
    )
    if not prompt.strip():
        raise UserError("the prompt is empty; say what to make")
    _make(file, prompt, edit, making)


def vary(
    file: Path, prompt: str | None, strength: float, work_side: int | None, making: Making
) -> None:
    """Make pictures like ``file``, of what its record says or of a prompt."""
    edit = Edit(
        source=str(file),
        source_hash=file_hash(file),
        task="vary",
        strength=strength,
        work_side=work_side,
    )
    _make(file, prompt, edit, making)


def inpaint(
    file: Path,
    prompt: str,
    mask: Path | None,
    box: str | None,
    strength: float,
    opaque: bool,
    feather: int,
    fill: FillSettings,
    making: Making,
) -> None:
    """Fill a part of ``file`` with PROMPT."""
    if (mask is None) == (box is None):
        raise UserError("say what to fill: either --mask FILE or --box X,Y,W,H")
    edit = Edit(
        source=str(file),
        source_hash=file_hash(file),
        **vars(fill),
        task="inpaint",
        strength=strength,
        box=None if box is None else parse_box(box),
        mask=None if mask is None else str(mask),
        mask_hash=None if mask is None else file_hash(mask),
        feather=feather,
        opaque=opaque,
    )
    _make(file, prompt, edit, making)


def extend(
    file: Path,
    prompt: str | None,
    margins: Box,
    feather: int,
    fill: FillSettings,
    making: Making,
) -> None:
    """Add margins (left, top, right, bottom) to ``file`` and fill them."""
    check_margins(margins)
    edit = Edit(
        source=str(file),
        source_hash=file_hash(file),
        **vars(fill),
        task="extend",
        margins=margins,
        feather=feather,
        opaque=True,
    )
    _make(file, prompt, edit, making)


def replay(
    file: Path,
    recorded: EditSettings,
    output: Path | None,
    model: str | None,
    device: str | None,
    dtype: str | None,
    overwrite: bool,
) -> None:
    """Make the edited picture ``file`` again and compare the pixels.

    Raises:
        UserError: the file that it was made of is not here or has changed.
    """
    from imagediff.picture_file import open_picture, save_picture, suffixes_for
    from imagediff.png import difference
    from shared.files import output_paths

    original = open_picture(file)
    source = open_picture(found(file, recorded.source, recorded.source_hash))
    mask = None
    if recorded.mask is not None:
        mask = open_picture(found(file, recorded.mask, recorded.mask_hash))
    suffixes = suffixes_for(file)
    (path,) = output_paths(output, [f"{file.stem}-replay"], [""], suffixes, overwrite)

    from dataclasses import fields

    from imagediff import ImagePipeline
    from shared.devices import is_available

    if device is None:
        device = recorded.device if is_available(recorded.device) else "auto"
    pipeline = ImagePipeline.load(model or recorded.model, device, dtype or recorded.dtype)
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
    plan, pictures = _made(pipeline, source, mask, recorded.prompt, edit, making, recorded.seed)
    for change in recorded.changes(plan[0]):
        say(f"Note: {change}")
    (picture,) = pictures
    save_picture(picture, path, plan[0], overwrite)
    click.echo(path)
    click.echo(difference(original.image, open_picture(path).image))


def _make(file: Path, prompt: str | None, edit: Edit, making: Making) -> None:
    """Check, make, write and report."""
    import secrets

    from imagediff.picture_file import check_format, open_picture, save_picture, suffixes_for
    from shared.files import output_paths
    from shared.layout import check_adapter
    from shared.models import find_model
    from shared.settings import check_count

    # First what can be told without torch, whose import takes longer than all of this.
    check_count(making.count)
    model = find_model(making.model).folder
    if edit.method == CONCAT:
        check_adapter(model)
    picture = open_picture(file)
    mask = None if edit.mask is None else open_picture(Path(edit.mask))
    first = secrets.randbelow(2**31) if making.seed is None else making.seed
    seeds = [str(first + i) for i in range(making.count)]
    names = [f"{file.stem}-{edit.task}-{seed}" for seed in seeds]
    paths = output_paths(making.output, names, seeds, suffixes_for(file), making.overwrite)
    check_format(picture, paths[0])
    text = prompt_of(picture) if prompt is None else prompt
    if edit.invert == "":
        edit = replace(edit, invert=prompt_of(picture))

    from imagediff import ImagePipeline

    pipeline = ImagePipeline.load(making.model, making.device, making.dtype)
    for remark in pipeline.remarks(text) + pipeline.remarks(making.negative_prompt):
        say(f"Note: {remark}")
    plan, pictures = _made(pipeline, picture, mask, text, edit, making, first)
    for path, settings, made in zip(paths, plan, pictures, strict=True):
        save_picture(made, path, settings, making.overwrite)
        record = {"path": str(path)} | settings.record()
        print(json.dumps(record) if making.as_json else str(path), file=sys.stdout)


def _made(
    pipeline: ImagePipeline,
    picture: Picture,
    mask: Picture | None,
    prompt: str,
    edit: Edit,
    making: Making,
    first: int,
):
    """The plan, and the pictures as they are made."""
    from imagediff.editing import TASKS, walked_steps
    from imagediff.editing import edit as made_of
    from imagediff.edits import planned
    from shared.naming import choose

    job = choose("task", edit.task, TASKS)(pipeline, picture, edit, mask)
    scale = making.guidance_scale
    plan = planned(
        pipeline,
        job,
        edit,
        prompt,
        negative_prompt=making.negative_prompt,
        count=making.count,
        seed=first,
        steps=making.steps,
        guidance_scale=DEFAULT_GUIDANCE_SCALE if scale is None else scale,
        sampler=making.sampler,
        schedule=making.schedule,
        guidance=making.guidance,
    )

    def pictures():
        steps = walked_steps(plan[0], job.free is not None)
        with progress(steps * len(list(pipeline.batches(plan))), "step") as bar:
            yield from made_of(pipeline, job, plan, callback=lambda *_: advance(bar))

    return plan, pictures()


def evaluate(evaluating: Evaluating) -> None:
    """Fill hidden parts of real scenes by every method and print how good that is."""
    from imagediff.scenes import PROMPTS
    from shared.layout import ADAPTER, check_adapter
    from shared.models import find_model

    folder = find_model(evaluating.model).folder
    names = evaluating.names()

    from imagediff import ImagePipeline
    from imagediff.adherence import read_evaluation
    from imagediff.evaluate_edit import evaluate_edit
    from imagediff.judge import load_judge
    from shared.editing import FILLINGS

    if not (folder / ADAPTER).is_dir():
        if names is not None and CONCAT in names:
            check_adapter(folder)
        names = [name for name in names or FILLINGS if name != CONCAT]
    scale = evaluating.guidance_scale
    report = evaluate_edit(
        ImagePipeline.load(evaluating.model, evaluating.device, evaluating.dtype),
        load_judge(evaluating.judge, say),
        read_evaluation(evaluating.prompts or PROMPTS),
        methods=names,
        limit=evaluating.limit,
        seed=evaluating.seed,
        steps=evaluating.steps,
        guidance_scale=DEFAULT_GUIDANCE_SCALE if scale is None else scale,
        sampler=evaluating.sampler,
    )
    click.echo(json.dumps(report.record()) if evaluating.as_json else report.table())
