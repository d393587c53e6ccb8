"""The way of an edited picture: what the model is to see of it, and what comes back into it.

The model works on a part of the picture, at a size that it knows: :class:`Part`. What it makes is
pasted back in the picture's own mode, with a blended border, and the rest stays bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from torch import Tensor

from imagediff.edit_settings import Box, Edit, EditSettings
from imagediff.picture_file import Picture
from imagediff.pipeline import LARGEST, ImagePipeline
from imagediff.pixels import to_rgb, with_pixels
from imagediff.sheets import from_pil
from shared.editing import FILLINGS, Known, fill, fill_steps
from shared.errors import UserError
from shared.generation import Start, inverted_noise, of_source, sample_latents
from shared.naming import choose
from shared.pipelines import batches
from shared.samplers import Callback

CONTEXT = 0.5  # of what is filled: how much the model sees around it on each side, at least


@dataclass(frozen=True)
class Part:
    """A part of a picture and the size at which the model works on it.

    Attributes:
        box: left, top, right, bottom in the picture.
        size: width and height for the model.
    """

    box: tuple[int, int, int, int]
    size: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Job:
    """A picture, what of it is to be replaced, and the part that the model works on.

    Attributes:
        picture: as it was, already with the margins that are to be filled.
        free: bool (h w), true where it is replaced; None for all of it.
        part: what the model sees.
    """

    picture: Picture
    free: np.ndarray | None
    part: Part


def whole(pipeline: ImagePipeline, size: tuple[int, int], side: int) -> Part:
    """All of a picture, its shorter side at ``side`` pixels for the model."""
    return Part((0, 0, *size), _sizes(pipeline, size, side / min(size)))


def around(pipeline: ImagePipeline, free: np.ndarray) -> Part:
    """A window around what is free in (h w): of the model's own size, or what shrinks to that."""
    left, top, right, bottom = _bounds(free)
    height, width = free.shape
    longest = max(right - left, bottom - top)
    native = max(pipeline.native_size)
    side = max(native, round(longest * (1 + 2 * CONTEXT)))
    sides = min(side, width), min(side, height)
    corner = [
        min(max((low + high - extent) // 2, 0), most - extent)
        for low, high, extent, most in zip(
            (left, top), (right, bottom), sides, (width, height), strict=True
        )
    ]
    box = (*corner, corner[0] + sides[0], corner[1] + sides[1])
    return Part((box[0], box[1], box[2], box[3]), _sizes(pipeline, sides, native / max(sides)))


def beside(pipeline: ImagePipeline, free: np.ndarray) -> Part:
    """What is free in (h w) and some of what is not, at the picture's own scale.

    Half a window on each side, and more where all were less than the model's own size.
    """
    left, top, right, bottom = _bounds(free)
    height, width = free.shape
    across, down = (
        max(native // 2, native - extent)
        for native, extent in zip(pipeline.native_size, (right - left, bottom - top), strict=True)
    )
    box = [left - across, top - down, right + across, bottom + down]
    # Steps of what the model's sizes are multiples of, so that nothing is resized.
    step = pipeline.size_multiple
    low = [max(0, value) // step * step for value in box[:2]]
    high = [
        min(-(-value // step) * step, most)
        for value, most in zip(box[2:], (width, height), strict=True)
    ]
    low = [
        max(0, top - -(-(top - bottom) // step) * step)
        for bottom, top in zip(low, high, strict=True)
    ]
    sides = high[0] - low[0], high[1] - low[1]
    scale = min(1.0, LARGEST * max(pipeline.native_size) / max(sides))
    return Part((low[0], low[1], high[0], high[1]), _sizes(pipeline, sides, scale))


def free_box(box: Box, size: tuple[int, int]) -> np.ndarray:
    """A box as bool (h w).

    Raises:
        UserError: it does not lie in a picture of this width and height.
    """
    x, y, width, height = box
    if x + width > size[0] or y + height > size[1]:
        raise UserError(
            f"the box {','.join(map(str, box))} does not lie in the picture of "
            f"{size[0]}x{size[1]} pixels"
        )
    free = np.zeros((size[1], size[0]), dtype=bool)
    free[y : y + height, x : x + width] = True
    return free


def free_mask(mask: Picture, size: tuple[int, int]) -> np.ndarray:
    """A mask, white (or transparent) where the picture is to be filled, as bool (h w).

    Raises:
        UserError: it is of another size, or black all over.
    """
    if mask.size != size:
        sizes = ["x".join(map(str, these)) for these in (mask.size, size)]
        raise UserError(f"the mask has {sizes[0]} pixels, the picture {sizes[1]}")
    free = np.asarray(to_rgb(mask).convert("L")) > 127
    if not free.any():
        raise UserError("the mask is black all over; what is to be filled must be white")
    return free


def with_margins(picture: Picture, margins: Box) -> tuple[Picture, np.ndarray]:
    """The picture with pixels added at the left, top, right and bottom, and where they are."""
    left, top, right, bottom = margins
    width, height = picture.size
    canvas = Image.new(picture.image.mode, (left + width + right, top + height + bottom))
    if picture.image.mode == "P":
        canvas.putpalette(picture.image.getpalette("RGB") or [])
    canvas.paste(picture.image, (left, top))
    free = np.ones((canvas.height, canvas.width), dtype=bool)
    free[top : top + height, left : left + width] = False
    return replace(picture, image=canvas), free


def restyled(pipeline: ImagePipeline, picture: Picture, edit: Edit, mask: Picture | None) -> Job:
    """All of a picture made anew in part."""
    side = edit.work_side or min(pipeline.native_size)
    return Job(picture, None, whole(pipeline, picture.size, side))


def inpainted(pipeline: ImagePipeline, picture: Picture, edit: Edit, mask: Picture | None) -> Job:
    """A box or a mask filled.

    Raises:
        UserError: they do not suit the picture.
    """
    if mask is not None:
        free = free_mask(mask, picture.size)
    elif edit.box is not None:
        free = free_box(edit.box, picture.size)
    else:
        raise UserError("say what to fill: a mask or a box")
    return Job(picture, free, around(pipeline, free))


def extended(pipeline: ImagePipeline, picture: Picture, edit: Edit, mask: Picture | None) -> Job:
    """Margins added and filled."""
    canvas, free = with_margins(picture, edit.margins)
    return Job(canvas, free, beside(pipeline, free))


TASKS: dict[str, Callable[[ImagePipeline, Picture, Edit, Picture | None], Job]] = {
    "restyle": restyled,
    "vary": restyled,
    "inpaint": inpainted,
    "extend": extended,
}


def edit(
    pipeline: ImagePipeline,
    job: Job,
    plan: Sequence[EditSettings],
    callback: Callback | None = None,
) -> Iterator[Picture]:
    """The pictures of a plan, whose settings differ in prompt and seed only."""
    left, top, right, bottom = job.part.box
    seen = to_rgb(job.picture).crop((left, top, right, bottom))
    free = None if job.free is None else job.free[top:bottom, left:right]
    with torch.no_grad():  # and not inference_mode: some methods take gradients
        start, known = _latents(pipeline, seen, free, job.part.size, plan[0])
        told = known is not None and choose("method", plan[0].method, FILLINGS).told
        network = pipeline.adapted if told else pipeline
        for batch in batches(plan, pipeline.device):
            common = batch[0]
            begin = None
            if common.invert is not None and start is not None:
                source = pipeline.denoise_fn(
                    [of_source(settings, common.invert) for settings in batch]
                )
                schedule = pipeline.noise_schedule
                begin = inverted_noise(source, common, schedule, start, callback)
            latents = sample_latents(
                network.denoise_fn(batch, known if told else None),
                common,
                pipeline.noise_schedule,
                [settings.seed for settings in batch],
                pipeline.latent_shape(common.size),
                pipeline.device,
                start=start,
                begin=begin,
                walk=None if known is None else fill(known, common.sampler, common.how(), told),
                callback=callback,
            )
            for made in pipeline.decode(latents):
                yield _paste(job, made, free, common.feather, common.opaque)


def walked_steps(settings: EditSettings, fills: bool) -> int:
    """How many times the callback of :func:`edit` is called for one batch."""
    steps = round(settings.strength * settings.steps)
    if settings.invert is not None:
        return 2 * steps  # up and down
    return fill_steps(settings.how(), steps) if fills and steps else steps


def _latents(
    pipeline: ImagePipeline,
    seen: Image.Image,
    free: np.ndarray | None,
    size: tuple[int, int],
    settings: EditSettings,
) -> tuple[Start | None, Known | None]:
    """What the walk begins with, and what it keeps."""

    def encode(picture: Image.Image) -> Tensor:
        scaled = picture.resize(size, Image.Resampling.LANCZOS)
        return pipeline.codec.encode(from_pil(scaled).to(pipeline.device))

    nothing = settings.strength == 1 and settings.invert is None
    start = None if nothing else Start(encode(seen), settings.strength)
    if free is None:
        return start, None
    # The autoencoder looks further than one cell: what is to go must not shine through beside it.
    known = encode(spread(seen, free))
    factor = pipeline.codec.factor
    rows, columns = size[1] // factor, size[0] // factor
    anywhere = torch.from_numpy(free.astype(np.float32))[None, None]
    share = F.adaptive_max_pool2d(anywhere, (rows, columns)) > 0  # (1 1 h w)
    return start, Known(known, ~share.to(pipeline.device))


def spread(picture: Image.Image, free: np.ndarray) -> Image.Image:
    """What is free (h w) painted over with the colours around it, softer the further inside."""
    if free.all():
        return Image.new("RGB", picture.size, (128, 128, 128))
    known = Image.fromarray((~free).astype(np.uint8) * 255)
    total, weight = np.zeros((*free.shape, 3), np.float32), np.zeros((*free.shape, 1), np.float32)
    masked = Image.composite(picture, Image.new("RGB", picture.size), known)
    radius = 1.0
    while radius < 2 * max(picture.size):
        blur = ImageFilter.GaussianBlur(radius)
        colours = np.asarray(masked.filter(blur), np.float32)
        share = np.asarray(known.filter(blur), np.float32)[..., None] / 255
        # The nearest that says anything counts: each radius fills what smaller ones left.
        room = (1 - weight) * (share > 0.02)
        total += room * colours / np.maximum(share, 1e-6)
        weight += room
        radius *= 2
    total += (1 - weight) * 128
    painted = np.where(free[..., None], total.round().clip(0, 255), np.asarray(picture))
    return Image.fromarray(painted.astype(np.uint8))


def _paste(
    job: Job, made: Image.Image, free: np.ndarray | None, feather: int, opaque: bool
) -> Picture:
    left, top, right, bottom = job.part.box
    scaled = made.resize((right - left, bottom - top), Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", job.picture.size)
    canvas.paste(scaled, (left, top))
    weight = np.zeros((canvas.height, canvas.width), np.float32)
    weight[top:bottom, left:right] = 1 if free is None else border(free, feather)
    return with_pixels(job.picture, canvas, weight, opaque)


def border(free: np.ndarray, feather: int) -> np.ndarray:
    """Weights (h w): 1 where free, falling to 0 over ``feather`` pixels outside."""
    weight = torch.from_numpy(free.astype(np.float32))[None, None]
    grown, rings = weight, weight
    for _ in range(feather):
        grown = F.max_pool2d(grown, 3, stride=1, padding=1)
        rings = rings + grown
    ramp = (rings / (feather + 1))[0, 0].numpy()  # how many of the rings hold the pixel
    return np.sin(ramp * (np.pi / 2)) ** 2


def _sizes(pipeline: ImagePipeline, size: tuple[int, int], scale: float) -> tuple[int, int]:
    """A size scaled, each side to the nearest that the model takes."""
    multiple = pipeline.size_multiple
    largest = LARGEST * max(pipeline.native_size)
    width, height = (
        min(max(round(side * scale / multiple), 1) * multiple, largest) for side in size
    )
    return width, height


def _bounds(free: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = (np.flatnonzero(free.any(axis)) for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
