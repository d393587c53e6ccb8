"""Pictures with captions: rendered scenes, the folders they are kept in, and anyone's own folder.

A data set is a folder as Hugging Face's ``imagefolder`` loader knows it: picture files, and a
``metadata.jsonl`` whose lines hold ``file_name``, ``text`` and any further labels.
"""

import hashlib
import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from imagediff.objects import BACKGROUNDS, VOCABULARY, glyph
from imagediff.placement import Placement, halves, middle, scattered
from imagediff.scattered import SCATTERED, compose_scattered
from imagediff.scenes import (
    PROMPTS,
    Scene,
    compose,
    evaluation_scenes,
    held_out,
    read_prompts,
    write_prompts,
)
from imagediff.shapes import box_of, to_hex
from shared.captioned import METADATA, claim, read_captioned, rows_in, spread
from shared.errors import UserError
from shared.files import whole_file

__all__ = [
    "Drawing",
    "Row",
    "Scene",
    "compose",
    "draw",
    "evaluation_scenes",
    "held_out",
    "layout",
    "read_folder",
    "read_prompts",
    "render",
    "scene_at",
    "write_dataset",
    "write_prompts",
]

ORIGIN = "scenes.json"  # beside the metadata: which seed, size and vocabulary made the pictures
GLYPH_SIDES = (32, 48, 64, 96, 128, 192, 256)  # scales kept ready; the next larger one is shrunk
FILES_PER_FOLDER = 1000
CHUNK = 200  # scenes a worker draws at a time
VISIBLE = 0.15  # of a pixel: where an object begins


@dataclass(frozen=True, eq=False)
class Drawing:
    """A scene as pixels.

    Attributes:
        picture: RGB.
        shares: float32 (h w) of 0..1 for each object in their order: how much of a pixel it is.
    """

    picture: Image.Image
    shares: tuple[np.ndarray, ...]


def layout(scene: Scene) -> tuple[Placement, ...]:
    """Where each object of the scene goes, in the order of ``scene.objects``."""
    if scene.kind == SCATTERED:
        return scattered(scene.seed, len(scene.objects))
    return middle(scene.seed) if scene.relation is None else halves(scene.seed, scene.relation)


def render(scene: Scene, size: int = 128) -> Image.Image:
    """Draw a scene as an RGB picture of ``size`` × ``size`` px; equal scenes give equal pixels.

    Raises:
        UserError: the emoji font is not installed.
    """
    return draw(scene, size).picture


def draw(scene: Scene, size: int = 128) -> Drawing:
    """:func:`render`, and where in the picture its objects are."""
    frame = _background(scene, size)
    shares = []
    for name, place in zip(scene.objects, layout(scene), strict=True):
        layer = np.asarray(_layer(name, scene.colour, place, size), dtype=np.float32)
        shares.append(layer[..., 3] / 255)
        # Porter & Duff 1984, "over", with premultiplied alpha.
        frame = layer[..., :3] + frame * (1 - shares[-1][..., None])
    picture = Image.fromarray(np.clip(frame + 0.5, 0, 255).astype(np.uint8), "RGB")
    return Drawing(picture, tuple(shares))


def _layer(name: str, tint: str | None, place: Placement, size: int) -> Image.Image:
    """One object, turned and scaled into an otherwise transparent frame (mode RGBa)."""
    side = place.side * size
    source = glyph(name, tint, next((s for s in GLYPH_SIDES if s >= side), GLYPH_SIDES[-1]))
    zoom = max(source.size) / side
    cos, sin = (zoom * f(math.radians(place.angle)) for f in (math.cos, math.sin))
    # Pillow wants the way back: from a pixel of the frame to a pixel of the source.
    x, y = place.x * size, place.y * size
    back = (
        *(cos, sin, source.width / 2 - cos * x - sin * y),
        *(-sin, cos, source.height / 2 + sin * x - cos * y),
    )
    return source.transform(
        (size, size), Image.Transform.AFFINE, back, resample=Image.Resampling.BICUBIC
    )


def _background(scene: Scene, size: int) -> np.ndarray:
    """The empty frame, float (size, size, 3) of 0..255: one shade, or from a shade to a lighter."""
    rng = random.Random(~scene.seed)  # not the stream that places the objects
    if scene.background is None:
        shade = rng.uniform(244, 254)
        return np.full((size, size, 3), shade, dtype=np.float32)
    wobble = np.array([rng.uniform(-5, 5) for _ in range(3)], dtype=np.float32)
    color = np.clip(np.array(BACKGROUNDS[scene.background], dtype=np.float32) + wobble, 0, 255)
    if not scene.gradient:
        return np.broadcast_to(color, (size, size, 3))
    depth, angle = rng.uniform(0.15, 0.3), rng.uniform(0, 2 * math.pi)
    dark, light = color * (1 - depth), color + (255 - color) * depth
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    reach = abs(math.cos(angle)) + abs(math.sin(angle))
    ramp = 0.5 + (axis * math.cos(angle) + axis[:, None] * math.sin(angle)) / reach
    return dark + ramp[..., None] * (light - dark)


def scene_at(seed: int, index: int, anywhere: bool = False) -> Scene:
    """Scene number ``index`` of the endless series ``seed``, of scattered objects if asked for."""
    return (compose_scattered if anywhere else compose)(random.Random(f"{seed}/{index}"))


def write_dataset(
    out: Path,
    count: int,
    size: int = 128,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 1,
    anywhere: bool = False,
) -> None:
    """Render the first ``count`` scenes of a series into an imagefolder.

    A picture depends on ``seed`` and its number only, so a larger ``count`` adds to a folder
    written before and an interrupted run goes on where it was. The metadata come last and all at
    once.

    Args:
        out: the folder; made if absent.
        count: how many pictures the folder holds in the end.
        size: side of the pictures, px.
        seed: which series of scenes.
        progress: called as ``progress(done, count)`` after every few hundred pictures.
        workers: processes that draw.
        anywhere: draw one to four objects scattered over the frame, in any size.

    Raises:
        UserError: the folder holds something else, or the emoji font is not installed.
    """
    if count < 1 or size < 16 or workers < 1:
        raise UserError(
            f"count, size and workers are {count}, {size}, {workers}; "
            "at least 1, 16 and 1 are needed"
        )
    origin = {"seed": seed, "size": size, "vocabulary": _vocabulary_hash()}
    claim(out, ORIGIN, origin | ({"anywhere": True} if anywhere else {}), "scenes")
    count = max(count, rows_in(out))
    glyph(scene_at(seed, 0).objects[0])  # a missing font shows here, not inside a worker
    chunks = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    lines: list[str] = []
    for written in spread(partial(_write_chunk, out, size, seed, anywhere), chunks, workers):
        lines += written
        if progress is not None:
            progress(len(lines), count)
    with whole_file(out / METADATA, overwrite=True) as metadata:
        metadata.write("".join(lines).encode())


def _vocabulary_hash() -> str:
    """Tells another vocabulary or other held-out prompts; changes of this code go unnoticed."""
    return hashlib.sha256(VOCABULARY.read_bytes() + PROMPTS.read_bytes()).hexdigest()[:16]


def _write_chunk(out: Path, size: int, seed: int, anywhere: bool, indices: range) -> list[str]:
    """Draw what is not there yet and return the metadata lines."""
    lines = []
    for index in indices:
        scene = scene_at(seed, index, anywhere)
        drawing = draw(scene, size)
        name = f"images/{index // FILES_PER_FOLDER:03d}/{index:06d}.png"
        row = {"file_name": name, "text": scene.caption} | scene.labels()
        row |= {
            "phrases": scene.phrases,
            "boxes": [box_of(share > VISIBLE) for share in drawing.shares],
            "shapes": [to_hex(share) for share in drawing.shares],
        }
        lines.append(json.dumps(row) + "\n")
        path = out / name
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        drawing.picture.save(part, format="PNG", compress_level=1)
        part.replace(path)
    return lines


@dataclass(frozen=True)
class Row:
    """One captioned picture of a folder; ``labels`` are the further columns of its metadata."""

    path: Path
    text: str
    labels: dict = field(default_factory=dict)


def read_folder(path: str | Path) -> list[Row]:
    """Read an imagefolder: pictures with a ``metadata.jsonl`` beside or above them.

    Raises:
        UserError: no metadata, a line that is not a JSON object, a row without text, or a picture
            that is not there.
    """
    return [
        Row(
            entry.path,
            entry.text,
            {k: v for k, v in entry.columns.items() if k not in ("file_name", "text")},
        )
        for entry in read_captioned(Path(path), "picture")
    ]
