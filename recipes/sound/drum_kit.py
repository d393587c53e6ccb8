"""A kit of one-shot drums, each a file cut to its sound, and a beat played on them."""

from __future__ import annotations

import numpy as np

from recipes import studio

KIT = {
    "kick": "a kick drum",
    "snare": "a snare hit",
    "clap": "a hand clap",
    "closed-hat": "a closed hi-hat",
    "open-hat": "an open hi-hat",
    "low-tom": "a low tom",
    "high-tom": "a high tom",
    "crash": "a crash cymbal",
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
    options.add_argument("--tries", type=int, default=2, help="of each drum; the driest is kept")
    args = studio.read(options, argv)
    drums = dict(list(KIT.items())[:3]) if args.quick else KIT
    paths = studio.files(args, *(f"{name}.wav" for name in drums), "beat.wav", "drum_kit.png")

    from audiodiff.one_shots import one_shot

    pipeline, kit, used, figures = studio.music(args.music_model), {}, [], {}
    rate = pipeline.codec.front_end.sample_rate
    how = {"seconds": SECONDS, "count": args.tries, "seed": args.seed, "steps": args.steps}
    with studio.watched(args.steps * args.tries * len(drums)) as tick:
        for (name, prompt), path in zip(drums.items(), paths, strict=False):
            tries = pipeline(prompt, **how, callback=tick)
            cuts = [0.9 * one_shot(clip.samples, rate, SECONDS) for clip in tries]
            best = max(range(len(cuts)), key=lambda i: dryness(cuts[i], rate))
            kit[name] = cuts[best]
            used.append(tries[best].settings)
            figures[f"{name}: share of energy in its first 0.2 s"] = dryness(cuts[best], rate)
            studio.save_sound(path, cuts[best], rate, "cut to its sound", [tries[best].settings])
    beat = played(kit, rate)
    studio.save_sound(paths[-2], beat, rate, "a beat on the drums beside it", used)
    studio.save_spectrograms(paths[-1], [*kit.items(), ("a beat", beat)], rate, columns=3)
    return studio.finish(paths, figures)


def dryness(samples: np.ndarray, rate: int) -> float:
    """The share of a sound's energy (c s) that lies in its first fifth of a second."""
    return float(np.square(samples[:, : rate // 5]).sum() / max(np.square(samples).sum(), 1e-9))


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
