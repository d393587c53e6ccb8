"""The command that makes pictures larger, and its measurement: parse, call, report."""

from __future__ import annotations

import json
from pathlib import Path

import click

from imagediff.enlarged_settings import check_factor
from imagediff.sources import prompt_of
from imagediff.upscale_settings import (
    DEFAULT_SAMPLER,
    DEFAULT_SCHEDULE,
    DEFAULT_STEPS,
    UpscaleSettings,
)
from shared.console import (
    FILE,
    Decorator,
    advance,
    all_of,
    evaluation_options,
    json_option,
    model_options,
    overwrite_option,
    progress,
    say,
)

walk_options: Decorator = all_of(
    click.option(
        "--steps", default=DEFAULT_STEPS, show_default=True, help="Sampling steps, 1 to 10000."
    ),
    click.option(
        "--sampler",
        default=DEFAULT_SAMPLER,
        show_default=True,
        help="Name of the sampler; duotone samplers lists them.",
    ),
    click.option(
        "--schedule",
        default=DEFAULT_SCHEDULE,
        show_default=True,
        help="Spacing of noise levels; duotone samplers --schedules lists them.",
    ),
)


@click.command()
@click.argument("file", type=FILE)
@click.option("--factor", type=int, default=2, show_default=True, help="2 or 4.")
@click.option("-o", "--output", type=FILE, help="A file, or an existing folder; else beside you.")
@click.option("--seed", default=0, show_default=True, help="Of the noise that it begins with.")
@all_of(walk_options, model_options, json_option("picture"), overwrite_option)
def upscale(
    file: Path,
    factor: int,
    output: Path | None,
    seed: int,
    steps: int,
    sampler: str,
    schedule: str,
    model: str,
    device: str,
    dtype: str,
    as_json: bool,
    overwrite: bool,
) -> None:
    """Make the picture FILE twice or four times as large and print the path of the result."""
    from imagediff.picture_file import check_format, open_picture, save_picture, suffixes_for
    from shared.files import output_paths
    from shared.models import find_model
    from shared.sources import file_hash

    # First what can be told without torch, whose import takes longer than all of this.
    check_factor(factor)
    find_model(model, "upscaler")
    picture = open_picture(file)
    check_factor(factor, picture.size)
    names = [f"{file.stem}-x{factor}"]
    (path,) = output_paths(output, names, [""], suffixes_for(file), overwrite)
    check_format(picture, path)

    from imagediff.enlarging import upscale as made_larger
    from imagediff.enlarging import walked_steps
    from imagediff.upscaler import Upscaler

    upscaler = Upscaler.load(model, device, dtype)
    settings = upscaler.plan(
        picture.size,
        factor,
        steps=steps,
        sampler=sampler,
        schedule=schedule,
        seed=seed,
        prompt=prompt_of(picture),
        source=str(file),
        source_hash=file_hash(file),
    )
    with progress(walked_steps(picture, settings), "step") as bar:
        made = made_larger(upscaler, picture, settings, lambda *_: advance(bar))
    save_picture(made, path, settings, overwrite)
    record = {"path": str(path)} | settings.record()
    click.echo(json.dumps(record) if as_json else path)


def replay(
    file: Path,
    recorded: UpscaleSettings,
    output: Path | None,
    model: str | None,
    device: str | None,
    dtype: str | None,
    overwrite: bool,
) -> None:
    """Make the enlarged picture ``file`` again and compare the pixels.

    Raises:
        UserError: the file that it was made of is not here or has changed.
    """
    from imagediff.picture_file import open_picture, save_picture, suffixes_for
    from imagediff.png import difference
    from shared.files import output_paths
    from shared.sources import found

    original = open_picture(file)
    source = open_picture(found(file, recorded.source, recorded.source_hash))
    names = [f"{file.stem}-replay"]
    (path,) = output_paths(output, names, [""], suffixes_for(file), overwrite)

    from imagediff.enlarging import upscale as made_larger
    from imagediff.enlarging import walked_steps
    from imagediff.upscaler import Upscaler
    from shared.devices import is_available

    if device is None:
        device = recorded.device if is_available(recorded.device) else "auto"
    upscaler = Upscaler.load(model or recorded.model, device, dtype or recorded.dtype)
    settings = upscaler.plan(
        source.size,
        recorded.factor,
        steps=recorded.steps,
        sampler=recorded.sampler,
        schedule=recorded.schedule,
        seed=recorded.seed,
        prompt=recorded.prompt,
        source=recorded.source,
        source_hash=recorded.source_hash,
    )
    for change in recorded.changes(settings):
        say(f"Note: {change}")
    with progress(walked_steps(source, settings), "step") as bar:
        made = made_larger(upscaler, source, settings, lambda *_: advance(bar))
    save_picture(made, path, settings, overwrite)
    click.echo(path)
    click.echo(difference(original.image, open_picture(path).image))


@click.command("upscale")
@all_of(model_options, walk_options, evaluation_options)
@click.option(
    "--shrink",
    "how",
    default="bicubic",
    show_default=True,
    help="How the scenes are made small: box, bilinear, hamming, bicubic or lanczos.",
)
def evaluate_upscale(
    model: str,
    device: str,
    dtype: str,
    steps: int,
    sampler: str,
    schedule: str,
    prompts: Path | None,
    limit: int | None,
    seed: int,
    judge: Path | None,
    as_json: bool,
    how: str,
) -> None:
    """Make small real scenes large again and print how good that is."""
    from imagediff.scenes import PROMPTS
    from shared.models import find_model

    find_model(model, "upscaler")

    from imagediff.adherence import read_evaluation
    from imagediff.evaluate_upscale import evaluate_upscale
    from imagediff.judge import load_judge
    from imagediff.upscaler import Upscaler

    report = evaluate_upscale(
        Upscaler.load(model, device, dtype),
        load_judge(judge, say),
        read_evaluation(prompts or PROMPTS),
        how=how,
        limit=limit,
        seed=seed,
        steps=steps,
        sampler=sampler,
        schedule=schedule,
    )
    click.echo(json.dumps(report.record()) if as_json else report.table())
