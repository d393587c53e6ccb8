"""Pictures from prompts: `from imagediff import ImagePipeline`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagediff.pipeline import ImagePipeline

__all__ = ["ImagePipeline"]


def __getattr__(name: str) -> object:
    # Lazily, so that importing any module of this package does not import torch.
    if name == "ImagePipeline":
        from imagediff.pipeline import ImagePipeline

        return ImagePipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
