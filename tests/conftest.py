"""Runs before any test module: makes transformers and diffusers importable beside torchaudio."""

from pathlib import Path

import pytest

import shared  # noqa: F401  (see shared/torchaudio_shim.py)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with random weights, to be read only; see tests/tiny.py."""
    from tiny import write_tiny_model

    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_model(folder)
    return folder
