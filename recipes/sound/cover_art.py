"""A cover for a clip: what its prompt names is drawn, its key and loudness choose the colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from recipes import studio

PROMPT = "a folk tune with acoustic guitar in G major, 100 bpm"
# Words of music, and what the picture model can draw of them; the first that a prompt has counts.
SEEN = {
    "guitar": "a guitar",
    "piano": "a piano",
    "violin": "a violin",
    "strings": "a violin",
    "saxophone": "a saxophone",
    "trumpet": "a trumpet",
    "brass": "a trumpet",
    "drum": "a drum",
    "chiptune": "a game controller",
    "techno": "a disco ball",
    "house": "headphones",
    "ambient": "a cloud",
    "synth": "a radio",
    "waltz": "a dancer",
    "choir": "a microphone",
}
# Backgrounds round the circle of fifths from C, bright keys and dark ones.
MAJOR = ("yellow", "orange", "red", "pink", "light blue", "green")
MINOR = ("blue", "purple", "teal", "brown", "gray", "black")
SIDE = 512


def main(argv: list[str] | None = None) -> studio.Figures:
    options = studio.parser(__file__, __doc__, "music", "image")
    options.add_argument("clip", nargs="?", type=Path, help="a sound file")
    options.add_argument("--title", help="by default what the clip was made of")
    args = studio.read(options, argv)
    names = [] if args.clip else ["music.wav"]
    *made, drawn, cover = paths = studio.files(args, *names, "drawn.png", "cover_art.png")

    from audiodiff.analysis import analyse
    from audiodiff.audio_file import read_audio
    from audiodiff.clip import what_made
    from imagediff.png import save_png

    if args.clip is None:
        seconds = 1.5 if args.quick else 6.0
        (clip,) = studio.music(args.music_model)(
            PROMPT, seconds=seconds, seed=args.seed, steps=args.steps
        )
        clip.save(made[0], overwrite=True)
    path = args.clip or made[0]
    samples, rate = read_audio(path)
    heard, words = analyse(samples, rate), str(what_made(path).get("prompt", ""))
    pipeline = studio.pictures(args.image_model)
    (settings,) = pipeline.plan(prompt_for(words, heard.key), seed=args.seed, steps=args.steps)
    with studio.watched(args.steps) as tick:
        (picture,) = pipeline.generate([settings], tick)
    save_png(picture, drawn, settings, overwrite=True)
    tempo = f"{heard.tempo:.0f} bpm" if heard.tempo else None
    facts = " · ".join(filter(None, (heard.key, tempo, f"{heard.seconds:.0f} s")))
    page = laid_out(picture, args.title or words or path.stem, facts, samples)
    studio.save_picture(cover, page, "a cover", [settings])
    return studio.finish(paths, {"heard tempo, bpm": heard.tempo or 0, **told(picture)})


def prompt_for(words: str, key: str | None) -> str:
    """What to draw for a clip of that prompt that is heard in that key."""
    from audiodiff.theory import parse_key

    thing = next((seen for word, seen in SEEN.items() if word in words.lower()), "headphones")
    if key is None:
        return f"{thing} on a gray background"
    tonality = parse_key(key)
    place = 7 * tonality.tonic % 12 // 2  # steps on the circle of fifths, two and two
    colour = (MINOR if tonality.mode == "minor" else MAJOR)[place]
    return f"{thing} on {'an' if colour == 'orange' else 'a'} {colour} background"


def told(picture: Image.Image) -> studio.Figures:
    """The mean colour of a picture's border, which is its background's."""
    pixels = np.asarray(picture, float)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    names = ("red", "green", "blue")
    return {f"border, {c}": float(v) for c, v in zip(names, border.mean(0), strict=True)}


def laid_out(picture: Image.Image, title: str, facts: str, samples: np.ndarray) -> Image.Image:
    """The picture with the clip's wave and words beneath."""
    page = Image.new("RGB", (SIDE, SIDE + 112), "white")
    page.paste(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (0, 0))
    draw = ImageDraw.Draw(page)
    parts = np.array_split(np.abs(samples).max(axis=0), SIDE // 4)
    for number, part in enumerate(parts):
        half = max(1, round(20 * float(part.max(initial=0))))
        draw.line((4 * number + 1, SIDE + 28 - half, 4 * number + 1, SIDE + 28 + half), "black", 2)
    draw.text((12, SIDE + 56), title[:56], "black", ImageFont.load_default(18))
    draw.text((12, SIDE + 82), facts, "dimgray", ImageFont.load_default(14))
    return page


if __name__ == "__main__":
    studio.run(main)
