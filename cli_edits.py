"""The verbs that edit what a file holds; the kind of file says which art does it."""

from pathlib import Path

import click

from audiodiff import edit_commands as clips
from audiodiff.edit_settings import REGENERATE, guidance_scale_of
from imagediff import edit_commands as pictures
from imagediff import movie_commands as movies
from imagediff.settings import DEFAULT_GUIDANCE_SCALE as PICTURES_SCALE
from shared.console import (
    FILE,
    Evaluating,
    Making,
    all_of,
    evaluating_options,
    fill_options,
    making_options,
    refuse_for,
)
from shared.edit_settings import FillSettings, inverted_prompt
from shared.errors import UserError

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


def _scales(task: str) -> str:
    return f"{PICTURES_SCALE:g} for pictures, {guidance_scale_of(task):g} for clips"


FILLING = _scales("inpaint")
span_option = click.option("--span", metavar="S:E", help="Clips: which part, in seconds.")
prompt_option = click.option("--prompt", help="By default what FILE's own record says, if any.")
noise_option = click.option(
    "--noise",
    default=REGENERATE,
    show_default=True,
    help="Clips: share of noise that the part begins with, 0 to below 1.",
)
like_option = click.option("--like", type=FILE, help="Clips: a recording to sound like.")
work_side_option = click.option(
    "--work-side",
    type=click.IntRange(min=1),
    metavar="PX",
    help="Pictures: shorter side at which the model sees one; by default its own.",
)
strength_option = click.option(
    "--strength", default=0.6, show_default=True, help="0 keeps FILE, 1 keeps nothing of it."
)


@click.command()
@click.argument("file", type=FILE)
@click.argument("prompt", required=False)
@all_of(strength_option, like_option, span_option, work_side_option)
@click.option(
    "--invert",
    is_flag=True,
    help="Begin with the noise that FILE comes from (DDIM inversion), not with the seed's.",
)
@click.option(
    "--source-prompt", help="What --invert takes FILE for; by default what its record says, if any."
)
@making_options(_scales("restyle"))
def restyle(
    file: Path,
    prompt: str | None,
    strength: float,
    like: Path | None,
    span: str | None,
    work_side: int | None,
    invert: bool,
    source_prompt: str | None,
    making: Making,
) -> None:
    """Make PROMPT of the picture or clip FILE, keeping what the strength leaves of it."""
    source = inverted_prompt(invert, source_prompt, making.count)
    if is_sound(file):
        refuse_for("clips", "work_side")
        clips.restyle(file, prompt, like, span, strength, source, making)
    else:
        refuse_for("pictures", "like", "span")
        pictures.restyle(file, _needed(prompt), strength, source, work_side, making)


@click.command()
@click.argument("file", type=FILE)
@all_of(prompt_option, strength_option, span_option, noise_option, work_side_option)
@making_options(FILLING)
def vary(
    file: Path,
    prompt: str | None,
    strength: float,
    span: str | None,
    noise: float,
    work_side: int | None,
    making: Making,
) -> None:
    """Make others like the picture FILE, or a part of the clip FILE in another way."""
    if is_sound(file):
        refuse_for("clips", "work_side", "strength")
        clips.vary(file, prompt, span, noise, making)
    else:
        refuse_for("pictures", "span", "noise")
        pictures.vary(file, prompt, strength, work_side, making)


@click.command()
@click.argument("file", type=FILE)
@click.argument("prompt", required=False)
@span_option
@click.option("--mask", type=FILE, help="Pictures: one of the same size, white where to fill.")
@click.option("--box", metavar="X,Y,W,H", help="Pictures: what to fill, from the top left.")
@click.option(
    "--strength", default=1.0, show_default=True, help="Pictures: below 1 keeps some of it."
)
@click.option("--opaque", is_flag=True, help="Pictures: what is filled shows, if transparent.")
@all_of(fill_options, making_options(FILLING))
def inpaint(
    file: Path,
    prompt: str | None,
    span: str | None,
    mask: Path | None,
    box: str | None,
    strength: float,
    opaque: bool,
    feather: int,
    fill: FillSettings,
    making: Making,
) -> None:
    """Fill a part of the picture or clip FILE with PROMPT; the rest stays as it is."""
    if is_sound(file):
        refuse_for("clips", "mask", "box", "strength", "opaque", "feather")
        clips.inpaint(file, prompt, span, fill, making)
    else:
        refuse_for("pictures", "span")
        text = _needed(prompt)
        pictures.inpaint(file, text, mask, box, strength, opaque, feather, fill, making)


@click.command()
@click.argument("file", type=FILE)
@prompt_option
@click.option("--seconds", type=float, help="Clips: how much to add.")
@click.option("--before", is_flag=True, help="Clips: before FILE and not after it.")
@click.option("--left", default=0, metavar="PX", help="Pictures: pixels to add at the left.")
@click.option("--right", default=0, metavar="PX", help="At the right.")
@click.option("--top", default=0, metavar="PX", help="At the top.")
@click.option("--bottom", default=0, metavar="PX", help="At the bottom.")
@all_of(fill_options, making_options(FILLING))
def extend(
    file: Path,
    prompt: str | None,
    seconds: float | None,
    before: bool,
    left: int,
    right: int,
    top: int,
    bottom: int,
    feather: int,
    fill: FillSettings,
    making: Making,
) -> None:
    """Draw what lies beside the picture FILE, or play on after the clip FILE or before it."""
    if is_sound(file):
        refuse_for("clips", "left", "right", "top", "bottom", "feather")
        clips.extend(file, prompt, seconds, before, fill, making)
    else:
        refuse_for("pictures", "seconds", "before")
        pictures.extend(file, prompt, (left, top, right, bottom), feather, fill, making)


@click.command()
@click.argument("first", type=FILE)
@click.argument("second", type=FILE)
@click.option(
    "--steps",
    "frames",
    default=8,
    show_default=True,
    help="Pictures: how many, both ends included.",
)
@click.option("--prompt", help="What FIRST is; by default what its own record says, if any.")
@click.option("--to-prompt", help="Pictures: what SECOND shows; likewise.")
@click.option(
    "--strength", default=0.2, show_default=True, help="Pictures: of the change in the middle."
)
@click.option("--fps", default=8.0, show_default=True, help="Pictures a second of a movie.")
@click.option(
    "--overlap",
    default=2.5,
    show_default=True,
    help="Clips: seconds in which one becomes the other.",
)
@all_of(noise_option, making_options(FILLING, "--sampling-steps"))
def blend(
    first: Path,
    second: Path,
    frames: int,
    prompt: str | None,
    to_prompt: str | None,
    strength: float,
    fps: float,
    overlap: float,
    noise: float,
    making: Making,
) -> None:
    """Lead from the clip FIRST to SECOND, or go from one picture to another.

    Clips stay as they are outside the overlap. Of pictures come a sheet (.png), or a .gif, .webp or
    .mp4 file.
    """
    if is_sound(first) != is_sound(second):
        raise UserError("blend takes two clips or two pictures, not one of each")
    if is_sound(first):
        refuse_for("clips, whose sampling steps are --sampling-steps", "frames")
        refuse_for("clips", "to_prompt", "strength", "fps")
        clips.blend(first, second, prompt, overlap, noise, making)
    else:
        refuse_for("pictures", "overlap", "noise")
        movies.blend(first, second, frames, (prompt, to_prompt), strength, fps, making)


@click.command()
@click.argument("script", type=FILE)
@making_options(PICTURES_SCALE)
def animate(script: Path, making: Making) -> None:
    """Make a .mp4, .gif or .webp file of the keyframes in SCRIPT (YAML or JSON).

    SCRIPT holds `fps`, `size` and `keyframes`, each with `at` (seconds), `prompt`, `seed` and
    `ease` (linear, in, out, in-out, hold).
    """
    movies.animate(script, making)


VERBS = (restyle, vary, inpaint, extend, blend, animate)


@click.command("edit")
@click.option("--art", type=click.Choice(["image", "music"]), default="image", show_default=True)
@evaluating_options(FILLING)
def evaluate_edit(art: str, evaluating: Evaluating) -> None:
    """Make hidden parts of real pictures or clips anew and print how well that goes."""
    kinds = {"image": pictures.evaluate, "music": clips.evaluate}
    kinds[art](evaluating)


def is_sound(file: Path) -> bool:
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


def _needed(prompt: str | None) -> str:
    if prompt is None:
        raise UserError("a PROMPT is needed: say what to draw")
    return prompt
