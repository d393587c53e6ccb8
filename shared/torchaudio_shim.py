"""Lets PyPI's torchaudio import beside a CPU-only torch.

PyPI's Linux build of torchaudio links its native extension against CUDA's libraries. Beside a torch
without them ``import torchaudio`` fails, and with it every library that imports torchaudio when it
finds it, transformers among them. The extension only speeds up a few filters that torchaudio has in
Python too (and adds forced alignment), so where it cannot load, a stand-in says that it is not
there. A torchaudio that loads is left as it is. Nothing is imported before its time.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

EXTENSION = "torchaudio._extension"


class _TolerantLoader(SourceFileLoader):
    """Runs the module; where that fails for want of a library, marks the extension absent."""

    def exec_module(self, module: ModuleType) -> None:
        try:
            super().exec_module(module)
        except (ImportError, OSError):
            # The names that the rest of torchaudio 2.11 asks the extension for.
            utils = import_module("torchaudio._internal.module_utils")
            vars(module).update(
                _IS_TORCHAUDIO_EXT_AVAILABLE=False,
                _IS_ALIGN_AVAILABLE=False,
                fail_if_no_align=utils.fail_with_message(
                    "forced alignment needs torchaudio's native extension, "
                    "which cannot be loaded beside this torch"
                ),
            )


class _ExtensionFinder:
    """Finds ``torchaudio._extension`` where it is, and replaces its loader."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != EXTENSION:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _TolerantLoader(fullname, spec.loader.path)
        return spec


def install() -> None:
    """Make later imports of torchaudio tolerant; calling it again changes nothing."""
    if not any(isinstance(finder, _ExtensionFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _ExtensionFinder())
