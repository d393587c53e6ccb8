"""One progression of chords in eight styles."""

from __future__ import annotations

from recipes import studio

# Prompt and the tempo that is at home in the style.
STYLES = (
    ("a jazz swing trio with piano, double bass and drums", 120.0),
    ("a mellow bossa nova with acoustic guitar", 110.0),
    ("driving techno with synth bass and drums", 128.0),
    ("a folk tune with acoustic guitar", 100.0),
    ("cinematic strings", 80.0),
    ("reggae with organ and electric bass", 90.0),
    ("synthwave with synth lead and synth bass", 100.0),
    ("rock with distorted guitar, electric bass and drums", 120.0),
)
BARS = 2  # of the chords that are heard


def main(argv: list[str] | None = None) -> studio.Figures:
    options = studio.parser(__file__, __doc__, "music")
    options.add_argument("chords", nargs="?", default="Am:2 F:2 C:2 G:2", help="with their beats")
    args = studio.read(options, argv)
    styles = STYLES[:2] if args.quick else STYLES
    names = [prompt.split(" with")[0].replace(" ", "-") for prompt, _ in styles]
    *paths, picture = studio.files(args, *(f"{name}.wav" for name in names), "eight_styles.png")

    from audiodiff.inputs.asked import Asked
    from audiodiff.inputs.read import read_sketch
    from audiodiff.kept import kept

    asked = Asked(chords=args.chords, routes=["chords=both"])

    pipeline = studio.music(args.music_model)
    shown, figures = [], {}
    with studio.watched(args.steps * len(styles)) as tick:
        for path, (prompt, bpm) in zip(paths, styles, strict=True):
            seconds = BARS * 4 * 60 / bpm
            (clip,) = pipeline(
                prompt, seconds=seconds, bpm=bpm, seed=args.seed, steps=args.steps,

                sketch=read_sketch(asked, prompt, seconds, bpm).sketch, callback=tick,
            )  # fmt: skip
            clip.save(path, overwrite=True)
            shown.append((f"{args.chords}: {prompt}, {bpm:g} bpm", clip.samples))
            found = kept(clip.samples, clip.sample_rate, clip.settings)["chords"]
            figures[f"{path.stem}: chords that overlap"] = float(found["overlap"])
    rate = pipeline.codec.front_end.sample_rate
    studio.save_spectrograms(picture, shown, rate, columns=2)
    return studio.finish([*paths, picture], figures)


if __name__ == "__main__":
    studio.run(main)
