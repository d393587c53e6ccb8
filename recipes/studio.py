"""What the recipes for sound and pictures have in common: options, models, files, how they end."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from shared.errors import UserError
from shared.files import folder_paths, whole_file

if TYPE_CHECKING:
    from audiodiff import MusicPipeline
    from audiodiff.loop_points import LoopPoints
    from imagediff import ImagePipeline
    from imagediff.upscaler import Upscaler
    from shared.samplers import Callback
    from shared.settings import SampleSettings

Figures = dict[str, float]
"""What a recipe measured of what it made, name -> number."""

QUICK_STEPS = 3


def parser(file: str, doc: str | None, *arts: str) -> ArgumentParser:
    """The options that every recipe has; ``arts`` are the models it takes, "music", "image"
    and "upscale"."""
    name = Path(file).stem
    made = ArgumentParser(prog=Path(file).name, description=(doc or "").splitlines()[0])
    default = Path("runs/recipes") / name
    made.add_argument("--out", type=Path, default=default, help=f"folder (default: {default})")
    made.add_argument("--seed", type=int, default=0, help="of the first sample")
    made.add_argument("--steps", type=int, default=25, help="sampling steps (default: 25)")
    made.add_argument("--quick", action="store_true", help="a few steps, a moment; a poor result")
    made.add_argument("--overwrite", action="store_true", help="replace files that exist")
    for art in arts:
        model = f"--{art}-model"
        made.add_argument(model, default="builtin", help="name or folder of a model")
    return made


def read(parser: ArgumentParser, argv: Sequence[str] | None) -> Namespace:
    """The options as they were given; ``--quick`` says how many steps there are."""
    given = parser.parse_args(argv)
    if given.quick:
        given.steps = min(given.steps, QUICK_STEPS)
    return given


def files(given: Namespace, *names: str) -> list[Path]:
    """The paths of the files to be made, checked before anything is computed.

    Raises:
        UserError: one exists and ``--overwrite`` was not given, or the folder cannot be written.
    """
    try:
        given.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make folder {str(given.out)!r}: {error.strerror}") from None
    return folder_paths(given.out, names, given.overwrite)


@cache
def music(model: str) -> MusicPipeline:
    """A music model, loaded once."""
    from audiodiff import MusicPipeline

    return MusicPipeline.load(model)


@cache
def pictures(model: str) -> ImagePipeline:
    """A picture model, loaded once."""
    from imagediff import ImagePipeline

    return ImagePipeline.load(model)


@cache
def upscaler(model: str) -> Upscaler:
    """An upscaler, loaded once."""
    from imagediff.upscaler import Upscaler

    return Upscaler.load(model)


@contextmanager
def watched(steps: int) -> Iterator[Callback]:
    """A progress bar on stderr; what it gives is the callback of a sampler."""
    from tqdm import tqdm

    with tqdm(total=steps, unit="step", leave=False, dynamic_ncols=True) as bar:

        def tick(*_: object) -> None:
            bar.update()

        yield tick


def save_sound(
    path: Path,
    samples: np.ndarray,
    rate: int,
    made: str,
    of: Iterable[SampleSettings] = (),
    loop: LoopPoints | None = None,
) -> None:
    """Write a sound (c s) with a comment that tells how it was ``made``, ``of`` which samples.

    Samplers and other programs play a ``loop`` over and over.

    What a model made as it is has a record instead, and can be replayed: ``Clip.save``.
    """
    from audiodiff.audio_file import Tags, write_audio

    write_audio(path, samples, rate, Tags(comment=_told(made, of), loop=loop), overwrite=True)


def save_picture(
    path: Path, picture: Image.Image, made: str, of: Iterable[SampleSettings] = (), colours: int = 0
) -> None:
    """Write a PNG that tells how it was ``made``, ``of`` which samples: it is no single one.

    With ``colours`` it has a palette of so many.
    """
    from imagediff.png import PARAMETERS

    chunks = PngInfo()
    chunks.add_text(PARAMETERS, _told(made, of))
    if colours:
        picture = picture.convert("RGB").quantize(colours, dither=Image.Dither.NONE)
    with whole_file(path, overwrite=True) as file:
        picture.save(file, format="PNG", pnginfo=chunks, optimize=True)


def save_spectrograms(
    path: Path, sounds: Sequence[tuple[str, np.ndarray]], rate: int, columns: int = 1
) -> None:
    """Write the spectrograms of sounds (c s), each under its caption, as one picture."""
    from audiodiff.plot import draw_spectrogram, stack

    drawn = [draw_spectrogram(samples, rate, caption) for caption, samples in sounds]
    save_picture(path, stack(drawn, columns), "spectrograms", colours=64)


def _told(made: str, of: Iterable[SampleSettings]) -> str:
    return "\n\n".join([made, *(settings.parameters() for settings in of)])


def finish(paths: Sequence[Path], figures: Figures) -> Figures:
    """Tell the figures (stderr) and the paths (stdout)."""
    for name, value in figures.items():
        print(f"{name}: {value:.4g}", file=sys.stderr)
    print(*paths, sep="\n")
    return figures


def run(main: Callable[[], Figures]) -> None:
    """Run a recipe's ``main``; bad input ends it with one line and exit code 2, Ctrl-C with 130."""
    try:
        main()
    except UserError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
