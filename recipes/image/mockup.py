"""Mock-ups of a product: a layout puts it in the same place in each, and the rest changes."""

from __future__ import annotations

import numpy as np

from recipes import studio

PLACE = (0.28, 0.25, 0.5, 0.6)  # of the product: left, top, width, height, shares of the picture
# Backdrop, a thing beside the product and its place.
SETS = (
    ("a pink background", "a bouquet of flowers", (0.02, 0.5, 0.26, 0.48)),
    ("a light blue background", "a seashell", (0.74, 0.68, 0.24, 0.28)),
    ("a brown background", "a potted plant", (0.02, 0.4, 0.28, 0.56)),
    ("a purple background", "a gift", (0.72, 0.6, 0.26, 0.36)),
)


def main(argv: list[str] | None = None) -> studio.Figures:
    options = studio.parser(__file__, __doc__, "image")
    options.add_argument("product", nargs="?", default="a handbag")
    args = studio.read(options, argv)
    sets = SETS[:1] if args.quick else SETS
    names = [f"mockup-{number}.png" for number in range(1, len(sets) + 1)]
    *made, sheet = paths = studio.files(args, *names, "mockup.png")

    from imagediff.layout_settings import Region
    from imagediff.png import save_png
    from imagediff.sheets import captioned_sheet

    pipeline = studio.pictures(args.image_model).adapted
    size = pipeline.native_size
    plan = [
        pipeline.plan(
            f"{args.product} and {beside} on {backdrop}", seed=args.seed, steps=args.steps,
            layout=(
                Region(args.product, box=pixels(PLACE, size)),
                Region(beside, box=pixels(place, size)),
            ),
        )[0]
        for backdrop, beside, place in sets
    ]  # fmt: skip
    pictures = []
    with studio.watched(args.steps * len(plan)) as tick:
        for settings, path in zip(plan, made, strict=True):
            (picture,) = pipeline.generate([settings], tick)
            save_png(picture, path, settings, overwrite=True)
            pictures.append(picture)
    page = captioned_sheet(pictures, [settings.prompt for settings in plan])
    studio.save_picture(sheet, page, "mock-ups", plan)
    return studio.finish(paths, {
        f"mock-up {number}: off its backdrop within the product's place, over beside it": off(one)
        for number, one in enumerate(pictures, start=1)
    })  # fmt: skip


def pixels(
    place: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """A box of shares as one of pixels."""
    left, top, width, height = place
    return (
        round(left * size[0]), round(top * size[1]), round(width * size[0]),
        round(height * size[1]),
    )  # fmt: skip


def off(picture) -> float:
    """How much of the product's place differs from the picture's border, over all else."""
    values = np.asarray(picture, float)
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    differs = np.abs(values - np.median(border, axis=0)).max(axis=2) > 48
    left, top, width, height = pixels(PLACE, picture.size)
    inside = np.zeros(differs.shape, bool)
    inside[top : top + height, left : left + width] = True
    return float(differs[inside].mean() / max(differs[~inside].mean(), 1e-6))


if __name__ == "__main__":
    studio.run(main)
