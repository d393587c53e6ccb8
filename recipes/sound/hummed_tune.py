"""A tune that is hummed, played by another instrument: the notes stay, the sound is new."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recipes import studio

TUNE = "C4:1 D4:1 E4:1 C4:1 E4:1 F4:1 G4:2"  # what is hummed if no recording is given
BPM = 90.0


def main(argv: list[str] | None = None) -> studio.Figures:
    options = studio.parser(__file__, __doc__, "music")
    options.add_argument("hum", nargs="?", type=Path, help="a recording of one voice, or MIDI")
    options.add_argument("--as", dest="prompt", default="a folk tune with flute", help="a prompt")
    args = studio.read(options, argv)
    *paths, picture = studio.files(args, "hum.wav", "played.wav", "hummed_tune.png")

    from audiodiff.audio_file import Tags, read_audio, write_audio
    from audiodiff.inputs.asked import Asked
    from audiodiff.inputs.midi import is_midi
    from audiodiff.inputs.read import read_sketch
    from audiodiff.kept import kept

    hum = args.hum
    if hum is None:
        hum, rate = paths[0], 44100
        told = Tags(comment=f"sung by recipes/sound/hummed_tune.py: {TUNE} at {BPM:g} bpm")
        write_audio(hum, hummed(TUNE, rate, quick=args.quick), rate, told, overwrite=True)
    else:
        del paths[0]  # it is there
    # Everything that can be heard of it: pYIN finds the pitch, the notes are data from then on.
    outline = read_sketch(Asked(melody=str(hum)), args.prompt)
    pipeline = studio.music(args.music_model)
    with studio.watched(args.steps) as tick:
        (clip,) = pipeline(
            args.prompt, seconds=outline.seconds, bpm=outline.bpm, sketch=outline.sketch,
            seed=args.seed, steps=args.steps, callback=tick,
        )  # fmt: skip
    clip.save(paths[-1], overwrite=True)
    shown = [(f"played: {args.prompt}", clip.samples)]
    if not is_midi(hum):
        shown.insert(0, ("hummed", read_audio(hum, clip.sample_rate)[0]))
    studio.save_spectrograms(picture, shown, clip.sample_rate)
    found = kept(clip.samples, clip.sample_rate, clip.settings)["melody"]
    assert outline.sketch is not None and outline.sketch.melody is not None
    figures = {"notes that were heard": float(len(outline.sketch.melody.notes))}
    figures |= {f"melody, {name}": float(value) for name, value in found.items()}
    return studio.finish([*paths, picture], figures)


def hummed(tune: str, rate: int, quick: bool) -> np.ndarray:
    """A voice with its lips closed (1 s): three partials, vibrato, glides from note to note."""
    from audiodiff.inputs.grid import steady
    from audiodiff.inputs.text import placed, read_notes

    notes = placed(read_notes(tune, "the tune"), steady(BPM, 4))[: 2 if quick else None]
    time = np.arange(round(notes[-1][1] * rate)) / rate
    pitch, level = np.zeros(len(time)), np.zeros(len(time))
    for start, end, midi in notes:
        inside = (time >= start) & (time < end)
        pitch[inside] = midi
        ramp = np.minimum((time - start) / 0.06, (end - time) / 0.08)
        level[inside] = np.clip(ramp[inside], 0, 1)
    glide = np.hanning(round(0.05 * rate))
    pitch = np.convolve(np.pad(pitch, len(glide) // 2, "edge"), glide / glide.sum(), "same")
    pitch = pitch[len(glide) // 2 :][: len(time)] + 0.15 * np.sin(2 * np.pi * 5.5 * time)
    phase = 2 * np.pi * np.cumsum(440 * 2 ** ((pitch - 69) / 12)) / rate
    voice = sum(np.sin(number * phase) / number**2 for number in (1, 2, 3))
    return (0.3 * level * voice)[None].astype(np.float32)


if __name__ == "__main__":
    studio.run(main)
