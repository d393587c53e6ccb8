"""Run every recipe for sound and pictures and lay their pictures out on the README's two sheets.

What was made before is not made again, so that an interrupted run goes on where it was; delete the
folder to begin anew, as after a change of the models.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from recipes import studio
from shared.errors import UserError

ROOT = Path(__file__).resolve().parent
TILE = (400, 250)  # pixels that a recipe's picture has room in, each beneath its name
NAME = 18
COLUMNS = 3
COLOURS = {"sound": 48, "image": 160}  # of a sheet's palette


def main(argv: list[str] | None = None) -> studio.Figures:
    options = studio.parser(__file__, __doc__)
    options.add_argument("--sheets", type=Path, default=Path("docs/recipes"), help="a folder")
    options.add_argument("--only", nargs="+", default=[], help="names of recipes; no sheets then")
    args = studio.read(options, argv)
    common = ["--seed", str(args.seed), "--steps", str(args.steps), "--overwrite"]
    sheets, figures = [], {}
    for kind in COLOURS:
        names = sorted(path.stem for path in (ROOT / kind).glob("*.py"))
        shown = []
        for name in (one for one in names if not args.only or one in args.only):
            folder = args.out / name
            if not (folder / f"{name}.png").exists():
                recipe = importlib.import_module(f"recipes.{kind}.{name}")
                try:
                    recipe.main([*common, "--out", str(folder), *["--quick"] * args.quick])
                except UserError as error:  # a model that it needs is not there
                    print(f"{name} is left out: {error}", file=sys.stderr)
                    continue
            shown.append((name, folder / f"{name}.png"))
        if not args.only:
            args.sheets.mkdir(parents=True, exist_ok=True)
            sheets.append(args.sheets / f"{kind}.png")
            studio.save_picture(sheets[-1], sheet(shown), "recipes", colours=COLOURS[kind])
            figures[f"{kind}.png, KiB"] = sheets[-1].stat().st_size / 1024
    return studio.finish(sheets, figures)


def sheet(pictures: list[tuple[str, Path]]) -> Image.Image:
    """The pictures of files, each beneath its name, in rows."""
    width, height = TILE[0] + 8, TILE[1] + NAME + 8
    rows = -(-len(pictures) // COLUMNS)
    page = Image.new("RGB", (width * min(COLUMNS, len(pictures)), height * rows), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for number, (name, path) in enumerate(pictures):
        x, y = number % COLUMNS * width + 4, number // COLUMNS * height
        with Image.open(path) as opened:
            picture = opened.convert("RGBA")
        picture.thumbnail(TILE, Image.Resampling.LANCZOS)
        draw.text((x, y + 2), name, "black", font)
        # Stickers have no paper of their own.
        paper = Image.new("RGBA", picture.size, (214, 224, 232))
        page.paste(Image.alpha_composite(paper, picture).convert("RGB"), (x, y + NAME))
    return page


if __name__ == "__main__":
    studio.run(main)
