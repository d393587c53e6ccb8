"""A riser: louder and brighter for some bars, over to the sample where the next beat falls."""

from __future__ import annotations

import numpy as np

from recipes import studio

QUIET, LOUD = -42.0, -10.0  # dB
DARK, BRIGHT = 700.0, 7500.0  # Hz


def main(argv: list[str] | None = None) -> studio.Figures:
    options = studio.parser(__file__, __doc__, "music")
    options.add_argument("prompt", nargs="?", default="a white noise riser")
    options.add_argument("--bars", type=int, default=2)
    options.add_argument("--bpm", type=float, default=128.0)
    args = studio.read(options, argv)
    bars = 1 if args.quick else args.bars
    clip_path, picture_path = paths = studio.files(args, "riser.wav", "riser.png")

    from audiodiff.inputs.asked import Asked
    from audiodiff.inputs.read import read_sketch
    from audiodiff.settings import check_wishes

    check_wishes(args.bpm, None, None, bars)
    seconds = bars * 4 * 60 / args.bpm
    # The ear hears ratios: even steps of dB, and of octaves, which the straight lines between
    # points come near to.
    shares = np.linspace(0, 1, 9)
    levels = [f"{s * seconds:.3f}:{QUIET + s * (LOUD - QUIET):.1f}" for s in shares]
    centroids = [f"{s * seconds:.3f}:{DARK * (BRIGHT / DARK) ** s:.0f}" for s in shares]
    asked = Asked(dynamics=" ".join(levels), brightness=" ".join(centroids))
    outline = read_sketch(asked, args.prompt, seconds)
    pipeline = studio.music(args.music_model)
    with studio.watched(args.steps) as tick:
        (clip,) = pipeline(
            args.prompt, seconds=seconds, seed=args.seed, steps=args.steps,
            sketch=outline.sketch, loudness=outline.loudness(), callback=tick,
        )  # fmt: skip
    clip.save(clip_path, overwrite=True)
    studio.save_spectrograms(picture_path, [(args.prompt, clip.samples)], clip.sample_rate)
    return studio.finish(paths, measured(clip.samples, clip.sample_rate))


def measured(samples: np.ndarray, rate: int) -> studio.Figures:
    """How far it rises from its first quarter to its last, and when it is loudest."""
    from audiodiff.loudness import loudness_curve
    from audiodiff.sound_curves import measured as curve

    levels, centroid = loudness_curve(samples), curve(samples, "brightness")
    quarter = len(levels) // 4
    loudest = int(np.argmax(levels)) / len(levels) * samples.shape[1] / rate
    return {
        "seconds": samples.shape[1] / rate,
        "rise, dB": float(levels[-quarter:].mean() - levels[:quarter].mean()),
        "rise, octaves": float(np.log2(centroid[-quarter:].mean() / centroid[:quarter].mean())),
        "loudest, seconds before its end": samples.shape[1] / rate - loudest,
    }


if __name__ == "__main__":
    studio.run(main)
