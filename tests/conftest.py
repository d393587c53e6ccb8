"""Runs before any test module: makes transformers and diffusers importable beside torchaudio."""

import shared  # noqa: F401  (see shared/torchaudio_shim.py)
