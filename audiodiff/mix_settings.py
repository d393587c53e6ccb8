"""What makes a part and its mix with a clip that exists, complete; no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields

from audiodiff.settings import MusicSettings
from shared.errors import UserError

BALANCE = (-24.0, 24.0)  # dB


@dataclass(frozen=True, kw_only=True)
class MixSettings(MusicSettings):
    """A part and the clip that it is mixed with.

    Attributes:
        backing, backing_hash: the clip's file as it was named, and SHA-256 of its bytes.
        balance: how much louder the part is than the clip, dB.

    Raises:
        UserError: a balance beyond 24 dB.
    """

    backing: str
    backing_hash: str
    balance: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_balance(self.balance)

    def alone(self) -> MusicSettings:
        """The settings of the part without the clip."""
        own = {field.name: getattr(self, field.name) for field in fields(MusicSettings)}
        return MusicSettings(**own)


def check_balance(balance: float) -> None:
    """Raise UserError unless a part can be so many dB louder than its clip."""
    low, high = BALANCE
    if not low <= balance <= high:  # NaN is refused as well
        raise UserError(f"the part's level must be from {low:g} to {high:g} dB, not {balance:g}")
