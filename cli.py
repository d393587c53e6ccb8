"""The command line: parse, call, report. Nothing heavy is imported before it is needed."""

import json
import signal
import sys
from pathlib import Path
from typing import NoReturn

import click

from shared.errors import UserError

DEVICES = click.Choice(["auto", "cpu", "cuda", "mps"])
DTYPES = click.Choice(["auto", "float32", "bfloat16", "float16"])
FILE = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="duotone")
def cli() -> None:
    """Make pictures from prompts with diffusion models, on any computer, offline."""


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line: exit code 2 and one line for bad input, 130 for Ctrl-C."""
    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        interrupted = True
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # we are leaving; let the clean-up finish
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    for stream in (sys.stdout, sys.stderr):
        # Paths and prompts may hold what the terminal's encoding does not.
        stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    try:
        code = cli.main(args, prog_name="duotone", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = 2
    except (UserError, click.ClickException) as error:
        text = error.format_message() if isinstance(error, click.ClickException) else str(error)
        _say("Error: " + " ".join(text.split()))
        code = 2
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        sys.stdout = None
        code = 1
    except BaseException:
        # A KeyboardInterrupt inside an import may come out as another exception.
        if not interrupted:
            raise
        _say("Interrupted")
        code = 130
    sys.exit(code)


@cli.command()
@click.argument("prompt")
@click.option("-o", "--output", type=FILE, help="A .png file, or an existing folder.")
@click.option("--count", default=1, show_default=True, help="Pictures to make.")
@click.option("--seed", type=int, help="Of the first picture; the next have seed + 1, ...")
@click.option("--steps", default=25, show_default=True, help="Sampling steps, 1 to 10000.")
@click.option(
    "--guidance-scale",
    default=4.0,
    show_default=True,
    help="How strongly the prompt is followed; 1 is off.",
)
@click.option("--negative-prompt", default="", help="What to move away from.")
@click.option("--sampler", default="dpm++2m", show_default=True, help="Name of the sampler.")
@click.option("--schedule", default="karras", show_default=True, help="Spacing of noise levels.")
@click.option("--size", metavar="WxH", help="In pixels; by default what the model was trained at.")
@click.option("--model", default="builtin", show_default=True, help="Name or folder of a model.")
@click.option("--device", type=DEVICES, default="auto", show_default=True)
@click.option("--dtype", type=DTYPES, default="auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON record for each picture.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
def image(
    prompt: str,
    output: Path | None,
    count: int,
    seed: int | None,
    steps: int,
    guidance_scale: float,
    negative_prompt: str,
    sampler: str,
    schedule: str,
    size: str | None,
    model: str,
    device: str,
    dtype: str,
    as_json: bool,
    overwrite: bool,
) -> None:
    """Make pictures of PROMPT and print their paths."""
    import secrets

    from imagediff.settings import check_count, parse_size
    from shared.files import output_paths, slug
    from shared.models import find_model

    # First what can be told without torch, whose import takes longer than all of this.
    check_count(count)
    find_model(model)
    first = secrets.randbelow(2**31) if seed is None else seed
    seeds = [str(first + i) for i in range(count)]
    paths = output_paths(output, [f"{slug(prompt)}-{s}" for s in seeds], seeds, ".png", overwrite)
    pixels = None if size is None else parse_size(size)

    from imagediff import ImagePipeline
    from imagediff.png import save_png

    pipeline = ImagePipeline.load(model, device, dtype)
    plan = pipeline.plan(
        prompt,
        negative_prompt=negative_prompt,
        count=count,
        seed=first,
        steps=steps,
        guidance_scale=guidance_scale,
        sampler=sampler,
        schedule=schedule,
        size=pixels,
    )
    for remark in pipeline.remarks(prompt) + pipeline.remarks(negative_prompt):
        _say(f"Note: {remark}")
    with _progress(steps * len(list(pipeline.batches(plan))), "step") as bar:
        pictures = pipeline.generate(plan, callback=lambda *_: _advance(bar))
        for path, settings, picture in zip(paths, plan, pictures, strict=True):
            save_png(picture, path, settings, overwrite)
            record = {"path": str(path)} | settings.record()
            bar.write(json.dumps(record) if as_json else str(path), file=sys.stdout)


@cli.command()
@click.argument("file", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
def info(file: Path, as_json: bool) -> None:
    """Show what made the picture FILE."""
    from imagediff.png import open_png, read_record
    from shared.provenance import printable

    record = read_record(file, open_png(file)[1])
    if as_json:
        click.echo(json.dumps(record))
        return
    width = max(map(len, record))
    for key, value in record.items():
        shown = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
        click.echo(f"{printable(key):{width}}  {printable(shown)}")


@cli.command()
@click.argument("file", type=FILE)
@click.option("-o", "--output", type=FILE, help="A .png file, or an existing folder.")
@click.option("--model", help="Name or folder of the model, if not the recorded name.")
@click.option("--device", type=DEVICES, help="If not the recorded one.")
@click.option("--dtype", type=DTYPES, help="If not the recorded one.")
@click.option("--overwrite", is_flag=True, help="Replace a file that exists.")
def replay(
    file: Path,
    output: Path | None,
    model: str | None,
    device: str | None,
    dtype: str | None,
    overwrite: bool,
) -> None:
    """Make the picture FILE again from its record and compare the pixels."""
    from imagediff.png import difference, open_png, read_settings, save_png
    from shared.files import output_paths

    original, text = open_png(file)
    recorded = read_settings(file, text)
    (path,) = output_paths(output, [f"{file.stem}-replay"], [""], ".png", overwrite)

    from imagediff import ImagePipeline
    from shared.devices import is_available

    if device is None:
        device = recorded.device if is_available(recorded.device) else "auto"
    pipeline = ImagePipeline.load(model or recorded.model, device, dtype or recorded.dtype)
    (settings,) = pipeline.plan(
        recorded.prompt,
        negative_prompt=recorded.negative_prompt,
        seed=recorded.seed,
        steps=recorded.steps,
        guidance_scale=recorded.guidance_scale,
        sampler=recorded.sampler,
        schedule=recorded.schedule,
        size=recorded.size,
    )
    for change in recorded.changes(settings):
        _say(f"Note: {change}")
    with _progress(settings.steps, "step") as bar:
        (picture,) = pipeline.generate([settings], callback=lambda *_: _advance(bar))
    save_png(picture, path, settings, overwrite)
    click.echo(path)
    click.echo(difference(original, picture))


@cli.group(invoke_without_command=True)
@click.pass_context
def models(context: click.Context) -> None:
    """List the models on this machine: carried, in your folder, in the Hugging Face cache."""
    if context.invoked_subcommand is not None:
        return
    from shared.models import find_models, user_folder

    found = find_models()
    width = max((len(model.name) for model in found), default=0)
    for model in found:
        size = f"{model.size_bytes / 2**20:,.0f} MiB"
        can = ", ".join(model.can) or "not usable yet"
        licence = model.licence or "licence not stated"
        click.echo(f"{model.name:{width}}  {size:>10}  {licence}  {can}  ({model.source})")
    if not found:
        _say("No models found.")
    _say(f"Your own models go into {user_folder()}")


@models.command("show")
@click.argument("name")
def show_model(name: str) -> None:
    """Print the card of model NAME (or of a model folder) and the words it knows."""
    from shared.models import card, find_model, known_words

    model = find_model(name)
    click.echo(f"{model.name}: {model.parameters / 1e6:.1f} M parameters in {model.folder}")
    click.echo(card(model.folder) or "It has no card (README.md).")
    words = known_words(model.folder)
    if words:
        click.echo(f"The {len(words)} words it knows:")
        click.echo(", ".join(sorted(words)))


@cli.group()
def data() -> None:
    """Make pictures to train on."""


@data.command("scenes")
@click.option("--out", type=FILE, required=True, help="Folder to write.")
@click.option("--count", default=10_000, show_default=True, help="Pictures in the end.")
@click.option("--size", default=128, show_default=True, help="Side in pixels.")
@click.option("--seed", default=0, show_default=True, help="Which series of scenes.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True)
def data_scenes(out: Path, count: int, size: int, seed: int, workers: int) -> None:
    """Draw captioned scenes of emoji into a folder with metadata.jsonl."""
    from imagediff.data import write_dataset

    with _progress(count, "picture") as bar:
        write_dataset(out, count, size, seed, lambda done, _: _advance(bar, done), workers)
    click.echo(out)


@cli.group()
def train() -> None:
    """Train the parts of a model on a captioned folder."""


@train.command("vae")
@click.option("--config", type=FILE, required=True, help="YAML file of the run.")
@click.option("--data", type=FILE, required=True, help="Captioned folder (imagefolder).")
@click.option("--out", type=FILE, required=True, help="Folder of the run.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in --out.")
def train_vae(config: Path, data: Path, out: Path, resume: bool) -> None:
    """Train an autoencoder: pictures to latents and back."""
    from imagediff.train_vae import train_vae

    train_vae(config, data, out, resume)


@train.command("diffusion")
@click.option("--config", type=FILE, required=True, help="YAML file of the run.")
@click.option("--data", type=FILE, required=True, help="Captioned folder (imagefolder).")
@click.option("--out", type=FILE, required=True, help="Folder of the run.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in --out.")
def train_diffusion(config: Path, data: Path, out: Path, resume: bool) -> None:
    """Train a text-to-image denoiser in an autoencoder's latents."""
    from imagediff.train_diffusion import train_diffusion

    train_diffusion(config, data, out, resume)


@cli.group()
def evaluate() -> None:
    """Measure how good a model is."""


@evaluate.command("image")
@click.option("--model", default="builtin", show_default=True, help="Name or folder of a model.")
@click.option("--prompts", type=FILE, help="JSON lines with labels, instead of the project's own.")
@click.option("--limit", type=click.IntRange(min=1), help="Prompts of each kind, drawn by lot.")
@click.option("--steps", default=25, show_default=True, help="Sampling steps, 1 to 10000.")
@click.option("--guidance-scale", default=4.0, show_default=True, help="1 is off.")
@click.option("--sampler", default="dpm++2m", show_default=True, help="Name of the sampler.")
@click.option(
    "--seed", default=0, show_default=True, help="Of the first prompt; the next have + 1."
)
@click.option("--device", type=DEVICES, default="auto", show_default=True)
@click.option("--dtype", type=DTYPES, default="auto", show_default=True)
@click.option("--judge", type=FILE, help="Folder of another judge, trained there if it is empty.")
@click.option("--sheet", type=FILE, help="A .png file for 32 prompts drawn by lot.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON record.")
def evaluate_image(
    model: str,
    prompts: Path | None,
    limit: int | None,
    steps: int,
    guidance_scale: float,
    sampler: str,
    seed: int,
    device: str,
    dtype: str,
    judge: Path | None,
    sheet: Path | None,
    as_json: bool,
) -> None:
    """Make pictures of labelled prompts and print how well they follow them."""
    from imagediff.scenes import PROMPTS
    from shared.files import output_paths
    from shared.models import find_model

    find_model(model)
    if sheet is not None:
        (sheet,) = output_paths(sheet, ["sheet"], [""], ".png", overwrite=True)

    from imagediff import ImagePipeline
    from imagediff.adherence import read_evaluation
    from imagediff.evaluate import evaluate
    from imagediff.judge import load_judge

    labelled = read_evaluation(prompts or PROMPTS)
    report = evaluate(
        ImagePipeline.load(model, device, dtype),
        load_judge(judge, _say),
        labelled,
        limit=limit,
        seed=seed,
        steps=steps,
        guidance_scale=guidance_scale,
        sampler=sampler,
        sheet=sheet,
        say=_say,
    )
    click.echo(json.dumps(report.record()) if as_json else report.table())


def _progress(total: int, unit: str):
    from tqdm import tqdm

    return tqdm(total=total, unit=unit, leave=False, dynamic_ncols=True)


def _advance(bar, done: int | None = None) -> None:
    bar.update(1 if done is None else done - bar.n)


def _say(message: str) -> None:
    click.echo(message, err=True)


if __name__ == "__main__":
    main()
