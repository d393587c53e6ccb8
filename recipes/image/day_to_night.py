"""A day that turns to night: one seed, and a prompt whose background moves along a time line."""

from __future__ import annotations

import numpy as np

from recipes import studio

SKIES = ("a light blue background", "an orange background", "a blue background",
         "a black background")  # fmt: skip
SECONDS = 3.0


def main(argv: list[str] | None = None) -> studio.Figures:
    options = studio.parser(__file__, __doc__, "image")
    options.add_argument("thing", nargs="?", default="a house")
    options.add_argument("--format", choices=["mp4", "gif", "webp"], default="mp4")
    args = studio.read(options, argv)
    seconds, fps = (1.0, 4.0) if args.quick else (SECONDS, 8.0)
    paths = studio.files(args, f"day_to_night.{args.format}", "day_to_night.png")

    from imagediff.movie_settings import Keyframe, Script, moments
    from imagediff.movies import animate, animation, save_movie
    from imagediff.sheets import captioned_sheet

    keyframes = tuple(
        Keyframe(
            at=round(seconds * number / (len(SKIES) - 1), 3), prompt=f"{args.thing} on {sky}",
            seed=args.seed, ease="linear",
        )
        for number, sky in enumerate(SKIES)
    )  # fmt: skip
    script = Script(keyframes=keyframes, fps=fps)
    line = moments(script)
    pipeline = studio.pictures(args.image_model)
    settings = animation(pipeline, script, steps=args.steps)
    with studio.watched(args.steps * len(line)) as tick:
        frames = list(animate(pipeline, settings, line, tick))
    save_movie(frames, paths[0], fps, settings, overwrite=True)
    some = np.linspace(0, len(frames) - 1, min(8, len(frames))).astype(int)
    page = captioned_sheet([frames[i] for i in some], [f"{i / fps:.2f} s" for i in some])
    studio.save_picture(paths[1], page, "moments of a movie", [settings])
    light = [float(np.asarray(frame.convert("L")).mean()) for frame in frames]
    return studio.finish(paths, {"light at the start": light[0], "light at the end": light[-1]})


if __name__ == "__main__":
    studio.run(main)
