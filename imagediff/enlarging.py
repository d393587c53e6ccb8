"""A picture of any mode made larger by an upscaler, in its own mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from imagediff.enlarged_settings import Enlarged, check_factor
from imagediff.picture_file import Picture
from imagediff.pixels import to_rgb, with_pixels
from imagediff.settings import Settings
from imagediff.shrink import enlarge
from imagediff.upscale_settings import UpscaleSettings
from imagediff.upscaler import Upscaler
from shared.errors import UserError
from shared.samplers import Callback

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # as Pillow weighs red, green and blue


def upscale(
    upscaler: Upscaler,
    picture: Picture,
    settings: UpscaleSettings,
    callback: Callback | None = None,
) -> Picture:
    """The picture made larger as the settings say; mode, profile and orientation stay.

    The alpha of LA and RGBA is made larger by the model too, as a picture in grey; where it is
    nothing or all in the bicubic enlargement, it stays so. Entries and colours that stand for
    transparent keep their place, with hard edges.

    Args:
        callback: called in each step, of which there are :func:`walked_steps`.
    """
    rgb = to_rgb(picture)
    made = upscaler.enlarge(rgb, settings, callback)
    larger = by_rule(picture, settings.factor)
    if picture.image.mode in ("LA", "RGBA"):
        alpha = picture.image.getchannel("A")
        soft = np.asarray(enlarge(alpha, settings.factor))
        if _varies(alpha):
            grey = upscaler.enlarge(alpha.convert("RGB"), settings, callback).convert("L")
            soft = np.where((soft > 0) & (soft < 255), np.asarray(grey), soft)
        image = larger.image.copy()
        image.putalpha(Image.fromarray(soft))
        larger = replace(larger, image=image)
    if picture.image.mode == "I;16":
        # Its 16 bits come from the rule; of the model, which sees 8, what it adds to the rule.
        added = _luma(made) - _luma(enlarge(rgb, settings.factor))
        levels = np.asarray(larger.image, np.float32) + 257 * added
        return replace(larger, image=Image.fromarray(levels.round().clip(0, 65535).astype("=u2")))
    return with_pixels(larger, made, np.ones((made.height, made.width), np.float32))


def made_larger(
    plan: Sequence[Settings], factor: int | None, model: str = "builtin"
) -> tuple[list[Settings], Callable[[Image.Image, Settings], Image.Image]]:
    """A plan whose pictures are made larger once they are drawn, and what does that.

    Args:
        factor: None leaves them as they are.
        model: name or folder of the upscaler.

    Raises:
        UserError: a factor, model or size that there is not, or a picture that is to be a tile.
    """
    if factor is None:
        return list(plan), lambda picture, settings: picture
    if plan[0].tile:
        raise UserError("a tile made larger has a seam; leave --tile or --upscale out")
    check_factor(factor, plan[0].size)
    upscaler = Upscaler.load(model, plan[0].device, plan[0].dtype)
    told = Enlarged(factor, upscaler.name, upscaler.hash)
    return (
        [replace(settings, upscale=told) for settings in plan],
        lambda picture, settings: upscaler(picture, factor, seed=settings.seed),
    )


def walked_steps(picture: Picture, settings: UpscaleSettings) -> int:
    """How often the callback is called."""
    twice = picture.image.mode in ("LA", "RGBA") and _varies(picture.image.getchannel("A"))
    return settings.steps * (2 if twice else 1)


def by_rule(picture: Picture, factor: int) -> Picture:
    """The picture enlarged without a model, in its own mode."""
    image = picture.image
    if image.mode == "I;16":
        levels = enlarge(Image.fromarray(np.asarray(image).astype(np.float32)), factor)
        values = np.asarray(levels).round().clip(0, 65535).astype("=u2")
        return replace(picture, image=Image.fromarray(values))
    # Entries of a palette and colours that stand for transparent must not be mixed.
    keyed = image.mode in ("1", "P") or picture.transparency is not None
    return replace(picture, image=enlarge(image, factor, "nearest" if keyed else "bicubic"))


def _varies(alpha: Image.Image) -> bool:
    low, high = np.asarray(alpha).min(), np.asarray(alpha).max()
    return bool(low != high)


def _luma(rgb: Image.Image) -> np.ndarray:
    return np.asarray(rgb, np.float32) @ LUMA
