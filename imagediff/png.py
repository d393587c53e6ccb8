"""PNG files that carry what made them."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, PngImagePlugin, UnidentifiedImageError

from imagediff.edit_settings import EditSettings
from imagediff.movie_settings import AnimationSettings, BlendSettings
from imagediff.settings import Settings
from imagediff.upscale_settings import UpscaleSettings
from shared import provenance
from shared.comparison import Comparison
from shared.errors import UserError
from shared.files import whole_file

RECORD = "duotone"  # chunk with the complete JSON record
COMPARISON = "duotone-comparison"  # chunk of a sheet of several pictures
PARAMETERS = "parameters"  # chunk that other image tools read


def save_png(image: Image.Image, path: Path, settings: Settings, overwrite: bool = False) -> None:
    """Write ``image`` to ``path``, whole or not at all, with its settings in two text chunks.

    Raises:
        UserError: ``path`` exists and ``overwrite`` is false, or it cannot be written.
    """
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text(PARAMETERS, settings.parameters())  # iTXt where Latin-1 does not suffice
    chunks.add_itxt(RECORD, provenance.to_json(settings))
    with whole_file(path, overwrite) as file:
        image.save(file, format="PNG", pnginfo=chunks)


def save_comparison(
    sheet: Image.Image,
    path: Path,
    comparison: Comparison,
    first: Settings,
    overwrite: bool = False,
) -> None:
    """Write a sheet of pictures that differ in sampler and steps, with what made them inside.

    Args:
        first: the settings of the first; all have its other values.

    Raises:
        UserError: ``path`` exists and ``overwrite`` is false, or it cannot be written.
    """
    chunks = PngImagePlugin.PngInfo()
    same = {k: v for k, v in first.record().items() if k not in ("sampler", "steps")}
    chunks.add_itxt(COMPARISON, json.dumps(asdict(comparison) | same))
    with whole_file(path, overwrite) as file:
        sheet.save(file, format="PNG", pnginfo=chunks)


def open_png(path: Path) -> tuple[Image.Image, dict[str, str]]:
    """The picture at ``path``, fully read, and its text chunks.

    Raises:
        UserError: no such file, no PNG picture, or a damaged one.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.load()  # also reads chunks that stand behind the pixels
            text = {str(key): str(value) for key, value in getattr(image, "text", {}).items()}
            return image.copy(), text
    except FileNotFoundError:
        raise UserError(f"there is no file {str(path)!r}") from None
    except UnidentifiedImageError:
        raise UserError(f"{str(path)!r} is not a PNG picture") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {str(path)!r}: {reason}") from None


def read_settings(path: Path, text: dict[str, str]) -> Settings:
    """The settings in the text chunks of the picture at ``path``.

    Raises:
        UserError: it has no record of Duotone's, or a broken one.
    """
    if COMPARISON in text:
        raise UserError(
            f"{str(path)!r} is a sheet of several pictures; duotone samplers compare makes such"
        )
    if RECORD not in text:
        raise UserError(f"{str(path)!r} has no record of Duotone's, so it cannot be made again")
    return provenance.from_json(text[RECORD], _kind(text[RECORD]))


def _kind(record: str) -> type[Settings]:
    """What sort of settings a record holds; one that cannot be read is refused later."""
    try:
        task = json.loads(record).get("task")
    except (ValueError, AttributeError, RecursionError):
        return Settings
    others = {"blend": BlendSettings, "animate": AnimationSettings, "upscale": UpscaleSettings}
    return Settings if task is None else others.get(task, EditSettings)


def read_record(path: Path, text: dict[str, str]) -> dict[str, Any]:
    """Whatever the text chunks of the picture at ``path`` tell of how it was made, by any tool.

    Raises:
        UserError: nothing, or a broken record.
    """
    if RECORD in text:
        return read_settings(path, text).record()
    if COMPARISON in text:
        return json.loads(text[COMPARISON])
    if PARAMETERS in text:
        return provenance.parse_parameters(text[PARAMETERS])
    raise UserError(f"{str(path)!r} does not tell what made it (no {PARAMETERS!r} text in it)")


def difference(first: Image.Image, second: Image.Image) -> str:
    """How far the pixels of two pictures differ, in words."""
    if first.size != second.size:
        sizes = ["x".join(map(str, picture.size)) for picture in (first, second)]
        return f"differs: {sizes[0]} and {sizes[1]} pixels"
    extrema = ImageChops.difference(first.convert("RGB"), second.convert("RGB")).getextrema()
    most = max(high for _, high in extrema)  # type: ignore[misc]
    levels = "grey level" if most == 1 else "grey levels"
    return f"differs: by at most {most} {levels}" if most else "identical"
