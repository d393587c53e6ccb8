"""What makes a larger picture out of another one, complete; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from imagediff.settings import Settings
from shared.errors import UserError

FACTORS = (2, 4)
DEFAULT_STEPS = 1
DEFAULT_SAMPLER = "ddim"
DEFAULT_SCHEDULE = "trained"
LARGEST = 2**24  # pixels of what is made


@dataclass(frozen=True, kw_only=True)
class UpscaleSettings(Settings):
    """One picture made larger; ``prompt`` is what the source's record says, ``size`` the result's.

    Attributes:
        source, source_hash: the picture's file as it was named, and SHA-256 of its bytes.
        factor: one of ``FACTORS``.
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


def check_factor(factor: int, size: tuple[int, int] = (1, 1)) -> None:
    """Raise UserError unless pictures of ``size`` can be made ``factor`` times as large."""
    if factor not in FACTORS:
        raise UserError(f"the factor must be {' or '.join(map(str, FACTORS))}, not {factor}")
    width, height = size
    if width * height * factor**2 > LARGEST:
        raise UserError(
            f"{width}x{height} pixels times {factor} are too many: the result may have "
            f"{LARGEST:,} at most"
        )
