"""Finding models: the carried ones, the user's folder, the Hugging Face cache. Never the network.

Nothing here imports torch: sizes and parameters come from the headers of the safetensors files.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shared.errors import UserError
from shared.layout import (
    MODEL_INDEX,
    check_folder,
    component_names,
    exists,
    pipeline_of,
    read_model_index,
)
from shared.vocabulary import WORDS_FILE, read_words, unknown_words

__all__ = [
    "ModelInfo",
    "card",
    "carried_models",
    "find_model",
    "find_models",
    "known_words",
    "resolve",
    "unknown_words",
    "user_folder",
]

BUILTIN = "builtin"
# Package data, found by its place beside this package: the core imports neither art.
CARRIED = {
    kind: Path(__file__).parents[1] / package
    for kind, package in (
        ("image", "imagediff/weights"),
        ("music", "audiodiff/weights"),
        ("upscaler", "imagediff/weights_upscaler"),
    )
}


@dataclass(frozen=True)
class ModelInfo:
    """One model that is on this machine.

    Attributes:
        name: what ``--model`` takes.
        folder: its root, in diffusers' layout.
        kind: "image", "music", "upscaler" or "other".
        source: "carried", "user folder", "Hugging Face cache" or "folder".
        size_bytes: of all its files.
        licence: as its card states it; "" if it does not.
        can: what Duotone can do with it; empty for a model that it only recognises.
        parameters: numbers in its weights.
    """

    name: str
    folder: Path
    kind: str
    source: str
    size_bytes: int
    licence: str
    can: tuple[str, ...]
    parameters: int


def find_models() -> list[ModelInfo]:
    """Every model folder there is: carried ones first, then by source and name."""
    infos = []
    for name, folder, source in _places():
        try:
            infos.append(_describe(name, folder, source))
        except (UserError, OSError):
            continue  # half a download, a folder we may not read: not a model to offer
    return infos


def find_model(name_or_folder: str | Path, kind: str | None = "image") -> ModelInfo:
    """The model with that name, or the one in that folder.

    Args:
        name_or_folder: "builtin", a name that :func:`find_models` gives, or a path.
        kind: "image", "music" or "upscaler"; None takes any, but "builtin" is one of each.

    Raises:
        UserError: there is no such model (lists those there are), or it is not whole, or not of
            that kind.
    """
    wanted = os.fspath(name_or_folder)
    if wanted == BUILTIN and kind is not None:
        # Without a look at the other places: they may be large and slow.
        if not (CARRIED[kind] / MODEL_INDEX).is_file():
            raise UserError(f"this copy of Duotone carries no {kind} model")
        return _checked(BUILTIN, CARRIED[kind], "carried", kind)
    named = [place for place in _places() if place[0] == wanted and place[2] != "carried"]
    if named:
        return _checked(*named[0], kind)
    folder = Path(wanted).expanduser()
    if wanted and exists(folder):
        return _checked(folder.resolve().name, folder, "folder", kind)
    usable = [info.name for info in find_models() if kind in (None, info.kind) and info.can]
    nearest = difflib.get_close_matches(wanted[:200], usable, n=1, cutoff=0.5)
    hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
    which = f"{kind} models" if kind else "models"
    raise UserError(
        f"no model or model folder {wanted[:200]!r}{hint}; {which} here: "
        f"{', '.join(usable) or 'none'}"
    )


def carried_models() -> list[ModelInfo]:
    """The models that the package carries: one of each kind at most.

    Raises:
        UserError: one is not whole, or there is none.
    """
    kinds = [kind for kind, folder in CARRIED.items() if (folder / MODEL_INDEX).is_file()]
    if not kinds:
        raise UserError("this copy of Duotone carries no model")
    return [find_model(BUILTIN, kind) for kind in kinds]


def resolve(name_or_folder: str | Path, kind: str = "image") -> Path:
    """The folder of :func:`find_model`'s model."""
    return find_model(name_or_folder, kind).folder


def card(folder: Path) -> str:
    """The model's ``README.md`` without its metadata block; "" if it has none."""
    return _split_card(folder)[1]


def known_words(folder: Path) -> list[str]:
    """The words that the model's captions had, most frequent first; [] if it does not tell."""
    path = folder / "tokenizer" / WORDS_FILE
    return read_words(path) if path.is_file() else []


def user_folder() -> Path:
    """Where users keep models: ``$DUOTONE_MODELS``, or ``duotone/models`` in their data folder."""
    if own := os.environ.get("DUOTONE_MODELS"):
        return Path(own).expanduser()
    if sys.platform == "win32":
        data = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        data = Path.home() / "Library" / "Application Support"
    else:
        data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return data / "duotone" / "models"


def huggingface_cache() -> Path:
    """The hub's cache, by the variables huggingface_hub reads."""
    if hub := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(hub).expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("HF_HOME") or cache / "huggingface").expanduser() / "hub"


def _places() -> Iterator[tuple[str, Path, str]]:
    """(name, folder, source) of every folder that holds a model index."""
    for folder in CARRIED.values():
        if (folder / MODEL_INDEX).is_file():
            yield BUILTIN, folder, "carried"
    for index in sorted(_glob(user_folder(), f"*/{MODEL_INDEX}")):
        yield index.parent.name, index.parent, "user folder"
    for repo in sorted(_glob(huggingface_cache(), "models--*")):
        if (snapshot := _snapshot(repo)) is not None:
            name = repo.name.removeprefix("models--").replace("--", "/")
            yield name, snapshot, "Hugging Face cache"


def _glob(folder: Path, pattern: str) -> list[Path]:
    try:
        return list(folder.glob(pattern))
    except OSError:
        return []


def _snapshot(repo: Path) -> Path | None:
    """The revision that ``main`` points to, else the newest one, if it is a model folder."""
    main = repo / "refs" / "main"
    revisions = sorted(_glob(repo / "snapshots", "*"), key=lambda path: -path.stat().st_mtime)
    if main.is_file():
        revisions.insert(0, repo / "snapshots" / main.read_text(encoding="utf-8").strip())
    return next((path for path in revisions if (path / MODEL_INDEX).is_file()), None)


def _checked(name: str, folder: Path, source: str, kind: str | None) -> ModelInfo:
    check_folder(folder, kind)
    return _describe(name, folder, source)


def _describe(name: str, folder: Path, source: str) -> ModelInfo:
    index = read_model_index(folder)
    pipeline = pipeline_of(index)
    return ModelInfo(
        name=name,
        folder=folder,
        kind=pipeline.kind,
        source=source,
        size_bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        licence=_licence(folder),
        can=pipeline.can,
        parameters=sum(_parameters(folder / component) for component in component_names(index)),
    )


def _split_card(folder: Path) -> tuple[str, str]:
    """The card's metadata (YAML between two lines of ---) and its text."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", ""
    match = re.match(r"---\s*\n(.*?\n)---\s*\n", text, re.DOTALL)
    return (match[1], text[match.end() :].lstrip("\n")) if match else ("", text)


def _licence(folder: Path) -> str:
    match = re.search(r"^licen[sc]e:\s*(.+?)\s*$", _split_card(folder)[0], re.MULTILINE)
    return match[1].strip("'\"") if match else ""


def _parameters(component: Path) -> int:
    """How many numbers a component's weights have, by the headers of its files.

    A folder may hold the same weights in several precisions; the largest set counts.
    """
    totals: dict[str, int] = {}
    for path in component.glob("*.safetensors"):
        variant = path.name.split(".", 1)[1]  # "safetensors", "fp16.safetensors"
        totals[variant] = totals.get(variant, 0) + _count_numbers(path)
    return max(totals.values(), default=0)


def _count_numbers(path: Path) -> int:
    """Elements of all tensors: the header is a little-endian length and that many bytes of JSON."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            return 0  # truncated, or no safetensors file; loading it will say so
        try:
            header = json.loads(file.read(length))
            return sum(
                math.prod(entry["shape"]) for key, entry in header.items() if key != "__metadata__"
            )
        except (ValueError, AttributeError, KeyError, TypeError):
            return 0
