"""A bed of ambience that goes on for ever: layers that are loops of one length, laid together."""

from __future__ import annotations

import numpy as np

from recipes import studio

LAYERS = ("howling wind", "ocean waves")
BAR = 4.0  # seconds: what a loop counts in, at 60 beats a minute


def main(argv: list[str] | None = None) -> studio.Figures:
    options = studio.parser(__file__, __doc__, "music")
    options.add_argument("layers", nargs="*", default=list(LAYERS), help="what sounds together")
    options.add_argument("--bars", type=int, default=2, help="of four seconds each")
    args = studio.read(options, argv)
    bars = 1 if args.quick else args.bars
    names = [f"layer-{number}.wav" for number in range(1, len(args.layers) + 1)]
    paths = studio.files(args, "ambience.wav", *names, "ambience.png")

    from audiodiff.controls import unknown
    from audiodiff.loop_points import loop_points

    pipeline = studio.music(args.music_model)
    plan = pipeline.plan(args.layers, bpm=240 / BAR, loop=bars, seed=args.seed, steps=args.steps)
    # Wind has no beat: nothing is told of the tempo that only says how long a loop is.
    silent = [unknown(pipeline.latent_frames(plan[0].seconds))] * len(plan)
    with studio.watched(args.steps * len(plan)) as tick:
        clips = list(pipeline.generate(plan, tick, silent))
    rate = clips[0].sample_rate
    points = loop_points(clips[0].samples.shape[1], bars, 4, 240 / BAR, None)
    for clip, path in zip(clips, paths[1:], strict=False):
        told = "a loop, told of no tempo"
        studio.save_sound(path, clip.samples, rate, told, [clip.settings], points)
    bed = np.sum([clip.samples for clip in clips], axis=0)
    bed *= 0.7 / max(float(np.abs(bed).max()), 1e-9)
    studio.save_sound(paths[0], bed, rate, "loops laid together", plan, points)
    twice = np.tile(bed, 2)
    caption = f"{' and '.join(args.layers)}, twice: the seam is in the middle"
    studio.save_spectrograms(paths[-1], [(caption, twice)], rate)
    return studio.finish(paths, measured(bed, rate))


def measured(bed: np.ndarray, rate: int) -> studio.Figures:
    """How much begins at the seam, beside what begins anywhere, and the step of the wave there."""
    from audiodiff.tempo import ONSET_RATE, onset_strength

    thrice = onset_strength(np.tile(bed, 3), rate)
    length = round(bed.shape[1] / rate * ONSET_RATE)
    once = np.sort(thrice[length : 2 * length])
    at_seam = thrice[2 * length - 1 : 2 * length + 2].max()
    step = np.abs(bed[:, 0] - bed[:, -1]).max()
    return {
        "seconds": bed.shape[1] / rate,
        "share of moments with more onset than the seam": float((once > at_seam).mean()),
        "step at the seam over the largest step": float(step / np.abs(np.diff(bed)).max()),
    }


if __name__ == "__main__":
    studio.run(main)
