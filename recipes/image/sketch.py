"""A few strokes of colour become a picture: what is sketched stays where it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from recipes import studio

PROMPT = "a red apple on a light blue background"
STRENGTHS = (0.5, 0.65, 0.8)


def main(argv: list[str] | None = None) -> studio.Figures:
    options = studio.parser(__file__, __doc__, "image")
    options.add_argument("sketch", nargs="?", type=Path, help="a picture file")
    options.add_argument("prompt", nargs="?", default=PROMPT)
    args = studio.read(options, argv)
    strengths = STRENGTHS[:1] if args.quick else STRENGTHS
    names = [f"strength-{strength:g}.png" for strength in strengths]
    names = names if args.sketch else ["drawn.png", *names]
    *made, sheet = paths = studio.files(args, *names, "sketch.png")

    from imagediff.edit_settings import Edit
    from imagediff.edits import edited
    from imagediff.picture_file import open_picture, save_picture
    from imagediff.pixels import to_rgb
    from imagediff.sheets import captioned_sheet
    from shared.sources import file_hash

    source = args.sketch or made[0]
    if args.sketch is None:
        studio.save_picture(source, a_sketch(), "a sketch")
    pipeline = studio.pictures(args.image_model)
    sketch = to_rgb(open_picture(source))
    shown, figures = [("the sketch", sketch)], {}
    with studio.watched(sum(round(s * args.steps) for s in strengths)) as tick:
        for path, strength in zip(made[-len(strengths) :], strengths, strict=True):
            edit = Edit(
                task="restyle", source=str(source), source_hash=file_hash(source),
                strength=strength,
            )  # fmt: skip
            ((picture, settings),) = edited(
                pipeline, edit, args.prompt, seed=args.seed, steps=args.steps, callback=tick
            )
            save_picture(picture, path, settings, overwrite=True)
            shown.append((f"strength {strength:g}", to_rgb(picture)))
            figures[f"strength {strength:g}: overlap with the sketch"] = overlap(
                sketch, to_rgb(picture)
            )
    captions, pictures = zip(*shown, strict=True)
    studio.save_picture(sheet, captioned_sheet(pictures, captions), args.prompt)
    return studio.finish(paths, figures)


def a_sketch() -> Image.Image:
    """What is taken if nothing is given: an apple in five strokes."""
    picture = Image.new("RGB", (128, 128), (165, 212, 245))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((18, 30, 108, 118), (205, 30, 40))
    draw.arc((18, 30, 108, 118), 0, 360, (120, 10, 20), 3)
    draw.line((63, 38, 68, 12), (100, 60, 30), 6)
    draw.ellipse((68, 10, 100, 28), (60, 150, 60))
    draw.line((36, 56, 42, 80), (255, 170, 170), 5)
    return picture


def overlap(sketch: Image.Image, picture: Image.Image) -> float:
    """Intersection over union of what differs from the border's colour in both."""

    def thing(image: Image.Image) -> np.ndarray:
        pixels = np.asarray(image, float)
        border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        return np.abs(pixels - np.median(border, axis=0)).max(axis=2) > 60

    first, second = thing(sketch), thing(picture)
    return float((first & second).sum() / max((first | second).sum(), 1))


if __name__ == "__main__":
    studio.run(main)
