"""The commands that make series of pictures: parse, call, report. Heavy imports wait."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagediff.sources import prompt_of
from shared.console import Making, advance, progress, say
from shared.errors import UserError
from shared.sources import file_hash, found

if TYPE_CHECKING:
    from PIL import Image

    from imagediff.movie_settings import AnimationSettings, BlendSettings
    from imagediff.pipeline import ImagePipeline

MOVING = [".mp4", ".gif", ".webp"]
COLUMNS = 8  # of a sheet


def blend(
    first: Path,
    second: Path,
    frames: int,
    prompts: tuple[str | None, str | None],
    strength: float,
    fps: float,
    making: Making,
) -> None:
    """Write pictures on the way from ``first`` to ``second``: a sheet, or a file that moves."""
    import secrets

    from imagediff.movie_settings import BlendSettings
    from imagediff.picture_file import open_picture
    from shared.files import output_paths
    from shared.models import find_model
    from shared.settings import check_count

    check_count(making.count)
    find_model(making.model)
    pictures = [open_picture(file) for file in (first, second)]
    texts = [
        prompt_of(picture) if prompt is None else prompt
        for picture, prompt in zip(pictures, prompts, strict=True)
    ]
    seed = secrets.randbelow(2**31) if making.seed is None else making.seed
    seeds = [str(seed + i) for i in range(making.count)]
    names = [f"{first.stem}-to-{second.stem}-{one}" for one in seeds]
    paths = output_paths(making.output, names, seeds, [".png", *MOVING], making.overwrite)

    from imagediff import ImagePipeline
    from imagediff.editing import whole
    from imagediff.settings import DEFAULT_GUIDANCE_SCALE

    pipeline = ImagePipeline.load(making.model, making.device, making.dtype)
    for remark in dict.fromkeys(remark for text in texts for remark in pipeline.remarks(text)):
        say(f"Note: {remark}")
    scale = making.guidance_scale
    sampled = pipeline.plan(
        texts[0].strip() or "-",  # a picture cannot be made of no prompt, a blend can
        negative_prompt=making.negative_prompt,
        count=making.count,
        seed=seed,
        steps=making.steps,
        guidance_scale=DEFAULT_GUIDANCE_SCALE if scale is None else scale,
        sampler=making.sampler,
        schedule=making.schedule,
        guidance=making.guidance,
        size=whole(pipeline, pictures[0].size, min(pipeline.native_size)).size,
    )
    for path, settings in zip(paths, sampled, strict=True):
        made = BlendSettings(
            **{**vars(settings), "prompt": texts[0]},
            task="blend",
            source=str(first),
            source_hash=file_hash(first),
            other=str(second),
            other_hash=file_hash(second),
            other_prompt=texts[1],
            strength=strength,
            frames=frames,
            fps=fps,
        )
        _write_blend(pipeline, made, first, second, path, making.overwrite)
        record = {"path": str(path)} | made.record()
        print(json.dumps(record) if making.as_json else str(path), file=sys.stdout)


def animate(script: Path, making: Making) -> None:
    """Write the pictures of a time line as a file that moves."""
    from imagediff.movie_settings import Script, moments
    from imagediff.settings import DEFAULT_GUIDANCE_SCALE, parse_size
    from shared.config import read_config
    from shared.files import output_paths
    from shared.models import find_model

    if making.seed is not None or making.count != 1:
        raise UserError("an animation's seeds are in its script; --seed and --count are not taken")
    find_model(making.model)
    told = read_config(script, Script)
    moments(told)
    (path,) = output_paths(making.output, [script.stem], [""], MOVING, making.overwrite)
    if told.size is not None:
        parse_size(told.size)

    from imagediff import ImagePipeline
    from imagediff.movies import animation

    pipeline = ImagePipeline.load(making.model, making.device, making.dtype)
    prompts = dict.fromkeys(keyframe.prompt for keyframe in told.keyframes)
    for remark in dict.fromkeys(remark for text in prompts for remark in pipeline.remarks(text)):
        say(f"Note: {remark}")
    scale = making.guidance_scale
    made = animation(
        pipeline,
        told,
        negative_prompt=making.negative_prompt,
        steps=making.steps,
        guidance_scale=DEFAULT_GUIDANCE_SCALE if scale is None else scale,
        sampler=making.sampler,
        schedule=making.schedule,
        guidance=making.guidance,
    )
    _write_animation(pipeline, made, path, making.overwrite)
    record = {"path": str(path)} | made.record()
    print(json.dumps(record) if making.as_json else str(path), file=sys.stdout)


def replay(
    file: Path,
    recorded: BlendSettings | AnimationSettings,
    output: Path | None,
    model: str | None,
    device: str | None,
    dtype: str | None,
    overwrite: bool,
) -> None:
    """Make a blend or an animation again and compare the files."""
    from imagediff.movie_settings import BlendSettings
    from shared.files import output_paths

    suffixes = [".png", *MOVING] if isinstance(recorded, BlendSettings) else MOVING
    suffixes = sorted(suffixes, key=lambda suffix: suffix != file.suffix.lower())
    (path,) = output_paths(output, [f"{file.stem}-replay"], [""], suffixes, overwrite)
    sources = None
    if isinstance(recorded, BlendSettings):
        sources = (
            found(file, recorded.source, recorded.source_hash),
            found(file, recorded.other, recorded.other_hash),
        )

    from imagediff import ImagePipeline
    from shared.devices import dtype_name, is_available

    if device is None:
        device = recorded.device if is_available(recorded.device) else "auto"
    pipeline = ImagePipeline.load(model or recorded.model, device, dtype or recorded.dtype)
    now = replace(
        recorded,
        model=pipeline.name,
        model_hash=pipeline.hash,
        device=pipeline.device.type,
        dtype=dtype_name(pipeline.dtype),
    )
    for change in recorded.changes(now):
        say(f"Note: {change}")
    if isinstance(now, BlendSettings) and sources is not None:
        _write_blend(pipeline, now, *sources, path, overwrite)
    elif not isinstance(now, BlendSettings):
        _write_animation(pipeline, now, path, overwrite)
    click.echo(path)
    same = file.read_bytes() == path.read_bytes()
    click.echo("identical" if same else "differs: the files are not the same, byte for byte")


def _write_blend(
    pipeline: ImagePipeline,
    settings: BlendSettings,
    first: Path,
    second: Path,
    path: Path,
    overwrite: bool,
) -> None:
    from PIL import Image

    from imagediff.movies import blend, blend_strength
    from imagediff.picture_file import open_picture
    from imagediff.pixels import to_rgb

    ends = [to_rgb(open_picture(file)) for file in (first, second)]
    steps = sum(
        round(blend_strength(settings.strength, i / (settings.frames - 1)) * settings.steps)
        for i in range(settings.frames)
    )
    with progress(steps, "step") as bar:
        made = blend(pipeline, settings, *ends, callback=lambda *_: advance(bar))
        size = ends[0].size
        frames = [frame.resize(size, Image.Resampling.BICUBIC) for frame in made]
    _write(frames, path, settings.fps, settings, overwrite)


def _write_animation(
    pipeline: ImagePipeline, settings: AnimationSettings, path: Path, overwrite: bool
) -> None:
    from pydantic import TypeAdapter

    from imagediff.movie_settings import Script, moments
    from imagediff.movies import animate

    script = TypeAdapter(Script).validate_json(settings.script)
    line = moments(script)
    with progress(settings.steps * len(line), "step") as bar:
        frames: Iterator[Image.Image] = animate(
            pipeline, settings, line, callback=lambda *_: advance(bar)
        )
        pictures = list(frames)
    _write(pictures, path, script.fps, settings, overwrite)


def _write(
    frames: Sequence[Image.Image],
    path: Path,
    fps: float,
    settings: BlendSettings | AnimationSettings,
    overwrite: bool,
) -> None:
    if path.suffix.lower() in MOVING:
        from imagediff.movies import save_movie

        save_movie(frames, path, fps, settings, overwrite)
        return
    from imagediff.png import save_png
    from imagediff.sheets import captioned_sheet

    shares = [f"{i / (len(frames) - 1):.0%}" for i in range(len(frames))]
    save_png(captioned_sheet(frames, shares, COLUMNS), path, settings, overwrite)
