"""Recipes run as the tests want them: quickly, on given models, with a look at what they leave."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
from PIL import Image

Figures = Mapping[str, float]


class Run(Protocol):
    def __call__(self, name: str, *more: str) -> tuple[Figures, dict[str, Path]]: ...


def runner(kind: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a recipe of a kind with --quick; its figures and its files, by name."""

    def one(name: str, *more: str) -> tuple[Figures, dict[str, Path]]:
        recipe = importlib.import_module(f"recipes.{kind}.{name}")
        figures = recipe.main(["--quick", "--out", str(folder / name), "--seed", "5", *more])
        paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
        # Whatever it wrote it told, and nothing is left behind.
        assert {path.name for path in (folder / name).iterdir()} == {path.name for path in paths}
        with Image.open(paths[-1]) as picture:
            assert paths[-1].name == f"{name}.png"
            assert np.asarray(picture.convert("L")).std() > 3  # not flat
        return figures, {path.name: path for path in paths}

    return one
