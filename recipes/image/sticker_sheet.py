"""A sheet of stickers: each thing cut out of its white background, with a white edge around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from recipes import studio

THINGS = (
    "a cat", "a rocket", "a cupcake", "a guitar", "a frog", "a sunflower", "a ghost", "a pizza",
    "an octopus", "a crown", "a cactus", "a rainbow",
)  # fmt: skip
EDGE = 5  # pixels of white around each
SCALE = 2
MARGIN = 0.09  # of each side that is guided to be paper
STEP = 0.3  # see shared.guidance.normalised_step
PAPER = 32  # levels by which what is paper may differ from it


def main(argv: list[str] | None = None) -> studio.Figures:
    options = studio.parser(__file__, __doc__, "image")
    options.add_argument("things", nargs="*", default=list(THINGS))
    options.add_argument("--columns", type=int, default=4)
    args = studio.read(options, argv)
    things = args.things[:2] if args.quick else args.things
    paths = studio.files(args, "sticker_sheet.png")
    from shared.denoiser import DenoiseFn
    from shared.guidance import Loss, gradient, normalised_step

    pipeline = studio.pictures(args.image_model)

    def guide(denoise: DenoiseFn) -> DenoiseFn:
        loss = Loss(lambda latents: off_white(pipeline.codec.decode(latents)))
        return gradient(denoise, [loss], normalised_step(STEP), through_denoiser=False)

    plan = pipeline.plan(list(things), seed=args.seed, steps=args.steps)
    with studio.watched(args.steps * len(things)) as tick:
        stickers = [
            sticker(picture) for picture in pipeline.generate(plan, tick, guidances=[guide])
        ]
    page = sheet(stickers, args.columns)
    studio.save_picture(paths[0], page, "stickers", plan)
    shares = [float((np.asarray(one.getchannel("A")) > 127).mean()) for one in stickers]
    return studio.finish(
        paths, {f"{thing}: share cut out": s for thing, s in zip(things, shares, strict=True)}
    )


def off_white(images: Tensor) -> Tensor:
    """How far the margin of pictures (b 3 h w) in [-1, 1] is from paper: (b,)."""
    height, width = images.shape[2:]
    margin = torch.ones(height, width, device=images.device)
    margin[round(MARGIN * height) : round((1 - MARGIN) * height),
           round(MARGIN * width) : round((1 - MARGIN) * width)] = 0  # fmt: skip
    return ((1 - images).square().mean(1) * margin).sum((1, 2)) / margin.sum()


def sticker(picture: Image.Image) -> Image.Image:
    """The thing in a picture (RGBA), twice as large, with its white edge; all else transparent."""
    from scipy.ndimage import binary_dilation, binary_fill_holes, gaussian_filter, label

    large = picture.resize([SCALE * side for side in picture.size], Image.Resampling.LANCZOS)
    pixels = np.asarray(large, float)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    paper = np.median(border, axis=0)
    away = gaussian_filter(np.abs(pixels - paper).max(axis=2), 1.0)
    thing = np.asarray(binary_fill_holes(away > PAPER))
    parts, count = cast("tuple[np.ndarray, int]", label(thing))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    if count:  # crumbs go
        thing = np.isin(parts, 1 + np.flatnonzero(sizes > 0.05 * sizes.max()))
    grown = np.asarray(binary_fill_holes(binary_dilation(thing, iterations=SCALE * EDGE)), float)
    inside = gaussian_filter(thing.astype(float), 1.0)[..., None]
    colour = inside * pixels + (1 - inside) * 255
    alpha = 255 * gaussian_filter(grown, 1.0)
    rgba = np.concatenate([colour, alpha[..., None]], axis=2)
    return Image.fromarray(rgba.round().clip(0, 255).astype(np.uint8), "RGBA")


def sheet(stickers: Sequence[Image.Image], columns: int) -> Image.Image:
    """Stickers in rows on a transparent page, each with a soft shadow."""
    from PIL import ImageFilter

    width, height = stickers[0].size
    rows = -(-len(stickers) // columns)
    page = Image.new("RGBA", (width * min(columns, len(stickers)), height * rows))
    for number, one in enumerate(stickers):
        place = (number % columns * width, number // columns * height)
        shade = one.getchannel("A").filter(ImageFilter.GaussianBlur(4)).point(lambda a: a * 0.4)
        shadow = Image.merge("RGBA", [*(Image.new("L", one.size, 0) for _ in range(3)), shade])
        page.alpha_composite(shadow, place)
        page.alpha_composite(one, place)
    return page


if __name__ == "__main__":
    studio.run(main)
