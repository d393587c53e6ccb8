"""The command line: what both arts share, and where their own commands are hung in."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import click

from audiodiff import commands as audio
from imagediff import commands as images
from imagediff import edit_commands as pictures
from imagediff import movie_commands as movies
from shared.console import (
    DEVICES,
    DTYPES,
    FILE,
    Making,
    all_of,
    fill_options,
    making_options,
    overwrite_option,
    say,
)
from shared.edit_settings import FillSettings
from shared.errors import UserError
from shared.sampler_commands import Comparing, comparing_options, samplers

Trainer = Callable[[Path, Path, Path, bool], None]

TRAINERS: dict[str, dict[str, Trainer]] = {
    "vae": {"image": images.train_vae, "music": audio.train_vae},
    "vocoder": {"music": audio.train_vocoder},
    "diffusion": {"image": images.train_diffusion, "music": audio.train_diffusion},
}

# How files of pictures begin: PNG, JPEG, GIF, TIFF of both byte orders.
_PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\x00", b"MM\x00*")
# How files of sound begin: WAV and its kin, FLAC, Ogg, MP3 with a tag and without, AIFF.
_SOUND = (
    b"RIFF",
    b"RF64",
    b"fLaC",
    b"OggS",
    b"ID3",
    b"\xff\xfb",
    b"\xff\xf3",
    b"\xff\xf2",
    b"FORM",
)
_PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".tif", ".tiff", ".mp4")


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


cli.add_command(images.image)
cli.add_command(audio.music)


@cli.command()
@click.argument("file", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
@click.option("--plot", type=FILE, help="A .png file for the spectrogram of a recording.")
@overwrite_option
def info(file: Path, as_json: bool, plot: Path | None, overwrite: bool) -> None:
    """Show what made the picture or recording FILE, and what a recording sounds like."""
    if _is_sound(file):
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
    art = audio if _is_sound(file) else images
    art.replay(file, output, model, device, dtype, overwrite)


strength_option = click.option(
    "--strength", default=0.6, show_default=True, help="0 keeps FILE, 1 keeps nothing of it."
)
work_side_option = click.option(
    "--work-side",
    type=click.IntRange(min=1),
    metavar="PX",
    help="Shorter side at which the model sees a picture; by default its own.",
)


@cli.command()
@click.argument("file", type=FILE)
@click.argument("prompt")
@all_of(strength_option, work_side_option, making_options())
def restyle(
    file: Path, prompt: str, strength: float, work_side: int | None, making: Making
) -> None:
    """Make PROMPT of the picture FILE, keeping what the strength leaves of it."""
    _need_picture(file, "restyle")
    pictures.restyle(file, prompt, strength, work_side, making)


@cli.command()
@click.argument("file", type=FILE)
@click.option("--prompt", help="What it shows; by default what its own record says, if any.")
@all_of(strength_option, work_side_option, making_options())
def vary(
    file: Path, prompt: str | None, strength: float, work_side: int | None, making: Making
) -> None:
    """Make others like the picture FILE."""
    _need_picture(file, "vary")
    pictures.vary(file, prompt, strength, work_side, making)


@cli.command()
@click.argument("file", type=FILE)
@click.argument("prompt")
@click.option("--mask", type=FILE, help="A picture of the same size, white where to fill.")
@click.option("--box", metavar="X,Y,W,H", help="What to fill, in pixels from the top left.")
@click.option(
    "--strength", default=1.0, show_default=True, help="Below 1 keeps some of what was there."
)
@click.option("--opaque", is_flag=True, help="What is filled shows, where FILE is transparent.")
@all_of(fill_options, making_options())
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
    """Fill a part of the picture FILE with PROMPT; the rest stays as it is."""
    _need_picture(file, "inpaint")
    pictures.inpaint(file, prompt, mask, box, strength, opaque, feather, fill, making)


@cli.command()
@click.argument("file", type=FILE)
@click.option("--prompt", help="What it shows; by default what its own record says, if any.")
@click.option("--left", default=0, metavar="PX", help="Pixels to add at the left.")
@click.option("--right", default=0, metavar="PX", help="At the right.")
@click.option("--top", default=0, metavar="PX", help="At the top.")
@click.option("--bottom", default=0, metavar="PX", help="At the bottom.")
@all_of(fill_options, making_options())
def extend(
    file: Path,
    prompt: str | None,
    left: int,
    right: int,
    top: int,
    bottom: int,
    feather: int,
    fill: FillSettings,
    making: Making,
) -> None:
    """Make the picture FILE larger and draw what lies beside it."""
    _need_picture(file, "extend")
    pictures.extend(file, prompt, (left, top, right, bottom), feather, fill, making)


@cli.command()
@click.argument("first", type=FILE)
@click.argument("second", type=FILE)
@click.option(
    "--steps", "frames", default=8, show_default=True, help="Pictures, both ends included."
)
@click.option("--prompt", help="What FIRST shows; by default what its own record says, if any.")
@click.option("--to-prompt", help="What SECOND shows; likewise.")
@click.option("--strength", default=0.6, show_default=True, help="Of the change in the middle.")
@click.option("--fps", default=8.0, show_default=True, help="Pictures a second of a movie.")
@making_options("--sampling-steps")
def blend(
    first: Path,
    second: Path,
    frames: int,
    prompt: str | None,
    to_prompt: str | None,
    strength: float,
    fps: float,
    making: Making,
) -> None:
    """Go from the picture FIRST to SECOND: a sheet (.png), or a .gif, .webp or .mp4 file."""
    for file in (first, second):
        _need_picture(file, "blend")
    movies.blend(first, second, frames, (prompt, to_prompt), strength, fps, making)


@cli.command()
@click.argument("script", type=FILE)
@making_options()
def animate(script: Path, making: Making) -> None:
    """Make a .mp4, .gif or .webp file of the keyframes in SCRIPT (YAML or JSON).

    SCRIPT holds `fps`, `size` and `keyframes`, each with `at` (seconds), `prompt`, `seed` and
    `ease` (linear, in, out, in-out, hold).
    """
    movies.animate(script, making)


cli.add_command(samplers)


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
        size = f"{model.size_bytes / 2**20:,.0f} MiB"
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


@cli.group()
def data() -> None:
    """Make pictures or clips to train on."""


data.add_command(images.data_scenes)
data.add_command(audio.data_music)


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


@cli.group()
def evaluate() -> None:
    """Measure how good a model is."""


evaluate.add_command(images.evaluate_image)
evaluate.add_command(audio.evaluate_music)


def _trainer(part: str, config: Path) -> Trainer:
    """What trains the part for the art that the config names; pictures if it names none."""
    from shared.config import read_art
    from shared.naming import choose

    arts = TRAINERS[part]
    return choose(f"art of a {part}", read_art(config, default=next(iter(arts))), arts)


def _is_sound(file: Path) -> bool:
    """Whether a file is sound rather than a picture, by its first bytes, else by its name.

    Whether it can be read is for those to say who read it.
    """
    try:
        with file.open("rb") as opened:
            head = opened.read(12)
    except (OSError, ValueError):  # not there, a folder, ...: told when it is opened to be read
        head = b""
    if head.startswith(_PICTURES) or (head[:4], head[8:]) == (b"RIFF", b"WEBP"):
        return False
    if head.startswith(_SOUND):
        return True
    return file.suffix.lower() not in ("", *_PICTURE_SUFFIXES)


def _need_picture(file: Path, verb: str) -> None:
    if _is_sound(file):
        raise UserError(f"{verb} takes a picture, and {str(file)!r} is none")


if __name__ == "__main__":
    main()
