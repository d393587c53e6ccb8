"""Pictures of many prompts, each in its own PNG file, and a contact sheet of all with captions.

`make demo` runs this as it is. `--random 32` draws prompts by lot from the evaluation's instead,
whose combinations were held out of training.
"""

import argparse
import random
import sys
from pathlib import Path

from tqdm import tqdm

from imagediff import ImagePipeline
from imagediff.png import save_png
from imagediff.scenes import read_prompts
from imagediff.sheets import captioned_sheet
from shared.errors import UserError
from shared.files import slug

PROMPTS = (
    "a red apple",
    "a lion on a light blue background",
    "a purple cat",
    "a robot to the left of a tree",
    "a sailboat on a blue background",
    "a guitar",
    "a green dog",
    "a crown above a frog",
    "a cupcake on a pink background",
    "an octopus",
    "a blue rose",
    "a rocket above a house",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for the pictures")
    parser.add_argument("--model", default="builtin", help="name or folder of a model")
    parser.add_argument("--random", type=int, metavar="N", help="draw N evaluation prompts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--columns", type=int, default=0, help="pictures a row (default: 4 to 8)")
    parser.add_argument("--quick", action="store_true", help="two prompts, four steps")
    args = parser.parse_args()

    prompts = list(PROMPTS)
    if args.random:
        known = [row["prompt"] for row in read_prompts()]
        prompts = random.Random(args.seed).sample(known, min(args.random, len(known)))
    steps = args.steps
    if args.quick:
        prompts, steps = prompts[:2], 4

    args.out.mkdir(parents=True, exist_ok=True)
    pipeline = ImagePipeline.load(args.model)
    plan = pipeline.plan(prompts, seed=args.seed, steps=steps)
    paths = [args.out / f"{slug(one.prompt)}-{one.seed}.png" for one in plan]
    pictures = []
    for picture in tqdm(pipeline.generate(plan), total=len(plan), unit="picture"):
        save_png(picture, paths[len(pictures)], plan[len(pictures)], overwrite=True)
        pictures.append(picture)
    sheet = args.out / "sheet.png"
    columns = args.columns or (min(len(pictures), 4) if len(pictures) <= 16 else 8)
    captioned_sheet(pictures, prompts, columns).save(sheet)
    print(*paths, sheet, sep="\n")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"demo_sheet.py: {error}")
