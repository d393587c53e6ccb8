"""A kit of one-shot drums, each a file cut to its sound, and a beat played on them."""

from __future__ import annotations

import numpy as np

from recipes import studio

# Prompt, where the middle of its power lies when struck and at the end (Hz), and the seconds in
# which it falls by 30 dB.
KIT = {
    "kick": ("a kick drum", (180, 55), 0.25),
    "snare": ("a snare hit", (1800, 3500), 0.2),
    "clap": ("a hand clap", (1500, 1500), 0.15),
    "closed-hat": ("a closed hi-hat", (9000, 9500), 0.06),
    "open-hat": ("an open hi-hat", (8000, 9500), 0.5),
    "low-tom": ("a low tom", (220, 110), 0.3),
    "high-tom": ("a high tom", (420, 240), 0.25),
    "crash": ("a crash cymbal", (5000, 8000), 1.0),
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
    options.add_argument("--tries", type=int, default=1, help="of each; the shortest is kept")
    args = studio.read(options, argv)
    drums = dict(list(KIT.items())[:3]) if args.quick else KIT
    paths = studio.files(args, *(f"{name}.wav" for name in drums), "beat.wav", "drum_kit.png")

    from audiodiff.one_shots import one_shot
    from audiodiff.shaping import shaped

    pipeline, kit, used, figures = studio.music(args.music_model), {}, [], {}
    rate = pipeline.codec.front_end.sample_rate
    with studio.watched(args.steps * args.tries * len(drums)) as tick:
        for (name, (prompt, (struck, rung), fall)), path in zip(drums.items(), paths, strict=False):
            # The words say which drum it is; what they leave open is held by guidance.
            levels = ((0, 0.0), (fall, -30.0), (SECONDS, -60.0))
            guidance = shaped(pipeline.codec, levels, ((0, struck), (fall, rung)))
            tries = pipeline(
                prompt, seconds=SECONDS, count=args.tries, seed=args.seed + len(kit),
                steps=args.steps, guidances=[guidance], callback=tick,
            )  # fmt: skip
            cuts = [0.9 * one_shot(clip.samples, rate, 0.1 + 3 * fall) for clip in tries]
            best = min(range(len(cuts)), key=lambda i: cuts[i].shape[1])  # dies away soonest
            kit[name] = cuts[best]
            used.append(tries[best].settings)
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
