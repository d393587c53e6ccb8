"""A riser: louder and brighter for some bars, over to the sample where the next beat falls."""

from __future__ import annotations

import numpy as np

from recipes import studio

QUIET, LOUD = -40.0, 0.0  # dB, from the beginning to the end
DARK, BRIGHT = 200.0, 6000.0  # Hz, likewise: where the middle of its power lies


def main(argv: list[str] | None = None) -> studio.Figures:
    options = studio.parser(__file__, __doc__, "music")
    options.add_argument("prompt", nargs="?", default="a white noise riser")
    options.add_argument("--bars", type=int, default=2)
    options.add_argument("--bpm", type=float, default=128.0)
    args = studio.read(options, argv)
    bars = 1 if args.quick else args.bars
    clip_path, picture_path = paths = studio.files(args, "riser.wav", "riser.png")

    from audiodiff.settings import check_wishes
    from audiodiff.shaping import shaped

    check_wishes(args.bpm, None, None, bars)
    seconds = bars * 4 * 60 / args.bpm
    pipeline = studio.music(args.music_model)
    guidance = shaped(pipeline.codec, ((0, QUIET), (seconds, LOUD)), ((0, DARK), (seconds, BRIGHT)))
    with studio.watched(args.steps) as tick:
        (clip,) = pipeline(
            args.prompt, seconds=seconds, seed=args.seed, steps=args.steps, guidances=[guidance],
            callback=tick,
        )  # fmt: skip
    rate, told = clip.sample_rate, "guided to rise by even steps of dB and of octaves"
    studio.save_sound(clip_path, clip.samples, rate, told, [clip.settings])
    studio.save_spectrograms(picture_path, [(args.prompt, clip.samples)], rate)
    return studio.finish(paths, measured(clip.samples, rate))


def measured(samples: np.ndarray, rate: int) -> studio.Figures:
    """How far it rises from its first quarter to its last, and when it is loudest."""
    from audiodiff.tempo import spectra

    centres = np.arange(1024, samples.shape[1] - 1024, 1024)
    power = np.square(spectra(samples, 2048, centres))[:, 1:]
    octave = np.log2(np.arange(1, power.shape[1] + 1) * rate / 2048)
    level, middle = 10 * np.log10(power.sum(1) + 1e-12), (power * octave).sum(1) / power.sum(1)
    quarter = len(centres) // 4
    return {
        "seconds": samples.shape[1] / rate,
        "rise, dB": float(level[-quarter:].mean() - level[:quarter].mean()),
        "rise, octaves": float(middle[-quarter:].mean() - middle[:quarter].mean()),
        "loudest, seconds before its end": (samples.shape[1] - centres[level.argmax()]) / rate,
    }


if __name__ == "__main__":
    studio.run(main)
