"""What scenes are made of: the named objects, the named colours, and their pixels.

``objects.json`` is the vocabulary, one object a line: the emoji, its name, the noun phrases a
person would use (article included, so "a slice of pizza" and "grapes" both read well), and two
measured lists: the backgrounds on which it would vanish and the colours it can be repainted in so
that the change shows. Composing captions needs this file only; pixels need the emoji font.
"""

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from shared.errors import UserError

Color = tuple[int, int, int]

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
FONT_SIZE = 109  # the font holds bitmaps of this one size
CELL = (136, 128)  # width and height of each bitmap, px
VOCABULARY = Path(__file__).with_name("objects.json")

BACKGROUNDS: dict[str, Color] = {
    "white": (252, 252, 252),
    "black": (18, 18, 20),
    "gray": (136, 138, 142),
    "red": (212, 38, 40),
    "orange": (246, 140, 26),
    "yellow": (250, 218, 60),
    "green": (46, 160, 66),
    "blue": (38, 82, 214),
    "light blue": (150, 208, 246),
    "purple": (124, 58, 182),
    "pink": (250, 150, 196),
    "brown": (118, 74, 44),
    "teal": (16, 140, 140),
}
TINTS: dict[str, Color] = {
    "red": (214, 34, 40),
    "orange": (246, 134, 20),
    "yellow": (248, 212, 40),
    "green": (44, 164, 62),
    "blue": (36, 88, 220),
    "purple": (130, 56, 190),
    "pink": (250, 130, 186),
    "brown": (120, 74, 42),
    "gray": (140, 142, 146),
    "black": (44, 44, 48),
}

# Distances in Oklab, where black to white is 1. Set by eye on contact sheets.
PIXEL_SHOWS = 0.14
REPAINT_SHOWS = 0.15
BACKGROUND_SHOWS = 0.18


@dataclass(frozen=True)
class SceneObject:
    """One line of the vocabulary.

    ``phrases`` starts with the plain name; ``clashes`` are names of `BACKGROUNDS` that swallow the
    object; ``tints`` are names of `TINTS` in which it looks repainted.
    """

    emoji: str
    name: str
    phrases: tuple[str, ...]
    clashes: tuple[str, ...] = ()
    tints: tuple[str, ...] = ()


@lru_cache(maxsize=1)
def objects() -> dict[str, SceneObject]:
    """The vocabulary by name, in the order of the file."""
    rows = json.loads(VOCABULARY.read_text(encoding="utf-8"))
    things = [
        SceneObject(
            row["emoji"],
            row["name"],
            tuple(row["phrases"]),
            tuple(row["clashes"]),
            tuple(row["tints"]),
        )
        for row in rows
    ]
    return {thing.name: thing for thing in things}


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont:
    if not FONT.exists():
        raise UserError(
            f"drawing scenes needs the emoji font {FONT}; "
            "install the Debian package fonts-noto-color-emoji"
        )
    return ImageFont.truetype(FONT, FONT_SIZE)


@lru_cache(maxsize=512)
def _bitmap(emoji: str) -> Image.Image:
    """The emoji as RGBA, cropped to what is drawn."""

    def draw(paper: int) -> np.ndarray:
        cell = Image.new("RGB", CELL, (paper, paper, paper))
        ImageDraw.Draw(cell).text((0, 0), emoji, font=_font(), embedded_color=True)
        return np.asarray(cell, dtype=np.int16)

    # Text drawn on transparent paper gets dark fringes (Pillow blends the alpha band too); black
    # paper gives the premultiplied colours, and what white paper adds tells the alpha.
    premultiplied = draw(0)
    alpha = 255 - (draw(255) - premultiplied).max(axis=-1, keepdims=True)
    bands = np.concatenate([np.minimum(premultiplied, alpha), alpha], axis=-1).astype(np.uint8)
    cell = Image.frombytes("RGBa", CELL, bands.tobytes()).convert("RGBA")
    box = cell.getbbox()
    if box is None:
        raise UserError(f"the emoji font has no glyph for {emoji!r}; install a newer font")
    return cell.crop(box)


@lru_cache(maxsize=2048)
def glyph(name: str, tint: str | None = None, side: int = CELL[1]) -> Image.Image:
    """One object's pixels: RGBa (alpha premultiplied), the longest side being ``side`` px."""
    bitmap = _bitmap(objects()[name].emoji)
    if tint is not None:
        bitmap = repaint(bitmap, TINTS[tint])
    scale = side / max(bitmap.size)
    width, height = (max(1, round(extent * scale)) for extent in bitmap.size)
    return bitmap.convert("RGBa").resize((width, height), Image.Resampling.LANCZOS)


def repaint(bitmap: Image.Image, color: Color) -> Image.Image:
    """Paint an RGBA bitmap in shades of one colour, so that its drawing stays readable.

    Luminance goes through a ramp from a dark shade over the colour to a light shade. The median of
    the object's own luminance meets the colour itself, hence dark and pale objects both take it on.
    """
    pixels = np.asarray(bitmap, dtype=np.float32)
    luminance = pixels[..., :3] @ np.array([0.299, 0.587, 0.114], dtype=np.float32) / 255
    low, middle, high = np.percentile(luminance[pixels[..., 3] > 128], (3, 50, 97))
    # A nearly flat object would otherwise have its noise stretched over the whole ramp.
    knots = (min(low, middle - 0.25), middle, max(high, middle + 0.25))
    paint = np.array(color, dtype=np.float32)
    ramp = np.stack([0.3 * paint, paint, 0.6 * paint + 0.4 * 255])
    painted = np.stack([np.interp(luminance, knots, ramp[:, c]) for c in range(3)], axis=-1)
    return Image.fromarray(
        np.concatenate([painted, pixels[..., 3:]], axis=-1).round().astype(np.uint8), "RGBA"
    )


def oklab(rgb: np.ndarray) -> np.ndarray:
    """sRGB values of 0..255, shape (..., 3), in Oklab.

    Ottosson 2020, "A perceptual color space for image processing".
    """
    srgb = np.asarray(rgb, dtype=np.float64) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    cones = linear @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    return np.cbrt(cones) @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ]
    )


def distance(first: np.ndarray | Color, second: np.ndarray | Color) -> np.ndarray:
    """Oklab distance between sRGB colours of shapes that broadcast, (..., 3) -> (...)."""
    return np.linalg.norm(oklab(np.asarray(first)) - oklab(np.asarray(second)), axis=-1)


def tint_shows(tint: str, background: str | None) -> bool:
    """Whether an object repainted in ``tint`` stands out from the background (None: near-white)."""
    return bool(distance(TINTS[tint], BACKGROUNDS[background or "white"]) > BACKGROUND_SHOWS)


def measure(thing: SceneObject) -> SceneObject:
    """The same object with ``clashes`` and ``tints`` measured on its pixels."""
    bitmap = _bitmap(thing.emoji)
    opaque = np.asarray(bitmap)[..., 3] > 128

    def pixels(image: Image.Image) -> np.ndarray:
        return np.asarray(image)[opaque][:, :3]

    shown = {
        name: (distance(pixels(bitmap), color) > PIXEL_SHOWS).mean()
        for name, color in BACKGROUNDS.items()
    }
    moved = {
        name: distance(pixels(bitmap), pixels(repaint(bitmap, color))).mean()
        for name, color in TINTS.items()
    }
    return SceneObject(
        thing.emoji,
        thing.name,
        thing.phrases,
        clashes=tuple(name for name, share in shown.items() if share < 0.4),
        tints=tuple(name for name, change in moved.items() if change > REPAINT_SHOWS),
    )


def write_vocabulary(path: Path = VOCABULARY) -> None:
    """Measure every object again and rewrite the vocabulary (after adding a line to it)."""
    rows = [json.dumps(asdict(measure(thing)), ensure_ascii=False) for thing in objects().values()]
    path.write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")
    objects.cache_clear()
