"""Pictures with captions: rendered scenes, the folders they are kept in, and anyone's own folder.

A data set is a folder as Hugging Face's ``imagefolder`` loader knows it: picture files, and a
``metadata.jsonl`` whose lines hold ``file_name``, ``text`` and any further labels.
"""

import hashlib
import json
import math
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from imagediff.objects import BACKGROUNDS, VOCABULARY, glyph
from imagediff.scenes import (
    PROMPTS,
    Scene,
    compose,
    evaluation_scenes,
    held_out,
    read_prompts,
    write_prompts,
)
from shared.errors import UserError

__all__ = [
    "Placement",
    "Row",
    "Scene",
    "compose",
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

METADATA = "metadata.jsonl"
ORIGIN = "scenes.json"  # beside the metadata: which seed, size and vocabulary made the pictures
GLYPH_SIDES = (32, 48, 64, 96, 128, 192, 256)  # scales kept ready; the next larger one is shrunk
FILES_PER_FOLDER = 1000
CHUNK = 200  # scenes a worker draws at a time


@dataclass(frozen=True)
class Placement:
    """Where an object goes: centre and longest side in frame sides, angle in degrees."""

    x: float
    y: float
    side: float
    angle: float


def layout(scene: Scene) -> tuple[Placement, ...]:
    """Where each object of the scene goes, in the order of ``scene.objects``."""
    rng = random.Random(scene.seed)
    if scene.relation is None:
        side = rng.uniform(0.76, 0.9)
        slack = (0.96 - side) / 2  # turned corners want some room too
        x, y = (0.5 + rng.uniform(-slack, slack) for _ in range(2))
        return (Placement(x, y, side, rng.uniform(-6, 6)),)
    return tuple(_half(rng, scene.relation, subject) for subject in (True, False))


def _half(rng: random.Random, relation: str, subject: bool) -> Placement:
    """Place the subject of a relation, or its other object, in the half that is its own."""
    first_half = subject == (relation in ("left of", "above"))
    along = (0.26 if first_half else 0.74) + rng.uniform(-0.015, 0.015)
    across = 0.5 + rng.uniform(-0.1, 0.1)
    x, y = (along, across) if relation in ("left of", "right of") else (across, along)
    return Placement(x, y, rng.uniform(0.43, 0.48), rng.uniform(-6, 6))


def render(scene: Scene, size: int = 128) -> Image.Image:
    """Draw a scene as an RGB picture of ``size`` × ``size`` px; equal scenes give equal pixels.

    Raises:
        UserError: the emoji font is not installed.
    """
    frame = _background(scene, size)
    for name, place in zip(scene.objects, layout(scene), strict=True):
        layer = np.asarray(_layer(name, scene.colour, place, size), dtype=np.float32)
        # Porter & Duff 1984, "over", with premultiplied alpha.
        frame = layer[..., :3] + frame * (1 - layer[..., 3:] / 255)
    return Image.fromarray(np.clip(frame + 0.5, 0, 255).astype(np.uint8), "RGB")


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


def scene_at(seed: int, index: int) -> Scene:
    """Scene number ``index`` of the endless series ``seed``."""
    return compose(random.Random(f"{seed}/{index}"))


def write_dataset(
    out: Path,
    count: int,
    size: int = 128,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 1,
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

    Raises:
        UserError: the folder holds something else, or the emoji font is not installed.
    """
    if count < 1 or size < 16 or workers < 1:
        raise UserError(
            f"count, size and workers are {count}, {size}, {workers}; "
            "at least 1, 16 and 1 are needed"
        )
    _claim(out, {"seed": seed, "size": size, "vocabulary": _vocabulary_hash()})
    count = max(count, _rows_in(out / METADATA))
    glyph(scene_at(seed, 0).objects[0])  # a missing font shows here, not inside a worker
    chunks = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    lines: list[str] = []
    for written in _spread(partial(_write_chunk, out, size, seed), chunks, workers):
        lines += written
        if progress is not None:
            progress(len(lines), count)
    _write_whole(out / METADATA, "".join(lines).encode())


def _spread(
    work: Callable[[range], list[str]], chunks: list[range], workers: int
) -> Iterator[list[str]]:
    """Results of ``work`` in the order of the chunks, from processes if more than one is wanted."""
    if workers == 1:
        yield from map(work, chunks)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(work, chunks)


def _claim(out: Path, origin: dict) -> None:
    """Make ``out`` the folder of these scenes, or raise if it is anything else already."""
    note = out / ORIGIN
    if note.exists():
        found = json.loads(note.read_text(encoding="utf-8"))
        if found != origin:
            raise UserError(
                f"{out} holds scenes of another seed, size or vocabulary ({found}, not {origin}); "
                "choose another folder"
            )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} holds something other than scenes; choose a new or empty folder")
    else:
        out.mkdir(parents=True, exist_ok=True)
        _write_whole(note, (json.dumps(origin) + "\n").encode())


def _vocabulary_hash() -> str:
    """Tells another vocabulary or other held-out prompts; changes of this code go unnoticed."""
    return hashlib.sha256(VOCABULARY.read_bytes() + PROMPTS.read_bytes()).hexdigest()[:16]


def _rows_in(metadata: Path) -> int:
    if not metadata.exists():
        return 0
    with metadata.open(encoding="utf-8") as lines:
        return sum(1 for _ in lines)


def _write_chunk(out: Path, size: int, seed: int, indices: range) -> list[str]:
    """Draw what is not there yet and return the metadata lines."""
    lines = []
    for index in indices:
        scene = scene_at(seed, index)
        name = f"images/{index // FILES_PER_FOLDER:03d}/{index:06d}.png"
        row = {"file_name": name, "text": scene.caption} | scene.labels()
        lines.append(json.dumps(row) + "\n")
        path = out / name
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        render(scene, size).save(part, format="PNG", compress_level=1)
        part.replace(path)
    return lines


def _write_whole(path: Path, content: bytes) -> None:
    """A reader sees the old file or the new one, never half of it."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    part.replace(path)


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
    folder = Path(path)
    metadata = folder / METADATA
    if not metadata.is_file():
        raise UserError(
            f"{folder} has no {METADATA}; it needs one JSON object a line with file_name and text"
        )
    lines = metadata.read_text(encoding="utf-8").splitlines()
    rows = [
        _read_row(folder, f"{metadata}, line {number}", line)
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not rows:
        raise UserError(f"{metadata} is empty; it needs at least one picture")
    return rows


def _read_row(folder: Path, where: str, line: str) -> Row:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error.msg}); one JSON object a line") from error
    if not isinstance(row, dict):
        raise UserError(f"{where}: not a JSON object; file_name and text are needed")
    for column in ("file_name", "text"):
        if not isinstance(row.get(column), str) or not row[column].strip():
            raise UserError(f"{where}: {column} is missing or empty; every picture needs one")
    picture = folder / row["file_name"]
    if not picture.is_file():
        raise UserError(f"{where}: there is no picture {row['file_name']} in {folder}")
    return Row(
        picture, row["text"], {k: v for k, v in row.items() if k not in ("file_name", "text")}
    )
