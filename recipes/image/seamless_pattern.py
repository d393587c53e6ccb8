"""A pattern for paper or cloth: a tile that goes on at its other side, and a piece of it."""

from __future__ import annotations

import numpy as np
from PIL import Image

from recipes import studio

ROUND = (3, 2)  # tiles across and down


def main(argv: list[str] | None = None) -> studio.Figures:
    options = studio.parser(__file__, __doc__, "image")
    options.add_argument("prompt", nargs="?", default="a bunch of flowers on a teal background")
    args = studio.read(options, argv)
    tile_path, picture_path = paths = studio.files(args, "tile.png", "seamless_pattern.png")

    from imagediff.png import save_png

    pipeline = studio.pictures(args.image_model)
    (settings,) = pipeline.plan(args.prompt, seed=args.seed, steps=args.steps, tile=True)
    with studio.watched(args.steps) as tick:
        (tile,) = pipeline.generate([settings], tick)
    save_png(tile, tile_path, settings, overwrite=True)
    page = Image.new("RGB", (tile.width * ROUND[0], tile.height * ROUND[1]))
    for x in range(ROUND[0]):
        for y in range(ROUND[1]):
            page.paste(tile, (x * tile.width, y * tile.height))
    studio.save_picture(picture_path, page, "a tile laid out", [settings])
    return studio.finish(paths, seam(np.asarray(tile, float)))


def seam(pixels: np.ndarray) -> studio.Figures:
    """The step from a side to the opposite one over the mean step inside, of (h w c)."""
    figures = {}
    for name, axis in (("left to right", 1), ("top to bottom", 0)):
        inside = np.abs(np.diff(pixels, axis=axis)).mean()
        ends = np.take(pixels, [0, -1], axis=axis)
        across = np.abs(np.diff(ends, axis=axis)).mean()
        figures[f"step from {name} over steps inside"] = float(across / max(inside, 1e-9))
    return figures


if __name__ == "__main__":
    studio.run(main)
