"""Between a picture's own pixels, of any mode, and the RGB that a model sees."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from PIL import Image, ImageCms

from imagediff.picture_file import Picture

SOLID = 1 / 8  # a pixel that shows less than this tells too little of its colour


def to_rgb(picture: Picture) -> Image.Image:
    """The picture as it shows on white, in sRGB."""
    colour, alpha = _parts(picture)
    if colour.mode == "I;16":
        rgb = Image.fromarray(np.rint(np.asarray(colour) / 257).astype(np.uint8)).convert("RGB")
    else:
        rgb = _to_srgb(colour, picture.icc_profile)
    if alpha is None:
        return rgb
    return Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)


def with_pixels(
    picture: Picture, rgb: Image.Image, weight: np.ndarray, opaque: bool = False
) -> Picture:
    """The picture with new pixels, in its own mode.

    Args:
        rgb: of the picture's size, in sRGB, as it should show on white.
        weight: (h w), 0 where the picture stays as it is, bit for bit; 1 where it is replaced; in
            between the two are blended. Pixels that do not show stay as well, unless ``opaque``.
        opaque: whether what is replaced stops being transparent; else the alpha stays.
    """
    colour, alpha = _parts(picture)
    shows = None if alpha is None else np.asarray(alpha)  # h w
    if shows is not None and not opaque:
        rgb = _beneath(rgb, shows)
        # A palette's colours cannot be given an alpha of their own.
        weight = np.where(shows >= (255 if picture.image.mode == "P" else 1), weight, 0)
    share = weight[..., None].astype(np.float32)
    old = _channels(colour)
    new = _channels(_as_mode(colour, rgb, picture.icc_profile))
    values = np.where(share > 0, np.rint(old + share * (new.astype(np.float32) - old)), old)
    values = values.astype(old.dtype)
    if picture.image.mode == "P":
        return _with_palette(picture, values, weight > 0)
    if picture.transparency is not None:
        # What was painted must not happen to have the colour that stands for transparent.
        hit = (values == np.asarray(picture.transparency)).all(-1) & (weight > 0)
        values[hit, 0] ^= 1
    colours = Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)
    if colour.mode == "CMYK":
        colours = Image.frombytes("CMYK", colour.size, values.tobytes())
    if picture.image.mode == "1":
        black = np.where(weight > 0, np.asarray(colours.convert("1")), np.asarray(picture.image))
        return replace(picture, image=Image.fromarray(black))
    if picture.image.mode in ("LA", "RGBA") and shows is not None:
        if opaque:
            shows = np.where(weight > 0, np.rint(shows + weight * (255.0 - shows)), shows)
        mask = Image.fromarray(shows.astype(np.uint8))
        colours = Image.merge(picture.image.mode, [*colours.split(), mask])
    return replace(picture, image=colours)


def _parts(picture: Picture) -> tuple[Image.Image, Image.Image | None]:
    """Colour in mode L, RGB, CMYK or I;16, and the alpha in mode L where there is any."""
    image = picture.image
    if image.mode == "1":
        return image.convert("L"), None
    if image.mode in ("LA", "RGBA"):
        *bands, alpha = image.split()
        return Image.merge(image.mode[:-1], bands), alpha
    alpha = None
    if picture.transparency is not None and image.mode in ("P", "L", "RGB"):
        keyed = image.copy()
        keyed.info["transparency"] = picture.transparency
        alpha = keyed.convert("RGBA").getchannel("A")
    return (image.convert("RGB") if image.mode == "P" else image), alpha


def _channels(colour: Image.Image) -> np.ndarray:
    """(h w c)"""
    values = np.asarray(colour)
    return values if values.ndim == 3 else values[..., None]


def _as_mode(colour: Image.Image, rgb: Image.Image, profile: bytes | None) -> Image.Image:
    """sRGB pixels in the mode and by the profile of ``colour``."""
    if colour.mode == "I;16":
        luma = np.asarray(rgb, np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        return Image.fromarray(np.rint(luma * 257).clip(0, 65535).astype(np.uint16))
    return _convert(rgb, None, profile, colour.mode) or rgb.convert(colour.mode)


def _to_srgb(colour: Image.Image, profile: bytes | None) -> Image.Image:
    return _convert(colour, profile, None, "RGB") or colour.convert("RGB")


def _convert(
    image: Image.Image, source: bytes | None, target: bytes | None, mode: str
) -> Image.Image | None:
    """Between two profiles, None for sRGB; None if both are, or one does not fit its mode."""
    if source is None and target is None:
        return None
    try:
        return ImageCms.profileToProfile(image, _profile(source), _profile(target), outputMode=mode)
    except (ImageCms.PyCMSError, OSError):
        return None  # a broken profile, or one of another kind of colour: kept but not obeyed


def _profile(data: bytes | None) -> ImageCms.ImageCmsProfile:
    source = io.BytesIO(data) if data is not None else ImageCms.createProfile("sRGB")
    return ImageCms.ImageCmsProfile(source)


def _beneath(rgb: Image.Image, shows: np.ndarray) -> Image.Image:
    """The colours that show as ``rgb`` on white where alpha lets only a part of them through."""
    share = shows[..., None].astype(np.float32) / 255
    seen = np.asarray(rgb, np.float32)
    own = (seen - 255 * (1 - share)) / np.maximum(share, SOLID)
    return Image.fromarray(np.where(share < SOLID, seen, own).round().clip(0, 255).astype(np.uint8))


def _with_palette(picture: Picture, values: np.ndarray, edited: np.ndarray) -> Picture:
    """Colours (h w 3) where edited, from the palette and what is free in it."""
    image = picture.image
    if not edited.any():
        return picture
    indices = np.asarray(image).copy()
    palette = np.zeros((256, 3), np.uint8)
    entries = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    palette[: len(entries)] = entries
    clear = _clear_entries(picture.transparency)
    used = set(np.unique(indices[~edited]).tolist())
    free = [index for index in range(256) if index not in used | clear]
    row = Image.fromarray(values[edited][None])  # 1 n 3
    if free:
        wanted = row.quantize(len(free), dither=Image.Dither.NONE)
        colours = np.array(wanted.getpalette("RGB"), np.uint8).reshape(-1, 3)[: len(free)]
        free = free[: len(colours)]
        palette[free] = colours
    usable = sorted(used - clear | set(free))
    chooser = Image.new("P", (1, 1))
    chooser.putpalette(palette[usable].tobytes())
    nearest = np.asarray(row.quantize(palette=chooser, dither=Image.Dither.NONE))[0]
    indices[edited] = np.array(usable, np.uint8)[nearest.clip(max=len(usable) - 1)]
    edited_image = Image.frombytes("P", image.size, indices.tobytes())
    edited_image.putpalette(palette[: max(len(entries), max(usable) + 1)].tobytes())
    return replace(picture, image=edited_image)


def _clear_entries(transparency: int | tuple[int, ...] | bytes | None) -> set[int]:
    """The palette's entries that are not wholly opaque."""
    if isinstance(transparency, int):
        return {transparency}
    if isinstance(transparency, bytes):
        return {index for index, alpha in enumerate(transparency) if alpha < 255}
    return set()
