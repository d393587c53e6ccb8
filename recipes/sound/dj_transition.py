"""Two tracks of two tempi and a transition between them: both stay as they are outside of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recipes import studio

TRACKS = (
    ("house with synth bass, synth pad and drums in A minor", 122.0),
    ("driving techno with synth bass and drums in A minor", 130.0),
)


def main(argv: list[str] | None = None) -> studio.Figures:
    options = studio.parser(__file__, __doc__, "music")
    options.add_argument("tracks", nargs="*", type=Path, help="two sound files")
    options.add_argument("--overlap", type=float, default=3.9, help="seconds of the transition")
    options.add_argument("--prompt", default="house and techno with synth bass and drums")
    args = studio.read(options, argv)
    if len(args.tracks) not in (0, 2):
        options.error("two TRACKS are needed, or none")
    overlap, seconds = (1.0, 1.5) if args.quick else (args.overlap, 8.0)
    names = [] if args.tracks else ["first.wav", "second.wav"]
    *made, mix, picture = paths = studio.files(args, *names, "mix.wav", "dj_transition.png")

    from audiodiff.edit_settings import Edit, check_overlap
    from audiodiff.edits import alike as in_its_form
    from audiodiff.edits import edited
    from audiodiff.sound_file import read_sound
    from shared.sources import file_hash

    pipeline = studio.music(args.music_model)
    with studio.watched((1 + len(made)) * args.steps) as tick:
        for path, (prompt, bpm) in zip(made, TRACKS, strict=False):
            (clip,) = pipeline(
                prompt, seconds=seconds, bpm=bpm, seed=args.seed, steps=args.steps, callback=tick
            )
            clip.save(path, overwrite=True)
        first, second = args.tracks or made
        sounds = [read_sound(first), read_sound(second)]
        check_overlap(overlap, min(sound.seconds for sound in sounds))
        edit = Edit(
            task="blend", source=str(first), source_hash=file_hash(first), other=str(second),
            other_hash=file_hash(second), overlap=overlap,
        )  # fmt: skip
        (clip,) = edited(
            pipeline, edit, args.prompt, seed=args.seed, steps=args.steps, callback=tick
        )
    clip.save(mix, overwrite=True)
    rate = clip.sound.sample_rate
    shown = [
        (path.name, sound.samples) for path, sound in zip((first, second), sounds, strict=True)
    ]
    shown.append((f"the mix, {overlap:g} s of transition", clip.sound.samples))
    studio.save_spectrograms(picture, shown, rate)
    ends = (sounds[0].samples, in_its_form(sounds[1], sounds[0]).samples)
    return studio.finish(paths, measured(clip.sound.samples, ends, rate))


def measured(mix: np.ndarray, ends: tuple[np.ndarray, np.ndarray], rate: int) -> studio.Figures:
    """How much of both tracks is there to the bit, and how loud it is between them."""
    from audiodiff.loudness import loudness

    before = alike(mix, ends[0])
    after = alike(mix[:, ::-1], ends[1][:, ::-1])
    between = mix[:, before : mix.shape[1] - after]
    level = loudness(between, rate)
    return {
        "seconds of the first that stay to the bit": before / rate,
        "seconds of the second": after / rate,
        "seconds between": between.shape[1] / rate,
        "loudness there over the quieter track's, LU": level - min(loudness(e, rate) for e in ends),
    }


def alike(first: np.ndarray, second: np.ndarray) -> int:
    """How many samples two sounds (c s) have in common from their beginning on."""
    length = min(first.shape[1], second.shape[1])
    differs = (first[:, :length] != second[:, :length]).any(axis=0)
    return int(differs.argmax()) if differs.any() else length


if __name__ == "__main__":
    studio.run(main)
