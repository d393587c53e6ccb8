"""Picture files of people: opened as they are, edited in part, written as they came.

A picture keeps the mode of its file: what is not edited never leaves it, so that it comes out bit
for bit. PNG, TIFF, GIF and WebP are written without loss. A JPEG file is compressed again, with its
own tables and sampling; written as PNG, its pixels come out as they were.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin, UnidentifiedImageError

from imagediff.png import PARAMETERS, RECORD
from imagediff.settings import Settings
from shared import provenance
from shared.errors import UserError
from shared.files import whole_file

# What each format can hold; the first suffix is its usual one.
SUFFIXES = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
}
MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"),
    "GIF": ("1", "L", "P"),
}
LOSSLESS_TIFF = {"raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "group4"}

ORIENTATION = 0x0112  # EXIF tags
EXIF_FOLDER = 0x8769
USER_COMMENT = 0x9286
RECORD_TAG = 65000  # the first of those that TIFF 6.0 leaves to anyone

# TIFF's tags of how the pixels lie in the file; what is written says that anew.
_LAYOUT = (*range(254, 260), 262, 266, 273, 277, 278, 279, 284, 317, 320, *range(322, 326))
_LAYOUT += (338, 339, 34675)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BACK = _UPRIGHT | {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture and all that its file says beside the pixels.

    Attributes:
        image: upright, in the file's own mode.
        format: a key of :data:`SUFFIXES`.
        orientation: EXIF's number, 1 to 8, of how the file stores it.
        transparency: Pillow's: the colour, or the entries' alpha, that stand for transparent.
        icc_profile: of its colours, if it has one.
        exif: as bytes, if there is any.
        text: PNG's text chunks; of other formats, those that Duotone wrote.
        saving: arguments for Pillow that keep its resolution and compression.
    """

    image: Image.Image
    format: str
    orientation: int = 1
    transparency: int | tuple[int, ...] | bytes | None = None
    icc_profile: bytes | None = None
    exif: bytes = b""
    text: dict[str, str] = field(default_factory=dict)
    saving: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, upright."""
        return self.image.size


def open_picture(path: Path) -> Picture:
    """The picture at ``path``, fully read and upright.

    Raises:
        UserError: no such file, no picture that can be written again, several pictures in one file,
            or a damaged one.
    """
    with _opened(path) as image:
        _refuse_others(path, image)
        orientation = image.getexif().get(ORIENTATION, 1)  # Pillow turns TIFF by itself
        image.load()  # also reads chunks that stand behind the pixels
        return _read(image, orientation)


@contextmanager
def _opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    try:
        # By its name Pillow would map the file, and get turned TIFF wrong that is not compressed.
        with path.open("rb") as file, Image.open(file, formats=list(SUFFIXES)) as image:
            yield image
    except FileNotFoundError:
        raise UserError(f"there is no file {str(path)!r}") from None
    except UnidentifiedImageError:
        kinds = ", ".join(SUFFIXES)
        raise UserError(f"{str(path)!r} is no picture that can be read: {kinds}") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {str(path)!r}: {reason}") from None


def read_text(path: Path) -> dict[str, str]:
    """What the file says of how it was made, be it one picture or several.

    Raises:
        UserError: no such file, no picture, or a damaged one.
    """
    with _opened(path) as image:
        image.load()
        text = {str(key): str(value) for key, value in getattr(image, "text", {}).items()}
        return text | _own_text(image, image.getexif())


def save_picture(
    picture: Picture, path: Path, settings: Settings | None, overwrite: bool = False
) -> None:
    """Write ``picture`` in the format of ``path``'s suffix, whole or not at all.

    Args:
        settings: what made it, written into the file.

    Raises:
        UserError: the format does not hold pictures of this mode, ``path`` exists and ``overwrite``
            is false, or it cannot be written.
    """
    format = check_format(picture, path)
    image = picture.image
    arguments: dict[str, Any] = dict(picture.saving) if format == picture.format else {}
    if picture.icc_profile is not None:
        arguments["icc_profile"] = picture.icc_profile
    if picture.transparency is not None:
        arguments["transparency"] = picture.transparency
    text = {key: value for key, value in picture.text.items() if key not in (RECORD, PARAMETERS)}
    if settings is not None:
        text |= {PARAMETERS: settings.parameters(), RECORD: provenance.to_json(settings)}
    if format == "GIF":
        if RECORD in text:
            arguments["comment"] = text[RECORD].encode()
    else:
        image = image.transpose(_BACK[picture.orientation]) if picture.orientation > 1 else image
        if format == "PNG":
            arguments["pnginfo"] = _chunks(picture, text)
            if picture.exif:
                arguments["exif"] = picture.exif
        else:
            arguments["exif"] = exif_of(text, picture.exif, picture.orientation)
    if format == "WEBP":
        arguments |= {"lossless": True, "exact": True}
    with whole_file(path, overwrite) as file:
        image.save(file, format=format, **arguments)


def check_format(picture: Picture, path: Path) -> str:
    """The format of ``path``'s suffix.

    Raises:
        UserError: it does not hold pictures of this mode.
    """
    suffix = path.suffix.lower()
    format = next((name for name, suffixes in SUFFIXES.items() if suffix in suffixes), None)
    mode = picture.image.mode
    if format is not None and mode in MODES[format]:
        return format
    allowed = [SUFFIXES[name][0] for name, modes in MODES.items() if mode in modes]
    raise UserError(f"{str(path)!r} cannot hold a picture of mode {mode}; one of {allowed} can")


def suffixes_for(file: Path) -> list[str]:
    """All suffixes that can be written, that of ``file`` first."""
    known = [suffix for suffixes in SUFFIXES.values() for suffix in suffixes]
    return sorted(known, key=lambda suffix: suffix != file.suffix.lower())


def _refuse_others(path: Path, image: ImageFile.ImageFile) -> None:
    pictures = getattr(image, "n_frames", 1)
    if pictures > 1 and image.format != "MPO":  # cameras' JPEG with previews behind it
        raise UserError(
            f"{str(path)!r} is animated or has pages ({pictures} pictures); a single one is needed"
        )
    modes = MODES["JPEG" if image.format == "MPO" else str(image.format)]
    deep = any(
        isinstance(tile.args, str | tuple) and ";16" in str(tile.args) for tile in image.tile
    )
    if deep and not image.mode.startswith("I;16"):
        raise UserError(
            f"{str(path)!r} has 16 bits a channel in colour; colour is edited in 8 bits only, "
            "16 are kept in greyscale"
        )
    if image.mode.split(";16")[0] + ";16" * (";16" in image.mode) not in modes:
        raise UserError(
            f"{str(path)!r} has pixels of mode {image.mode}, which are not edited; "
            f"a {image.format} file can have {', '.join(modes)}"
        )


def _read(image: Image.Image, orientation: int) -> Picture:
    format = "JPEG" if image.format == "MPO" else str(image.format)
    info, exif = image.info, image.getexif()
    orientation = orientation if orientation in _UPRIGHT else 1
    saving: dict[str, Any] = {key: info[key] for key in ("dpi",) if key in info}
    text = {str(key): str(value) for key, value in getattr(image, "text", {}).items()}
    text |= _own_text(image, exif)
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        saving["qtables"] = image.quantization
        sampling = JpegImagePlugin.get_sampling(image)
        if sampling >= 0:
            saving["subsampling"] = sampling
        saving |= {key: True for key in ("progressive",) if info.get(key)}
    elif format == "TIFF":
        compression = info.get("compression")
        saving["compression"] = compression if compression in LOSSLESS_TIFF else "tiff_deflate"
        for tag in _LAYOUT:
            exif.pop(tag, None)
    elif format == "PNG":
        saving |= {key: info[key] for key in ("gamma", "srgb") if key in info}
    if "xmp" in info and format in ("JPEG", "WEBP"):
        saving["xmp"] = info["xmp"]
    turned = orientation == 1 or format == "TIFF"
    upright = image.copy() if turned else image.transpose(_UPRIGHT[orientation])
    upright.info = {}  # what Pillow would write by itself
    if upright.mode.startswith("I;16"):
        upright = _native_16(upright)
    return Picture(
        image=upright,
        format=format,
        orientation=orientation,
        transparency=info.get("transparency"),
        icc_profile=info.get("icc_profile"),
        exif=info.get("exif", b"") if format != "TIFF" else exif.tobytes(),
        text=text,
        saving=saving,
    )


def _native_16(image: Image.Image) -> Image.Image:
    """Mode I;16 whatever the byte order in the file."""
    import numpy as np

    return image if image.mode == "I;16" else Image.fromarray(np.asarray(image).astype("=u2"))


def _own_text(image: Image.Image, exif: Image.Exif) -> dict[str, str]:
    """Record and `parameters` where formats other than PNG hold them."""
    text = {}
    comment = image.info.get("comment")
    record = exif.get(RECORD_TAG)
    if image.format == "GIF" and isinstance(comment, bytes) and comment.startswith(b"{"):
        record = comment.decode("utf-8", "replace")
    if isinstance(record, str):
        text[RECORD] = record
    parameters = exif.get_ifd(EXIF_FOLDER).get(USER_COMMENT)
    if isinstance(parameters, bytes) and parameters.startswith(b"UNICODE\0"):
        text[PARAMETERS] = parameters[8:].decode("utf-16-be", "replace")
    return text


def exif_of(text: dict[str, str], kept: bytes = b"", orientation: int = 1) -> Image.Exif:
    """EXIF with the record and the `parameters`, beside what is kept."""
    exif = Image.Exif()
    exif.load(kept)
    if orientation > 1:
        exif[ORIENTATION] = orientation
    if RECORD in text:
        exif[RECORD_TAG] = text[RECORD]
        # As other tools write their `parameters` where there are no text chunks.
        comment = b"UNICODE\0" + text[PARAMETERS].encode("utf-16-be", "replace")
        exif.get_ifd(EXIF_FOLDER)[USER_COMMENT] = comment
    return exif


def _chunks(picture: Picture, text: dict[str, str]) -> PngImagePlugin.PngInfo:
    chunks = PngImagePlugin.PngInfo()
    if "gamma" in picture.saving:  # Pillow reads these but does not write them
        chunks.add(b"gAMA", struct.pack(">I", round(picture.saving["gamma"] * 100_000)))
    if "srgb" in picture.saving and picture.icc_profile is None:
        chunks.add(b"sRGB", bytes([picture.saving["srgb"]]))
    for key, value in text.items():
        if key == RECORD:
            chunks.add_itxt(key, value)
        else:
            chunks.add_text(key, value)
    return chunks
