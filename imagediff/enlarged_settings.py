"""That a picture is made larger once it is drawn, as its record keeps it; no torch."""

from __future__ import annotations

from dataclasses import dataclass

from shared.errors import UserError

FACTORS = (2, 4)
LARGEST = 2**24  # pixels of what is made


@dataclass(frozen=True)
class Enlarged:
    """By what, and how many times; in one step, with the picture's own seed.

    Attributes:
        factor: one of ``FACTORS``.
        model, model_hash: of the upscaler.

    Raises:
        UserError: a factor that there is not.
    """

    factor: int
    model: str
    model_hash: str

    def __post_init__(self) -> None:
        check_factor(self.factor)


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
