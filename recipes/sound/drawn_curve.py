"""A sound that follows a drawn line: how high it stands, moment by moment, is how bright it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from recipes import studio

RANGES = {"brightness": (500.0, 6000.0), "dynamics": (-40.0, -10.0), "stereo_width": (0.0, 0.7)}
POINTS = 24  # of the line that are read


def main(argv: list[str] | None = None) -> studio.Figures:
    options = studio.parser(__file__, __doc__, "music")
    options.add_argument("drawing", nargs="?", type=Path, help="a dark line on a light picture")
    options.add_argument("--what", choices=[*RANGES], default="brightness", help="that follows it")
    options.add_argument("--prompt", default="a shimmering synth pad")
    options.add_argument("--seconds", type=float, default=6.0)
    args = studio.read(options, argv)
    seconds = 2.0 if args.quick else args.seconds
    clip_path, picture_path = paths = studio.files(args, "drawn.wav", "drawn_curve.png")

    from audiodiff.inputs.asked import Asked
    from audiodiff.inputs.read import read_sketch
    from audiodiff.kept import kept
    from audiodiff.plot import draw_spectrogram, stack
    from imagediff.picture_file import open_picture
    from imagediff.pixels import to_rgb

    drawing = a_line() if args.drawing is None else to_rgb(open_picture(args.drawing))
    low, high = RANGES[args.what]
    heights = read_line(drawing)
    # Brightness is heard in octaves, the others are so already.
    values = low * (high / low) ** heights if low > 0 else low + (high - low) * heights
    times = np.linspace(0, seconds, POINTS)
    points = " ".join(f"{time:.3f}:{value:.4g}" for time, value in zip(times, values, strict=True))
    sketch = read_sketch(Asked(**{args.what: points}), args.prompt, seconds).sketch
    pipeline = studio.music(args.music_model)
    with studio.watched(args.steps) as tick:
        (clip,) = pipeline(
            args.prompt, seconds=seconds, seed=args.seed, steps=args.steps, sketch=sketch,
            callback=tick,
        )  # fmt: skip
    clip.save(clip_path, overwrite=True)
    heard = draw_spectrogram(clip.samples, clip.sample_rate, f"{args.what} of {args.prompt}")
    drawn = Image.new("RGB", heard.size, "white")
    drawn.paste(drawing.resize((heard.width - 80, heard.height - 40)), (52, 20))
    studio.save_picture(picture_path, stack([drawn, heard]), "drawn, and heard", colours=64)
    found = kept(clip.samples, clip.sample_rate, clip.settings)[args.what]
    return studio.finish(paths, {f"{args.what}, {name}": float(v) for name, v in found.items()})


def a_line() -> Image.Image:
    """What is drawn if nothing is given: a hill, a valley, a climb."""
    picture = Image.new("RGB", (480, 160), "white")
    xs = np.arange(10, 471, 10)
    ys = 80 - 55 * np.sin(xs / 480 * 2 * np.pi * 1.25) * (1.1 - 0.3 * xs / 480)
    ImageDraw.Draw(picture).line([*zip(xs.tolist(), ys.tolist(), strict=True)], "black", 6)
    return picture


def read_line(picture: Image.Image) -> np.ndarray:
    """How high the ink stands in each part of the picture, 0 to 1 of what it spans: (POINTS,).

    Raises:
        UserError: there is no line in it.
    """
    from shared.errors import UserError

    ink = 255.0 - np.asarray(picture.convert("L"))
    ink = np.where(ink > 96, ink, 0)
    columns = np.flatnonzero(ink.sum(axis=0) > 0)
    if len(columns) < POINTS:
        raise UserError("no line was found in the drawing: draw a dark one from left to right")
    rows = np.arange(ink.shape[0])[::-1, None]  # the bottom is 0
    heights = (ink * rows).sum(axis=0)[columns] / ink.sum(axis=0)[columns]
    along = np.interp(np.linspace(columns[0], columns[-1], POINTS), columns, heights)
    return (along - along.min()) / max(np.ptp(along), 1.0)


if __name__ == "__main__":
    studio.run(main)
