"""How something that exists is edited, as far as it is the same for both arts; no torch."""

from __future__ import annotations

from dataclasses import dataclass

from shared.errors import UserError

CONCAT = "concat"
"""The filling method by which the network itself is told what is known."""


def inverted_prompt(invert: bool, given: str | None, count: int) -> str | None:
    """What a file is said to be that is inverted, "" for what its record says; None to not invert.

    Raises:
        UserError: it is said without inverting, or more is wanted than the one result.
    """
    if not invert:
        if given is not None:
            raise UserError("--source-prompt says what --invert inverts; it needs that")
        return None
    if count != 1:
        raise UserError("--invert takes no noise of the seed, so there is one result: --count 1")
    return given or ""


@dataclass(frozen=True, kw_only=True)
class FillSettings:
    """How a free region is filled so that it fits a known one.

    Attributes:
        method: a name in :data:`shared.editing.FILLINGS`.
        jump_length, jump_count: RePaint's j and r; the other methods do not use them. Its t_T are
            the steps of the walk.
        xi: how far the guidance gradient moves; only that method uses it. From 1 on it overshoots.

    Raises:
        UserError: a number outside what the methods take.
    """

    method: str = "consistency"
    jump_length: int = 5
    jump_count: int = 3
    xi: float = 0.5

    def __post_init__(self) -> None:
        for name in ("jump_length", "jump_count"):
            value: int = getattr(self, name)
            if not 1 <= value <= 1000:
                raise UserError(f"{name.replace('_', ' ')} must be from 1 to 1000, not {value}")
        if not 0 <= self.xi <= 100:  # NaN is refused as well
            raise UserError(f"xi must be from 0 to 100, not {self.xi:g}")
