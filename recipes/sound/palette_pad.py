"""A picture's palette as a pad: each of its colours is a chord, as long as its share is large."""

from __future__ import annotations

import colorsys

from recipes import studio
from recipes.colours import Colour, read_palette, swatches

COLOURS = ("#1d3557", "#457b9d", "#a8dadc", "#e63946")
BPM, BEATS = 60.0, 8  # all chords together
# Roots of a key's own chords, in fifths from its tonic, and their kinds.
CHORDS = {
    "major": {-1: "", 0: "", 1: "", 2: "m", 3: "m", 4: "m"},
    "minor": {-4: "", -3: "", -2: "", -1: "m", 0: "m", 1: "m"},
}
GREY = 0.12  # saturation below which a colour has no hue


def main(argv: list[str] | None = None) -> studio.Figures:
    options = studio.parser(__file__, __doc__, "music")
    options.add_argument("colours", nargs="*", default=list(COLOURS), help="or a picture file")
    args = studio.read(options, argv)
    clip_path, picture_path = paths = studio.files(args, "pad.wav", "palette_pad.png")

    from audiodiff.inputs.asked import Asked
    from audiodiff.inputs.read import read_sketch
    from audiodiff.kept import kept
    from audiodiff.plot import draw_spectrogram, stack

    palette, bpm = read_palette(args.colours), 4 * BPM if args.quick else BPM
    chords, prompt = chords_of(palette), words_of(palette)
    times = [sum(beats for _, beats in chords[:i]) * 60 / bpm for i in range(len(chords))]
    bright = [
        f"{time:.2f}:{500 * 6 ** (sum(colour) / 765):.0f}"  # light colours sound bright
        for time, (_, colour) in zip(times, palette, strict=True)
    ]
    asked = Asked(
        chords=" ".join(f"{name}:{beats:g}" for name, beats in chords),
        brightness=" ".join(bright),
        routes=["chords=both"],
        weights=["brightness=0.4"],
    )
    outline = read_sketch(asked, prompt, 60 * BEATS / bpm, bpm)
    pipeline = studio.music(args.music_model)
    with studio.watched(args.steps) as tick:
        (clip,) = pipeline(
            prompt, seconds=outline.seconds, bpm=bpm, sketch=outline.sketch, seed=args.seed,
            steps=args.steps, callback=tick,
        )  # fmt: skip
    clip.save(clip_path, overwrite=True)
    caption = f"{prompt}: {asked.chords}"
    drawn = draw_spectrogram(clip.samples, clip.sample_rate, caption)
    strip = swatches(palette, (drawn.width, 60))
    studio.save_picture(picture_path, stack([strip, drawn]), "a palette, and its pad", colours=64)
    found = kept(clip.samples, clip.sample_rate, clip.settings)
    figures = {"chords that overlap": float(found["chords"]["overlap"])}
    figures |= {f"brightness, {name}": float(v) for name, v in found["brightness"].items()}
    return studio.finish(paths, figures)


def chords_of(palette: list[tuple[float, Colour]]) -> list[tuple[str, float]]:
    """A chord and its beats for each colour, the hues laid round the circle of fifths.

    The largest colour is the tonic; a light palette is in major, a dark one in minor.
    """
    from audiodiff.theory import PITCH_CLASSES

    light = sum(share * sum(colour) / 765 for share, colour in palette)
    kinds = CHORDS["major" if light >= 0.5 else "minor"]
    tonic = fifths(palette[0][1]) or 0
    found = []
    for share, colour in palette:
        place = fifths(colour)
        away = 0 if place is None else (place - tonic + 6) % 12 - 6
        step = min(kinds, key=lambda own: abs(own - away))
        name = PITCH_CLASSES[7 * (tonic + step) % 12] + kinds[step]
        found.append((name, max(0.5, round(2 * BEATS * share) / 2)))
    return found


def fifths(colour: Colour) -> int | None:
    """The place of a hue on the circle of fifths, red being C; None for grey."""
    hue, _, saturation = colorsys.rgb_to_hls(*(value / 255 for value in colour))
    return None if saturation < GREY else round(12 * hue) % 12


def words_of(palette: list[tuple[float, Colour]]) -> str:
    """A warm pad for warm colours, a cold one for cold ones."""
    warmth = sum(share * (red - blue) for share, (red, _, blue) in palette)
    return "a warm synth pad" if warmth > 0 else "a glassy synth pad"


if __name__ == "__main__":
    studio.run(main)
