"""The commands about pictures: parse, call, report. Heavy imports wait until they are needed."""

import json
import sys
from pathlib import Path

import click

from imagediff import edit_commands, movie_commands, upscale_commands
from imagediff.settings import DEFAULT_GUIDANCE_SCALE
from shared.comparison import parse_comparison
from shared.console import (
    FILE,
    advance,
    all_of,
    count_and_seed_options,
    evaluation_options,
    guidance_options,
    json_option,
    model_options,
    negative_option,
    overwrite_option,
    progress,
    quality_option,
    refuse_for,
    sampling_options,
    say,
    schedule_option,
    show,
    workers_option,
)
from shared.sampler_commands import Comparing
from shared.settings import DEFAULT_SCHEDULE, GuidanceSettings


@click.command()
@click.argument("prompt", required=False)
@click.option("--class", "name", metavar="NAME", help="An object of the vocabulary, as prompt.")
@click.option("--unconditional", is_flag=True, help="Told nothing in words, and not guided.")
@click.option("--layout", type=FILE, help="What is to be where: a map, or boxes in a .json file.")
@click.option("--legend", metavar="C=WHAT,...", help="Of a map: what each colour is; or a .json.")
@click.option("-o", "--output", type=FILE, help="A .png file, or an existing folder.")
@count_and_seed_options("Pictures", "picture")
@all_of(
    sampling_options(DEFAULT_GUIDANCE_SCALE), schedule_option, guidance_options, negative_option
)
@click.option("--size", metavar="WxH", help="In pixels; by default what the model was trained at.")
@click.option("--tile", is_flag=True, help="A texture that repeats without a seam.")
@click.option("--upscale", type=int, metavar="2|4", help="So many times larger once it is drawn.")
@all_of(model_options, quality_option, json_option("picture"), overwrite_option)
def image(
    prompt: str | None,
    name: str | None,
    unconditional: bool,
    layout: Path | None,
    legend: str | None,
    output: Path | None,
    count: int,
    seed: int | None,
    steps: int,
    guidance_scale: float,
    sampler: str,
    schedule: str,
    quality: bool,
    guidance: GuidanceSettings,
    negative_prompt: str,
    size: str | None,
    tile: bool,
    upscale: int | None,
    model: str,
    device: str,
    dtype: str,
    as_json: bool,
    overwrite: bool,
) -> None:
    """Make pictures of PROMPT, or of a layout, and print their paths."""
    import secrets

    from imagediff.enlarged_settings import check_factor
    from imagediff.settings import parse_size
    from imagediff.subject import read_subject
    from shared.files import output_paths, slug
    from shared.layout import check_adapter
    from shared.models import find_model
    from shared.settings import check_count
    from shared.student import choose_denoiser

    # First what can be told without torch, whose import takes longer than all of this.
    check_count(count)
    if upscale is not None:
        check_factor(upscale)
    found = find_model(model)
    asked = read_subject(prompt, name, unconditional, layout, legend)
    if asked.drawn is not None:
        check_adapter(found.folder)
    if unconditional:
        refuse_for("pictures that are told nothing", "guidance_scale", "negative_prompt")
        guidance_scale = 1.0
    choice = choose_denoiser(
        found.folder,
        steps=steps,
        guidance_scale=guidance_scale,
        sampler=sampler,
        schedule=schedule,
        negative_prompt=negative_prompt,
        guidance=guidance,
        quality=quality or asked.drawn is not None,  # a student takes no layout
    )
    first = secrets.randbelow(2**31) if seed is None else seed
    seeds = [str(first + i) for i in range(count)]
    paths = output_paths(
        output, [f"{slug(asked.prompt)}-{s}" for s in seeds], seeds, [".png"], overwrite
    )
    pixels = None if size is None else parse_size(size)

    from imagediff import ImagePipeline
    from imagediff.enlarging import made_larger
    from imagediff.png import save_png

    pipeline = ImagePipeline.load(model, device, dtype, choice.student)
    regions = () if asked.drawn is None else asked.drawn.at(pixels or pipeline.native_size)
    if regions:
        pipeline = pipeline.adapted
    plan = pipeline.plan(
        asked.prompt,
        negative_prompt=negative_prompt,
        count=count,
        seed=first,
        steps=steps,
        guidance_scale=guidance_scale,
        sampler=choice.sampler,
        schedule=choice.schedule,
        guidance=guidance,
        size=pixels,
        tile=tile,
        layout=regions,
    )
    plan, finished = made_larger(plan, upscale)
    texts = [asked.prompt, negative_prompt, *(region.what for region in regions)]
    for remark in dict.fromkeys(line for text in texts for line in pipeline.remarks(text)):
        say(f"Note: {remark}")
    with progress(steps * len(list(pipeline.batches(plan))), "step") as bar:
        pictures = pipeline.generate(plan, callback=lambda *_: advance(bar))
        for path, settings, picture in zip(paths, plan, pictures, strict=True):
            save_png(finished(picture, settings), path, settings, overwrite)
            record = {"path": str(path)} | settings.record()
            bar.write(json.dumps(record) if as_json else str(path), file=sys.stdout)


def info(file: Path, as_json: bool) -> None:
    """Show what made the picture ``file``.

    Raises:
        UserError: it is no picture, or does not tell.
    """
    from imagediff.png import read_record

    record = read_record(file, _text(file))
    if as_json:
        click.echo(json.dumps(record))
    else:
        show(record)


def replay(
    file: Path,
    output: Path | None,
    model: str | None,
    device: str | None,
    dtype: str | None,
    overwrite: bool,
) -> None:
    """Make the picture ``file`` again from its record and compare the pixels.

    Raises:
        UserError: it has no record, or what is needed is not here.
    """
    from imagediff.edit_settings import EditSettings
    from imagediff.movie_settings import AnimationSettings, BlendSettings
    from imagediff.picture_file import open_picture
    from imagediff.png import difference, read_settings, save_png
    from imagediff.upscale_settings import UpscaleSettings
    from shared.files import output_paths

    recorded = read_settings(file, _text(file))
    if isinstance(recorded, EditSettings):
        edit_commands.replay(file, recorded, output, model, device, dtype, overwrite)
        return
    if isinstance(recorded, BlendSettings | AnimationSettings):
        movie_commands.replay(file, recorded, output, model, device, dtype, overwrite)
        return
    if isinstance(recorded, UpscaleSettings):
        upscale_commands.replay(file, recorded, output, model, device, dtype, overwrite)
        return
    original = open_picture(file).image
    (path,) = output_paths(output, [f"{file.stem}-replay"], [""], [".png"], overwrite)

    from imagediff import ImagePipeline
    from imagediff.enlarging import made_larger
    from shared.devices import is_available

    if device is None:
        device = recorded.device if is_available(recorded.device) else "auto"
    pipeline = ImagePipeline.load(
        model or recorded.model, device, dtype or recorded.dtype, recorded.student
    )
    if recorded.layout:
        pipeline = pipeline.adapted
    plan = pipeline.plan(
        recorded.prompt,
        negative_prompt=recorded.negative_prompt,
        seed=recorded.seed,
        steps=recorded.steps,
        guidance_scale=recorded.guidance_scale,
        sampler=recorded.sampler,
        schedule=recorded.schedule,
        guidance=recorded.guidance,
        size=recorded.size,
        tile=recorded.tile,
        layout=recorded.layout,
    )
    told = recorded.upscale
    (settings,), finished = (
        made_larger(plan, None) if told is None else made_larger(plan, told.factor, told.model)
    )
    for change in recorded.changes(settings):
        say(f"Note: {change}")
    with progress(settings.steps, "step") as bar:
        (drawn,) = pipeline.generate([settings], callback=lambda *_: advance(bar))
    again = finished(drawn, settings)
    save_png(again, path, settings, overwrite)
    click.echo(path)
    click.echo(difference(original, again))


def _text(file: Path) -> dict[str, str]:
    """What the picture or movie ``file`` says of how it was made."""
    if file.suffix.lower() == ".mp4":
        from imagediff.movies import movie_text

        return movie_text(file)
    from imagediff.picture_file import read_text

    return read_text(file)


def compare_samplers(prompt: str, comparing: Comparing) -> None:
    """Draw the prompt with every sampler in every number of steps, as one labelled sheet."""
    import secrets

    from shared.files import output_paths, slug
    from shared.models import find_model

    comparison = parse_comparison(comparing.names, comparing.steps)
    find_model(comparing.model)
    seed = secrets.randbelow(2**31) if comparing.seed is None else comparing.seed
    name = f"{slug(prompt)}-{seed}-samplers"
    (path,) = output_paths(comparing.output, [name], [""], [".png"], comparing.overwrite)
    scale = comparing.guidance_scale

    from imagediff import ImagePipeline
    from imagediff.png import save_comparison
    from imagediff.sheets import captioned_sheet

    pipeline = ImagePipeline.load(comparing.model, comparing.device, comparing.dtype)
    plan = [
        settings
        for sampler, steps in comparison.pairs()
        for settings in pipeline.plan(
            prompt,
            negative_prompt=comparing.negative_prompt,
            seed=seed,
            steps=steps,
            guidance_scale=DEFAULT_GUIDANCE_SCALE if scale is None else scale,
            sampler=sampler,
            schedule=comparing.schedule,
            guidance=comparing.guidance,
        )
    ]
    for remark in pipeline.remarks(prompt) + pipeline.remarks(comparing.negative_prompt):
        say(f"Note: {remark}")
    with progress(sum(settings.steps for settings in plan), "step") as bar:
        pictures = list(pipeline.generate(plan, callback=lambda *_: advance(bar)))
    sheet = captioned_sheet(pictures, comparison.captions(), columns=len(comparison.steps))
    save_comparison(sheet, path, comparison, plan[0], comparing.overwrite)
    click.echo(path)


@click.command("scenes")
@click.option("--out", type=FILE, required=True, help="Folder to write.")
@click.option("--count", default=10_000, show_default=True, help="Pictures in the end.")
@click.option("--size", default=128, show_default=True, help="Side in pixels.")
@click.option("--seed", default=0, show_default=True, help="Which series of scenes.")
@click.option("--anywhere", is_flag=True, help="One to four objects of any size, anywhere.")
@workers_option
def data_scenes(out: Path, count: int, size: int, seed: int, anywhere: bool, workers: int) -> None:
    """Draw captioned scenes of emoji into a folder with metadata.jsonl."""
    from imagediff.data import write_dataset

    with progress(count, "picture") as bar:
        write_dataset(out, count, size, seed, lambda done, _: advance(bar, done), workers, anywhere)
    click.echo(out)


def train_vae(config: Path, data: Path, out: Path, resume: bool) -> None:
    """Train an autoencoder: pictures to latents and back."""
    from imagediff.train_vae import train_vae

    train_vae(config, data, out, resume)


def train_diffusion(config: Path, data: Path, out: Path, resume: bool) -> None:
    """Train a text-to-image denoiser in an autoencoder's latents."""
    from imagediff.train_diffusion import train_diffusion

    train_diffusion(config, data, out, resume)


def train_adapter(config: Path, data: Path, out: Path, resume: bool) -> None:
    """Train an adapter: layouts and holes on the plane of a model's latents."""
    from imagediff.train_adapter import train_adapter

    train_adapter(config, data, out, resume)


def train_upscaler(config: Path, data: Path, out: Path, resume: bool) -> None:
    """Train an upscaler on pictures."""
    from imagediff.train_upscaler import train_upscaler

    train_upscaler(config, data, out, resume)


@click.command("image")
@all_of(
    model_options,
    quality_option,
    sampling_options(DEFAULT_GUIDANCE_SCALE),
    guidance_options,
    evaluation_options,
)
@click.option("--sheet", type=FILE, help="A .png file for 64 prompts drawn by lot.")
def evaluate_image(
    model: str,
    device: str,
    dtype: str,
    quality: bool,
    steps: int,
    guidance_scale: float,
    sampler: str,
    guidance: GuidanceSettings,
    prompts: Path | None,
    limit: int | None,
    seed: int,
    judge: Path | None,
    as_json: bool,
    sheet: Path | None,
) -> None:
    """Make pictures of labelled prompts and print how well they follow them."""
    from imagediff.scenes import PROMPTS
    from shared.files import output_paths
    from shared.models import find_model
    from shared.student import choose_denoiser

    choice = choose_denoiser(
        find_model(model).folder,
        steps=steps,
        guidance_scale=guidance_scale,
        sampler=sampler,
        schedule=DEFAULT_SCHEDULE,
        guidance=guidance,
        quality=quality,
    )
    if sheet is not None:
        (sheet,) = output_paths(sheet, ["sheet"], [""], [".png"], overwrite=True)

    from imagediff import ImagePipeline
    from imagediff.adherence import read_evaluation
    from imagediff.evaluate import evaluate
    from imagediff.judge import load_judge

    labelled = read_evaluation(prompts or PROMPTS)
    report = evaluate(
        ImagePipeline.load(model, device, dtype, choice.student),
        load_judge(judge, say),
        labelled,
        limit=limit,
        seed=seed,
        steps=steps,
        guidance_scale=guidance_scale,
        sampler=choice.sampler,
        schedule=choice.schedule,
        guidance=guidance,
        sheet=sheet,
        say=say,
    )
    click.echo(json.dumps(report.record()) if as_json else report.table())
