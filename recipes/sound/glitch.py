"""Stutter and glitch: beats of a clip are made anew, and their first bits come again and again."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from recipes import studio

PROMPT = "driving techno with synth bass and drums"
BPM = 125.0
# Beats that are made anew, and into how many equal bits, all of them the first one, each is cut.
GLITCHES = {3: 4, 5: 1, 6: 2, 7: 8}


def main(argv: list[str] | None = None) -> studio.Figures:
    options = studio.parser(__file__, __doc__, "music")
    options.add_argument("clip", nargs="?", type=Path, help="a sound file that begins on a beat")
    options.add_argument("--bpm", type=float, default=BPM, help="of the clip")
    options.add_argument("--count", type=int, default=2, help="of variations")
    args = studio.read(options, argv)
    glitches = dict(list(GLITCHES.items())[:2]) if args.quick else GLITCHES
    count = 1 if args.quick else args.count
    names = [f"glitch-{number}.wav" for number in range(1, count + 1)]
    names = names if args.clip else ["plain.wav", *names]
    *paths, picture = studio.files(args, *names, "glitch.png")

    from audiodiff.clip import what_made
    from audiodiff.edit_settings import Edit, check_span
    from audiodiff.edits import edited
    from audiodiff.settings import check_wishes
    from audiodiff.sound_file import read_sound
    from shared.sources import file_hash

    check_wishes(args.bpm, None)
    beat = 60 / args.bpm
    source = args.clip or paths[0]
    pipeline = studio.music(args.music_model)
    with studio.watched(args.steps * (1 + count * len(glitches))) as tick:
        if args.clip is None:
            (clip,) = pipeline(
                PROMPT, seconds=8 * beat, bpm=args.bpm, seed=args.seed, steps=args.steps,
                callback=tick,
            )  # fmt: skip
            clip.save(source, overwrite=True)
        plain = read_sound(source)
        rate, prompt = plain.sample_rate, str(what_made(source).get("prompt", ""))
        made = [plain] * count
        for number, bits in glitches.items():
            span = check_span((number * beat, (number + 1) * beat), plain.seconds)
            edit = Edit(task="vary", source=str(source), source_hash=file_hash(source), span=span)
            new = edited(
                pipeline, edit, prompt, count=count, seed=args.seed, steps=args.steps,
                callback=tick,
            )  # fmt: skip
            start, end = (round(second * rate) for second in span)
            for i, one in enumerate(new):
                part = stuttered(one.sound.samples[:, start:end], bits, rate)
                made[i] = made[i].with_part(start, part)
    told = f"of {source.name}, beats {', '.join(map(str, glitches))} made anew and stuttered"
    for number, (path, sound) in enumerate(zip(paths[-count:], made, strict=True)):
        studio.save_sound(path, sound.samples, rate, f"variation {number + 1} {told}")
    shown = [("as it was", plain), *((f"variation {i + 1}", one) for i, one in enumerate(made))]
    studio.save_spectrograms(picture, [(name, one.samples) for name, one in shown], rate)
    return studio.finish([*paths, picture], measured(plain.samples, made[0].samples, rate, beat))


def stuttered(part: np.ndarray, bits: int, rate: int) -> np.ndarray:
    """The first of so many equal bits of a part (c n) over and over, faded at each end: (c n)."""
    if bits == 1:
        return part
    length, edge = part.shape[1] // bits, round(0.003 * rate)
    bit = part[:, :length].copy()
    bit[:, :edge] *= np.linspace(0, 1, edge)
    bit[:, length - edge :] *= np.linspace(1, 0, edge)
    whole = np.zeros_like(part)
    whole[:, : bits * length] = np.tile(bit, bits)
    return whole


def measured(plain: np.ndarray, glitched: np.ndarray, rate: int, beat: float) -> studio.Figures:
    """Of each beat, how far it is from what it was, over how loud it was."""
    change = np.square(glitched - plain).mean(axis=0)
    power = np.square(plain).mean(axis=0)
    edges = [round(number * beat * rate) for number in range(round(len(power) / rate / beat) + 1)]
    return {
        f"beat {n}: change": float(change[a:b].mean() / max(power[a:b].mean(), 1e-12)) ** 0.5
        for n, (a, b) in enumerate(pairwise(edges))
    }


if __name__ == "__main__":
    studio.run(main)
