"""What makes a larger picture out of another one, complete; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from imagediff.enlarged_settings import check_factor
from imagediff.settings import Settings

DEFAULT_STEPS = 1
DEFAULT_SAMPLER = "ddim"
DEFAULT_SCHEDULE = "trained"


@dataclass(frozen=True, kw_only=True)
class UpscaleSettings(Settings):
    """One picture made larger; ``prompt`` is what the source's record says, ``size`` the result's.

    Attributes:
        source, source_hash: the picture's file as it was named, and SHA-256 of its bytes.
        factor: one of :data:`imagediff.enlarged_settings.FACTORS`.
        task: "upscale"; tells this record from those of other pictures.

    Raises:
        UserError: a factor that there is not.
    """

    source: str
    source_hash: str
    factor: int
    task: str = "upscale"

    def __post_init__(self) -> None:
        Settings.__post_init__(self)
        check_factor(self.factor)

    def check_prompt(self) -> None:
        """None is needed."""

    def measures(self) -> Mapping[str, object]:
        """The size, and how much larger than before it is."""
        return {**Settings.measures(self), "Upscale": self.factor}
