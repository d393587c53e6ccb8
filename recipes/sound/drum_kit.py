"""A kit of one-shot drums, each a file cut to its sound, and a beat played on them."""

from __future__ import annotations

import numpy as np

from recipes import studio

# Prompt, spectral centroid (Hz), seconds in which it falls by 30 dB.
KIT = {
    "kick": ("a kick drum", 250, 0.25),
    "snare": ("a snare hit", 3500, 0.25),
    "clap": ("a hand clap", 2200, 0.2),
    "closed-hat": ("a closed hi-hat", 9500, 0.1),
    "open-hat": ("an open hi-hat", 9000, 0.6),
    "low-tom": ("a low tom", 400, 0.4),
    "high-tom": ("a high tom", 800, 0.35),
    "crash": ("a crash cymbal", 7000, 1.3),
}
BEAT = {  # sixteenths of a bar; x is a stroke
    "kick": "x.....x...x.....",
    "snare": "....x.......x...",
    "closed-hat": "x.x.x.x.x.x.x...",
    "open-hat": "..............x.",
}
BPM, BARS = 110, 2
SECONDS = 1.6  # as long as the single drums that the model learnt from


def main(argv: list[str] | None = None) -> studio.Figures:
    options = studio.parser(__file__, __doc__, "music")
    options.add_argument("--tries", type=int, default=1, help="of each drum; the best is kept")
    args = studio.read(options, argv)
    drums = dict(list(KIT.items())[:3]) if args.quick else KIT
    paths = studio.files(args, *(f"{name}.wav" for name in drums), "beat.wav", "drum_kit.png")

    from audiodiff.best import best_of_each
    from audiodiff.inputs.asked import Asked
    from audiodiff.inputs.read import read_sketch
    from audiodiff.one_shots import one_shot

    pipeline, kit, used, figures = studio.music(args.music_model), {}, [], {}
    rate = pipeline.codec.front_end.sample_rate
    with studio.watched(args.steps * args.tries * len(drums)) as tick:
        for (name, (prompt, hertz, fall)), path in zip(drums.items(), paths, strict=False):
            # The words say which drum it is, and what they leave open is held by gradients.
            asked = Asked(
                brightness=str(hertz),
                dynamics=f"0:-10 {fall}:-40 {SECONDS}:-60",
                routes=["gradient"],
            )
            tries = pipeline(
                prompt, seconds=SECONDS, count=args.tries, seed=args.seed, steps=args.steps,
                sketch=read_sketch(asked, prompt, SECONDS).sketch, callback=tick,
            )  # fmt: skip
            (best,) = best_of_each(tries, len(tries))
            kit[name] = 0.9 * one_shot(best.clip.samples, rate, SECONDS)
            used.append(best.clip.settings)
            studio.save_sound(path, kit[name], rate, "cut to its sound", used[-1:])
            figures[f"{name}: where half its power lies, Hz"] = median_hz(kit[name], rate)
            figures[f"{name}: seconds"] = kit[name].shape[1] / rate
    beat = played(kit, rate)
    studio.save_sound(paths[-2], beat, rate, "a beat on the drums beside it", used)
    studio.save_spectrograms(paths[-1], [*kit.items(), ("a beat", beat)], rate, columns=3)
    return studio.finish(paths, figures)


def median_hz(samples: np.ndarray, rate: int) -> float:
    """The frequency below which half of a sound's power (c s) lies."""
    power = np.square(np.abs(np.fft.rfft(samples.mean(axis=0)))).cumsum()
    return float(np.searchsorted(power, power[-1] / 2) * rate / samples.shape[1])


def played(kit: dict[str, np.ndarray], rate: int) -> np.ndarray:
    """The beat (2 s), with a peak of 0.9."""
    step = 15 * rate / BPM  # samples a sixteenth
    whole = np.zeros((2, round(16 * BARS * step) + round(SECONDS * rate)), np.float32)
    for name in kit.keys() & BEAT.keys():
        for place in range(16 * BARS):
            if BEAT[name][place % 16] == "x":
                start = round(place * step)
                whole[:, start : start + kit[name].shape[1]] += kit[name]
    return whole * (0.9 / max(float(np.abs(whole).max()), 1e-9))


if __name__ == "__main__":
    studio.run(main)
