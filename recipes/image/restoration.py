"""An old picture restored: its scratches are found and filled, then it is made twice as large."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from recipes import studio

PROMPT = "a lion on a green background"
WIDEST = 7  # pixels: what is brighter than all around it and no wider is a scratch


def main(argv: list[str] | None = None) -> studio.Figures:
    options = studio.parser(__file__, __doc__, "image", "upscale")
    options.add_argument(
        "picture", nargs="?", type=Path, help="a picture file with white scratches"
    )
    options.add_argument("--prompt", default=PROMPT, help="what it shows")
    options.add_argument("--factor", type=int, choices=[2, 4], default=2)
    args = studio.read(options, argv)
    names = [] if args.picture else ["old.png"]
    *made, mask, filled, large, sheet = paths = studio.files(
        args, *names, "mask.png", "filled.png", "restored.png", "restoration.png"
    )

    from imagediff.edit_settings import Edit
    from imagediff.edits import edited
    from imagediff.picture_file import open_picture, save_picture
    from imagediff.pixels import to_rgb
    from shared.sources import file_hash

    upscaler, pipeline = studio.upscaler(args.upscale_model), studio.pictures(args.image_model)
    source, whole = args.picture or made[0], None
    with studio.watched(args.steps * (1 + len(made))) as tick:
        if args.picture is None:
            (whole,) = pipeline(PROMPT, seed=args.seed, steps=args.steps, callback=tick)
            studio.save_picture(source, scratched(whole, args.seed), "scratched by a recipe")
        old = to_rgb(open_picture(source))
        studio.save_picture(mask, Image.fromarray(scratches(old)), "where there are scratches")
        edit = Edit(
            task="inpaint", source=str(source), source_hash=file_hash(source), mask=str(mask),
            mask_hash=file_hash(mask), feather=1,
        )  # fmt: skip
        ((picture, settings),) = edited(
            pipeline, edit, args.prompt, seed=args.seed, steps=args.steps, callback=tick
        )
    save_picture(picture, filled, settings, overwrite=True)
    restored = upscaler(to_rgb(picture), args.factor, seed=args.seed)
    studio.save_picture(large, restored, "filled, then made larger", [settings])
    steps = [one.resize(restored.size, Image.Resampling.NEAREST) for one in (old, to_rgb(picture))]
    page = Image.new("RGB", (3 * restored.width, restored.height))
    for number, one in enumerate([*steps, restored]):
        page.paste(one, (number * restored.width, 0))
    studio.save_picture(sheet, page, "old, filled, restored", [settings])
    figures = {"share that was scratched": float((np.asarray(Image.open(mask)) > 0).mean())}
    if whole is not None:
        figures["PSNR as it was found, dB"] = psnr(old, whole)
        figures["PSNR filled, dB"] = psnr(to_rgb(picture), whole)
    return studio.finish(paths, figures)


def scratched(picture: Image.Image, seed: int) -> Image.Image:
    """A picture with nine white scratches across it."""
    old, rng = picture.copy(), np.random.default_rng(seed)
    draw, (width, height) = ImageDraw.Draw(old), picture.size
    for _ in range(9):
        x, y = rng.uniform(0.1, 0.9, 2) * picture.size
        dx, dy = rng.normal(0, 0.25, 2) * (width, height)
        draw.line((x - dx, y - dy, x + dx, y + dy), (255, 255, 255), 2)
    return old


def scratches(picture: Image.Image) -> np.ndarray:
    """Where thin lines are much brighter than what lies around them: uint8 (h w), 255 there."""
    from scipy.ndimage import binary_dilation, grey_opening

    light = np.asarray(picture.convert("L"), float)
    # What a white top-hat leaves: all that no square of that size fits into.
    thin = light - grey_opening(light, (WIDEST, WIDEST)) > 24
    found = binary_dilation(thin & (light > 236), iterations=2)
    return np.where(found, 255, 0).astype(np.uint8)


def psnr(first: Image.Image, second: Image.Image) -> float:
    """Peak signal-to-noise ratio of two pictures, dB."""
    error = np.square(np.asarray(first, float) - np.asarray(second, float)).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


if __name__ == "__main__":
    studio.run(main)
