"""Clips of four prompts, each in its own file that carries what made it, and their spectrograms.

`make demo` runs this as it is.
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from audiodiff import MusicPipeline
from audiodiff.plot import draw_spectrogram, stack
from shared.errors import UserError
from shared.files import slug, whole_file

# Prompt and seconds; the last is longer than the model's own window.
CLIPS = (
    ("a slow jazz trio of piano, double bass and drums in A minor, 80 bpm", 6.0),
    ("driving techno with synth bass and drums, 132 bpm", 6.0),
    ("a gentle waltz for solo piano in D major, 96 bpm", 6.0),
    ("calm ambient music with synth pads, chords Am F C G, 70 bpm", 14.0),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for the clips")
    parser.add_argument("--model", default="builtin", help="name or folder of a model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--quick", action="store_true", help="two short clips, four steps")
    args = parser.parse_args()

    clips, steps = list(CLIPS), args.steps
    if args.quick:
        clips, steps = [(prompt, 2.0) for prompt, _ in clips[:2]], 4

    args.out.mkdir(parents=True, exist_ok=True)
    pipeline = MusicPipeline.load(args.model)
    paths, pictures = [], []
    for prompt, seconds in tqdm(clips, unit="clip"):
        (clip,) = pipeline(prompt, seconds=seconds, seed=args.seed, steps=steps)
        path = args.out / f"{slug(prompt)}-{args.seed}.wav"
        clip.save(path, overwrite=True)
        paths.append(path)
        pictures.append(draw_spectrogram(clip.samples, clip.sample_rate, prompt))
    sheet = args.out / "spectrograms.png"
    with whole_file(sheet, overwrite=True) as file:
        stack(pictures).save(file, format="PNG")
    print(*paths, sheet, sep="\n")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"demo_music.py: {error}")
