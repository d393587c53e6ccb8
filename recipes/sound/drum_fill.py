"""A verse and a chorus side by side, and the last beats of the verse made anew as a drum fill."""

from __future__ import annotations

import numpy as np

from recipes import studio

VERSE = "rock with electric bass and drums in A minor"
CHORUS = "energetic rock with distorted guitar, electric bass and drums in A minor"
FILL = "a rock drum solo, drums and percussion alone"
BPM = 120.0


def main(argv: list[str] | None = None) -> studio.Figures:
    options = studio.parser(__file__, __doc__, "music")
    options.add_argument("--fill", default=FILL, help="a prompt")
    options.add_argument("--beats", type=int, default=2, help="of the fill, 1 to 4")
    args = studio.read(options, argv)
    if not 1 <= args.beats <= 4:
        options.error("--beats is from 1 to 4")
    plain, filled, picture = paths = studio.files(args, "plain.wav", "fill.wav", "drum_fill.png")

    from audiodiff.controls import Controls, from_labels
    from audiodiff.edit_settings import Edit
    from audiodiff.edits import edited
    from audiodiff.labels import Labels
    from audiodiff.sound_file import read_sound
    from shared.sources import file_hash

    beat, bars = 60 / BPM, 1 if args.quick else 2
    pipeline = studio.music(args.music_model)
    with studio.watched(3 * args.steps) as tick:
        sections = [  # of two seeds, or the chorus would be the verse over again
            pipeline(
                prompt, seconds=4 * bars * beat, bpm=BPM, seed=args.seed + i, steps=args.steps,
                callback=tick,
            )[0]
            for i, prompt in enumerate((VERSE, CHORUS))
        ]  # fmt: skip
        song, rate = np.concatenate([s.samples for s in sections], axis=1), sections[0].sample_rate
        told = [section.settings for section in sections]
        studio.save_sound(plain, song, rate, "a verse, then a chorus", told)
        end = 4 * bars * beat  # of the verse
        edit = Edit(
            task="inpaint", source=str(plain), source_hash=file_hash(plain),
            span=(end - args.beats * beat, end),
        )  # fmt: skip

        def on_the_grid(second: float, frames: int) -> Controls:
            """What the model is told of the part that it hears: the beats of the song."""
            beats = tuple(np.arange(8 * bars + 1) * beat)
            labels = Labels(tempo=BPM, meter=4, beats=beats, downbeats=beats[::4])
            return from_labels(labels, frames, second)

        (clip,) = edited(
            pipeline, edit, args.fill, seed=args.seed, steps=args.steps, controls=on_the_grid,
            callback=tick,
        )  # fmt: skip
    clip.save(filled, overwrite=True)
    shown = [("verse | chorus", song), (f"the same with {args.fill}", clip.sound.samples)]
    studio.save_spectrograms(picture, shown, rate)
    return studio.finish(paths, measured(read_sound(plain).samples, clip.sound.samples, rate, edit))


def measured(before: np.ndarray, after: np.ndarray, rate: int, edit) -> studio.Figures:
    """What changed outside of the fill, how much begins in it, and the flux at its joins."""
    from audiodiff.joins import flux_at_joins
    from audiodiff.tempo import ONSET_RATE, onset_strength

    start, end = (round(second * rate) for second in edit.span)
    change = np.abs(after - before).max(axis=0)
    onsets = [onset_strength(one, rate) for one in (before, after)]
    here = slice(*(round(second * ONSET_RATE) for second in edit.span))
    return {
        "largest change outside of the fill": float(np.delete(change, np.s_[start:end]).max()),
        "onset there, over before": float(onsets[1][here].mean() / onsets[0][here].mean()),
        "flux at the joins, over the median": float(max(flux_at_joins(after, [start, end]))),
    }


if __name__ == "__main__":
    studio.run(main)
