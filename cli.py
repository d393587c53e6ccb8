"""The command line: what both arts share, and where their own commands are hung in."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import click

from audiodiff import commands as audio
from audiodiff import evaluate_commands as music_evaluations
from audiodiff import training_commands as music_training
from cli_edits import VERBS, evaluate_edit, is_sound
from imagediff import commands as images
from imagediff import upscale_commands
from imagediff.layout_commands import evaluate_layout
from shared.console import (
    DEVICES,
    DTYPES,
    FILE,
    all_of,
    overwrite_option,
    say,
)
from shared.distill_commands import distill_group
from shared.errors import UserError
from shared.sampler_commands import Comparing, comparing_options, samplers

Trainer = Callable[[Path, Path, Path, bool], None]

TRAINERS: dict[str, dict[str, Trainer]] = {
    "vae": {"image": images.train_vae, "music": music_training.train_vae},
    "vocoder": {"music": music_training.train_vocoder},
    "diffusion": {"image": images.train_diffusion, "music": music_training.train_diffusion},
    "adapter": {"image": images.train_adapter},
    "upscaler": {"image": images.train_upscaler},
}


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="duotone")
def cli() -> None:
    """Make pictures and music from prompts with diffusion models, on any computer, offline."""


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
        say("Error: " + " ".join(text.split()))
        code = 2
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        sys.stdout = None
        code = 1
    except BaseException:
        # A KeyboardInterrupt inside an import may come out as another exception.
        if not interrupted:
            raise
        say("Interrupted")
        code = 130
    sys.exit(code)


STUDENTS = {"image": "imagediff.distill", "music": "audiodiff.distill"}
for _command in (
    images.image,
    audio.music,
    upscale_commands.upscale,
    samplers,
    distill_group(STUDENTS),
):
    cli.add_command(_command)


@cli.command()
@click.argument("file", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
@click.option("--plot", type=FILE, help="A .png file for the spectrogram of a recording.")
@overwrite_option
def info(file: Path, as_json: bool, plot: Path | None, overwrite: bool) -> None:
    """Show what made the picture or recording FILE, and what a recording sounds like."""
    if is_sound(file):
        audio.info(file, as_json, plot, overwrite)
    elif plot is not None:
        raise UserError(f"--plot draws the spectrogram of a recording, and {str(file)!r} is none")
    else:
        images.info(file, as_json)


@cli.command()
@click.argument("file", type=FILE)
@click.option("-o", "--output", type=FILE, help="A file like FILE, or an existing folder.")
@click.option("--model", help="Name or folder of the model, if not the recorded name.")
@click.option("--device", type=DEVICES, help="If not the recorded one.")
@click.option("--dtype", type=DTYPES, help="If not the recorded one.")
@overwrite_option
def replay(
    file: Path,
    output: Path | None,
    model: str | None,
    device: str | None,
    dtype: str | None,
    overwrite: bool,
) -> None:
    """Make the picture or clip FILE again from its record and compare the two."""
    art = audio if is_sound(file) else images
    art.replay(file, output, model, device, dtype, overwrite)


for verb in VERBS:
    cli.add_command(verb)


@samplers.command("compare")
@click.argument("prompt")
@click.option("--art", type=click.Choice(["image", "music"]), default="image", show_default=True)
@click.option("--seconds", type=float, help="Length of the clips; by default 6.")
@comparing_options
def compare(prompt: str, art: str, seconds: float | None, comparing: Comparing) -> None:
    """Make PROMPT from one seed by several samplers in several numbers of steps, to choose by.

    Pictures come as one labelled sheet, music as a folder of clips with a sheet of spectrograms.
    """
    if art == "music":
        audio.compare_samplers(prompt, seconds, comparing)
    elif seconds is not None:
        raise UserError("--seconds is the length of clips; pictures have none")
    else:
        images.compare_samplers(prompt, comparing)


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
        mebibytes = model.size_bytes / 2**20
        size = f"{mebibytes:,.{0 if mebibytes >= 10 else 1}f} MiB"
        can = ", ".join(model.can) or "not usable yet"
        licence = model.licence or "licence not stated"
        click.echo(f"{model.name:{width}}  {size:>10}  {licence}  {can}  ({model.source})")
    if not found:
        say("No models found.")
    say(f"Your own models go into {user_folder()}")


@models.command("show")
@click.argument("name")
def show_model(name: str) -> None:
    """Print the card of model NAME (or of a model folder) and the words it knows."""
    from shared.models import BUILTIN, card, carried_models, find_model, known_words

    for model in carried_models() if name == BUILTIN else [find_model(name, None)]:
        click.echo(f"{model.name}: {model.parameters / 1e6:.1f} M parameters in {model.folder}")
        click.echo(card(model.folder) or "It has no card (README.md).")
        words = known_words(model.folder)
        if words:
            click.echo(f"The {len(words)} words it knows:")
            click.echo(", ".join(sorted(words)))


@models.command("average")
@click.argument("first")
@click.argument("second")
@click.option("--art", type=click.Choice(["image", "music"]), help="Which builtin model.")
@click.option("--share", default=0.5, show_default=True, help="Of SECOND, from 0 to 1.")
@click.option("--out", type=FILE, required=True, help="Folder of the model that is made.")
def average(first: str, second: str, art: str | None, share: float, out: Path) -> None:
    """Average the weights of two models, such as one before and after it was trained on."""
    from shared.models import find_model

    folders = [find_model(name, art).folder for name in (first, second)]

    from shared.averaging import average_models

    average_models(folders[0], folders[1], share, out)
    click.echo(out)


@cli.group()
def data() -> None:
    """Make pictures or clips to train on."""


data.add_command(images.data_scenes)
data.add_command(music_training.data_music)


@cli.group()
def train() -> None:
    """Train the parts of a model on a captioned folder; the config's `art` says of which kind."""


training_options = all_of(
    click.option("--config", type=FILE, required=True, help="YAML file of the run."),
    click.option("--data", type=FILE, required=True, help="Captioned folder (metadata.jsonl)."),
    click.option("--out", type=FILE, required=True, help="Folder of the run."),
    click.option("--resume", is_flag=True, help="Go on from the last checkpoint in --out."),
)


@train.command("vae")
@training_options
def train_vae(config: Path, data: Path, out: Path, resume: bool) -> None:
    """Train an autoencoder: pictures or spectrograms to latents and back."""
    _trainer("vae", config)(config, data, out, resume)


@train.command("vocoder")
@training_options
def train_vocoder(config: Path, data: Path, out: Path, resume: bool) -> None:
    """Train a vocoder: spectrograms to sound."""
    _trainer("vocoder", config)(config, data, out, resume)


@train.command("diffusion")
@training_options
def train_diffusion(config: Path, data: Path, out: Path, resume: bool) -> None:
    """Train a denoiser of an autoencoder's latents, told in words what they are of."""
    _trainer("diffusion", config)(config, data, out, resume)


@train.command("adapter")
@training_options
def train_adapter(config: Path, data: Path, out: Path, resume: bool) -> None:
    """Train what lets a model of pictures take layouts and fill holes; the model stays as it is."""
    _trainer("adapter", config)(config, data, out, resume)


@train.command("upscaler")
@training_options
def train_upscaler(config: Path, data: Path, out: Path, resume: bool) -> None:
    """Train a denoiser of what pictures lack that were made larger."""
    _trainer("upscaler", config)(config, data, out, resume)


@cli.group()
def evaluate() -> None:
    """Measure how good a model is."""


evaluate.add_command(images.evaluate_image)
evaluate.add_command(evaluate_layout)
evaluate.add_command(evaluate_edit)
evaluate.add_command(upscale_commands.evaluate_upscale)
evaluate.add_command(music_evaluations.evaluate_music)
evaluate.add_command(music_evaluations.evaluate_control)


def _trainer(part: str, config: Path) -> Trainer:
    """What trains the part for the art that the config names; pictures if it names none."""
    from shared.config import read_art
    from shared.naming import choose

    arts = TRAINERS[part]
    return choose(f"art of a {part}", read_art(config, default=next(iter(arts))), arts)


if __name__ == "__main__":
    main()
