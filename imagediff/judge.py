"""The judge: a small classifier that names the object in a picture or in half of one.

It learns from freshly drawn scenes and never sees a generated picture, so that what it says of
those is nobody's tuning. The package carries one; after a change of the vocabulary a new one is
trained and kept in the user's cache.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from imagediff.data import render, scene_at
from imagediff.objects import objects
from shared.errors import UserError
from shared.weights import load_into, load_state, read_config, save_component

CARRIED = Path(__file__).with_name("judge_weights")
BASENAME = "model"
VERSION = 1  # of the network and its training; another one makes old judges unusable
SIDE = 48  # of what the judge looks at, px
CHANNELS = (24, 48, 96, 160)
WIDTH = 128

# Left, top, right and bottom of each view in frame sides. A half leaves out the outer eighths
# across, which hold background only, so that its object is not squeezed too much.
VIEWS = {
    "whole": (0.0, 0.0, 1.0, 1.0),
    "left": (0.0, 0.125, 0.5, 0.875),
    "right": (0.5, 0.125, 1.0, 0.875),
    "top": (0.125, 0.0, 0.875, 0.5),
    "bottom": (0.125, 0.5, 0.875, 1.0),
}
HALVES = ("left", "right", "top", "bottom")
# Which half holds the first and which the second object of a relation.
PLACES = {
    "left of": ("left", "right"),
    "right of": ("right", "left"),
    "above": ("top", "bottom"),
    "below": ("bottom", "top"),
}


def view(picture: Image.Image, name: str) -> np.ndarray:
    """One of `VIEWS` of a picture of any size, as the judge takes it: uint8 (SIDE, SIDE, 3)."""
    left, top, right, bottom = VIEWS[name]
    width, height = picture.size
    box = (left * width, top * height, right * width, bottom * height)
    return np.asarray(
        picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box)
    )


def places(relation: str | None) -> tuple[str, ...]:
    """The view of each object of a scene, in their order."""
    return ("whole",) if relation is None else PLACES[relation]


class Judge(nn.Module):
    """Convolutions of stride 2 down to a few pixels, one hidden layer, one logit an object.

    Args:
        vocabulary: name -> emoji of what it can name; the order is that of the logits.
        channels: of the convolutions.
        width: of the hidden layer, whose values are the features of the Fréchet distance.
    """

    def __init__(
        self,
        vocabulary: dict[str, str],
        channels: Sequence[int] = CHANNELS,
        width: int = WIDTH,
        version: int = VERSION,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "version": version,
            "channels": list(channels),
            "width": width,
            "vocabulary": vocabulary,
        }
        self.names = list(vocabulary)
        layers: list[nn.Module] = []
        for before, after in zip((3, *channels), channels, strict=False):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        pixels = (SIDE // 2 ** len(channels)) ** 2
        layers += [
            nn.Flatten(),
            nn.Linear(channels[-1] * pixels, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
        ]
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(width, len(vocabulary))

    def features(self, views: Tensor) -> Tensor:
        """Views (b 3 SIDE SIDE) in [-1, 1] -> features (b width)."""
        return self.trunk(views)

    def forward(self, views: Tensor) -> Tensor:
        """Views (b 3 SIDE SIDE) in [-1, 1] -> logits (b objects)."""
        return self.head(self.features(views))


@torch.inference_mode()
def look(judge: Judge, views: Sequence[np.ndarray], batch: int = 256) -> tuple[Tensor, Tensor]:
    """What the judge sees in views: log-probabilities (n objects) and features (n width)."""
    parts = []
    for start in range(0, len(views), batch):
        features = judge.features(to_tensor(np.stack(views[start : start + batch])))
        parts.append((judge.head(features).log_softmax(-1), features))
    log_probs, features = zip(*parts, strict=True)
    return torch.cat(log_probs), torch.cat(features)


def to_tensor(views: np.ndarray) -> Tensor:
    """uint8 (b h w 3) -> (b 3 h w) in [-1, 1], channels last in memory."""
    return torch.from_numpy(views).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def vocabulary() -> dict[str, str]:
    """What a judge of today's vocabulary must know: name -> emoji."""
    return {name: thing.emoji for name, thing in objects().items()}


def load_judge(folder: Path | None = None, say: Callable[[str], None] | None = None) -> Judge:
    """The judge of a folder, else the carried one, else the user's own, trained if need be.

    Args:
        folder: where the judge is, or will be after it has been trained.
        say: takes a line for the user when a judge has to be trained.

    Raises:
        UserError: the folder holds something else or a judge of another vocabulary, or the emoji
            font, which training needs, is not installed.
    """
    if folder is None:
        folder = CARRIED if _knows_vocabulary(CARRIED) else cache_folder()
    if not (folder / "config.json").exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{str(folder)!r} holds no judge; name a new or empty folder to train")
        if say is not None:
            say(f"Training a judge, some minutes; it is kept in {folder}")
        save_component(train_judge(), folder, basename=BASENAME)
    elif not _knows_vocabulary(folder):
        raise UserError(
            f"the judge in {str(folder)!r} was made for another vocabulary or version; "
            "name a new folder to train one"
        )
    config = read_config(folder)
    return load_into(lambda: Judge(**config), load_state(folder, BASENAME), folder)


def _knows_vocabulary(folder: Path) -> bool:
    if not (folder / "config.json").exists():
        return False
    config = read_config(folder)
    # The order is that of the logits, so that it must be the same too.
    known = config.get("vocabulary")
    return (
        config.get("version") == VERSION
        and isinstance(known, dict)
        and list(known.items()) == list(vocabulary().items())
    )


def cache_folder() -> Path:
    """Where a judge of today's vocabulary is kept.

    Below ``$DUOTONE_CACHE``, or ``duotone`` in the user's cache folder.
    """
    if own := os.environ.get("DUOTONE_CACHE"):
        cache = Path(own).expanduser()
    elif sys.platform == "win32":
        cache = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        cache = cache / "duotone" / "cache"
    elif sys.platform == "darwin":
        cache = Path.home() / "Library" / "Caches" / "duotone"
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "duotone"
    known = json.dumps([VERSION, *vocabulary().items()])
    return cache / f"judge-{hashlib.sha256(known.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class JudgeTraining:
    """How the judge is trained: AdamW, the rate rising for a tenth of the steps, then falling."""

    scenes: int = 48_000
    series: int = 0  # of the scenes, see `imagediff.data.scene_at`
    steps: int = 3_600
    batch_size: int = 64
    learning_rate: float = 4e-3
    weight_decay: float = 0.05
    seed: int = 0


def train_judge(
    how: JudgeTraining | None = None,
    data: tuple[np.ndarray, np.ndarray] | None = None,
) -> Judge:
    """Train a judge of today's vocabulary; about six minutes on two cores.

    Args:
        how: the recipe.
        data: what `training_views` gives; drawn if absent.

    Raises:
        UserError: the emoji font is not installed.
    """
    how = how or JudgeTraining()
    views, targets = data or training_views(how.series, how.scenes)
    rng = torch.Generator().manual_seed(how.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)
        judge = Judge(vocabulary())
    judge = judge.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.AdamW(
        judge.parameters(), lr=how.learning_rate, weight_decay=how.weight_decay, fused=True
    )
    order = torch.empty(0, dtype=torch.long)
    for step in tqdm(range(how.steps), "training the judge", unit="step", leave=False):
        if len(order) < how.batch_size:
            order = torch.randperm(len(views), generator=rng)
        batch, order = order[: how.batch_size].numpy(), order[how.batch_size :]
        optimizer.param_groups[0]["lr"] = how.learning_rate * _rate(step / how.steps)
        logits = judge(augment(to_tensor(views[batch]), rng))
        loss = F.cross_entropy(logits, torch.from_numpy(targets[batch]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return judge.eval()


def _rate(progress: float, warmup: float = 0.1) -> float:
    if progress < warmup:
        return progress / warmup
    return (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) / 2


def training_views(series: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Every object of the first scenes of a series.

    Returns:
        views uint8 (n SIDE SIDE 3), and the number of the object in each (n,).
    """
    numbers = {name: number for number, name in enumerate(objects())}
    views, targets = [], []
    for index in tqdm(range(count), "drawing for the judge", unit="picture", leave=False):
        scene = scene_at(series, index)
        picture = render(scene)
        for name, place in zip(scene.objects, places(scene.relation), strict=True):
            views.append(view(picture, place))
            targets.append(numbers[name])
    return np.stack(views), np.array(targets)


def augment(views: Tensor, rng: torch.Generator) -> Tensor:
    """Views (b 3 h w) made softer, noisier, brighter or darker, and shifted.

    Generated pictures are softer than real ones; a judge of sharp pictures only would mark that
    down instead of a wrong object.
    """

    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        shape = (len(views), channels, 1, 1)
        return torch.empty(shape).uniform_(low, high, generator=rng)

    shift = torch.randint(-2, 3, (2,), generator=rng).tolist()
    views = torch.roll(views, shift, dims=(2, 3))  # what leaves on one side is background
    soft = F.avg_pool2d(views, 3, stride=1, padding=1, count_include_pad=False)
    views = torch.lerp(views, soft, draw(-0.5, 1.2).clamp(0, 1))
    coarse = F.interpolate(F.avg_pool2d(views, 2), scale_factor=2.0, mode="bilinear")
    views = torch.lerp(views, coarse, draw(-0.5, 1.2).clamp(0, 1))
    views = views * draw(0.8, 1.15) + draw(-0.1, 0.1, channels=3)
    noise = torch.empty_like(views).normal_(generator=rng)
    return views + noise * draw(-0.08, 0.1).clamp(0, 1)
