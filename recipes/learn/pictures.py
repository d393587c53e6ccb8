"""Small pictures to learn from: Fashion-MNIST, or without it digits drawn by Pillow."""

import gzip
import hashlib
import http.client
import math
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from shared.errors import UserError
from shared.files import check_writable, whole_file

SIZE = 28  # pixels a side
CLASSES = 10

# Xiao et al. 2017, arXiv 1708.07747; the MD5 sums are those of its authors' README.
URL = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
MD5 = {IMAGES: "8d4fb7e6c68d591d4c3dfef9ec88bf0d", LABELS: "25c81989df183df01b3e8a0aad5dffbe"}


@dataclass(frozen=True, eq=False)
class Pictures:
    """A data set.

    Attributes:
        name: "fashion" or "digits".
        images: (n 1 28 28) in [-1, 1].
        labels: (n,) 0 to 9.
    """

    name: str
    images: Tensor
    labels: Tensor


def load_pictures(folder: Path | None, download: bool, quick: bool = False) -> Pictures:
    """Fashion-MNIST from its two training files in a folder, or 3000 drawn digits without one.

    Args:
        download: fetch what the folder lacks.
        quick: 200 pictures will do.

    Raises:
        UserError: the files are missing, broken, or not to be had.
    """
    if folder is None:
        if download:
            raise UserError("--download needs --data, the folder to download to")
        return draw_digits(200 if quick else 3000)
    if download:
        _download(folder)
    images, labels = read_idx(folder, IMAGES, 3), read_idx(folder, LABELS, 1)
    if len(images) != len(labels) or images.shape[1:] != (SIZE, SIZE) or labels.max() >= CLASSES:
        raise UserError(
            f"{folder}: {IMAGES} and {LABELS} must hold as many 28x28 pictures as labels 0 to 9"
        )
    count = 200 if quick else len(images)
    levels = torch.from_numpy(images[:count].astype(np.float32)) / 127.5 - 1
    return Pictures("fashion", levels[:, None], torch.from_numpy(labels[:count].astype(np.int64)))


def read_idx(folder: Path, name: str, axes: int) -> np.ndarray:
    """One array of bytes in MNIST's idx format, from the file or from its .gz.

    Raises:
        UserError: no such file, or something else in it.
    """
    plain, packed = folder / name, folder / f"{name}.gz"
    try:
        data = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
    except (OSError, EOFError) as error:
        raise UserError(f"{folder} needs a readable {name} or {name}.gz; see --download") from error
    # Magic number: two zeros, 8 for unsigned bytes, the number of axes; then their lengths.
    header = 4 + 4 * axes
    if data[:4] == bytes((0, 0, 8, axes)) and len(data) > header:
        shape = tuple(np.frombuffer(data[4:header], ">u4").tolist())
        if len(data) == header + math.prod(shape):
            return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
    raise UserError(f"{folder / name} is no idx file of bytes with {axes} axes")


def draw_digits(count: int) -> Pictures:
    """Digits of varying size, weight, slant and place: a stand-in that needs no network."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % CLASSES
    images = np.stack([_draw_digit(str(label), rng) for label in labels])
    return Pictures("digits", torch.from_numpy(images)[:, None] * 2 - 1, torch.from_numpy(labels))


def _draw_digit(text: str, rng: np.random.Generator) -> np.ndarray:
    fine = 3 * SIZE
    page = Image.new("L", (fine, fine))
    font = ImageFont.load_default(size=int(rng.integers(62, 82)))
    ImageDraw.Draw(page).text(
        (fine / 2, fine / 2), text, 255, font, anchor="mm", stroke_width=int(rng.integers(0, 4))
    )
    angle, shear, stretch = rng.normal(0, 0.08), rng.normal(0, 0.15), rng.uniform(0.85, 1.25)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.array([[stretch, shear], [0, 1]])
    centre = np.array([fine / 2, fine / 2])
    shift = centre - matrix @ (centre + rng.normal(0, 2, 2))
    parts = np.column_stack([matrix, shift]).ravel().tolist()
    page = page.transform((fine, fine), Image.Transform.AFFINE, parts, Image.Resampling.BILINEAR)
    return np.asarray(page.resize((SIZE, SIZE), Image.Resampling.BOX), np.float32) / 255


def _download(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}") from error
    check_writable(folder)
    for name, digest in MD5.items():
        path = folder / f"{name}.gz"
        if path.exists() or (folder / name).exists():
            continue
        try:
            with urllib.request.urlopen(f"{URL}{path.name}", timeout=60) as answer:
                data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise UserError(
                f"cannot download {URL}{path.name} ({error}); put it into {folder} by hand, or "
                "leave out --data and --download to learn from drawn digits"
            ) from error
        if hashlib.md5(data, usedforsecurity=False).hexdigest() != digest:
            raise UserError(f"{URL}{path.name} is not the file it was: its MD5 sum differs")
        with whole_file(path) as file:
            file.write(data)
