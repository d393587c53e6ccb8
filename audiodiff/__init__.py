"""Music from prompts: `from audiodiff import MusicPipeline`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from audiodiff.pipeline import MusicPipeline

__all__ = ["MusicPipeline"]


def __getattr__(name: str) -> object:
    # Lazily, so that importing any module of this package does not import torch.
    if name == "MusicPipeline":
        from audiodiff.pipeline import MusicPipeline

        return MusicPipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
