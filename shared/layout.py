"""What a model folder is: diffusers' layout, checked before anything heavy is loaded.

``model_index.json`` names the pipeline and its components; each component is a folder of that name.
Nothing here imports torch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.errors import UserError

MODEL_INDEX = "model_index.json"
ADAPTER = "adapter"  # folder of a network that takes further input channels, beside the model's own
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
CONVERT = "pickle checkpoints are not loaded, as opening one can run code; convert to safetensors"


@dataclass(frozen=True)
class Pipeline:
    """A pipeline class: what it makes, and what Duotone can do with its folder.

    Attributes:
        kind: "image", "music", "upscaler" or "other".
        can: empty for what is only recognised.
        needs: files and folders that must be there besides the components its index names.
    """

    kind: str
    can: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


# All but Duotone's own are diffusers'. Those without abilities are recognised to be told apart, in
# lists and in messages.
PIPELINES: dict[str, Pipeline] = {
    "StableDiffusionPipeline": Pipeline("image", ("text to image",)),
    "StableDiffusionXLPipeline": Pipeline("image"),
    "StableDiffusion3Pipeline": Pipeline("image"),
    "FluxPipeline": Pipeline("image"),
    "DuotoneMusicPipeline": Pipeline("music", ("text to music",), ("vocoder", "controls.json")),
    "DuotoneUpscalePipeline": Pipeline("upscaler", ("upscaling",), ("upscaler.json",)),
    "AudioLDMPipeline": Pipeline("music"),
    "AudioLDM2Pipeline": Pipeline("music"),
    "MusicLDMPipeline": Pipeline("music"),
    "StableAudioPipeline": Pipeline("music"),
}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        UserError: no such file, or not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object")
    return value


def read_model_index(root: Path) -> dict[str, Any]:
    """``root/model_index.json``.

    Raises:
        UserError: ``root`` is missing, a single file, or a folder of something else.
    """
    if exists(root) and root.is_file():
        why = CONVERT if root.suffix in PICKLES else "single files are not loaded"
        raise UserError(f"{root} is a file: {why}, in a folder with {MODEL_INDEX}")
    if not exists(root):
        raise UserError(f"there is no model folder {root}")
    if not (root / MODEL_INDEX).is_file():
        pickles = sorted(path.name for path in root.glob("*") if path.suffix in PICKLES)
        why = f"; it has {pickles[0]}: {CONVERT}" if pickles else ""
        raise UserError(f"not a model folder: {root} (expected {MODEL_INDEX}{why})")
    return read_json(root / MODEL_INDEX)


def component_names(index: dict[str, Any]) -> list[str]:
    """The components that a model index says are there: ``"unet": ["diffusers", "UNet..."]``."""
    return [
        name
        for name, entry in index.items()
        if not name.startswith("_") and isinstance(entry, list) and entry[:1] != [None]
    ]


def pipeline_of(index: dict[str, Any]) -> Pipeline:
    """What kind of model an index describes; kind "other" where its class is not known."""
    return PIPELINES.get(str(index.get("_class_name")), Pipeline("other"))


def check_folder(root: Path, kind: str | None) -> None:
    """Make sure that ``root`` is a whole model folder of a kind that Duotone can use.

    ``kind`` is "image", "music" or "upscaler"; None takes any.

    Raises:
        UserError: it is missing, of another kind, or lacks a component; one line says which.
    """
    index = read_model_index(root)
    pipeline = pipeline_of(index)
    if kind not in (None, pipeline.kind) or not pipeline.can:
        usable = [name for name, p in PIPELINES.items() if kind in (None, p.kind) and p.can]
        raise UserError(
            f"{root} is no {f'{kind} ' if kind else ''}model that can be used: its class is "
            f"{index.get('_class_name')!r}; usable: {', '.join(usable) or 'none yet'}"
        )
    for name in component_names(index):
        if not (root / name).is_dir():
            raise UserError(f"{root} is not whole: {MODEL_INDEX} names {name}, which is missing")
    for name in pipeline.needs:
        if not (root / name).exists():
            raise UserError(f"{root} is not whole: {name} is missing")


def check_adapter(root: Path) -> None:
    """Make sure that the model in ``root`` carries an adapter.

    Raises:
        UserError: it does not.
    """
    if not (root / ADAPTER).is_dir():
        raise UserError(
            f"the model in {root} has no {ADAPTER}/, so it takes neither a layout nor --method "
            "concat; duotone train adapter makes one"
        )


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; no for names that no file system takes."""
    try:
        path.stat()
    except (OSError, ValueError):  # not there, too long, or with a null character
        return False
    return True
