"""What makes an edited picture out of another one, complete; no torch."""

from __future__ import annotations

from dataclasses import dataclass

from imagediff.layout_settings import Box
from imagediff.settings import Settings
from shared.edit_settings import FillSettings
from shared.errors import UserError

MAX_FEATHER = 256  # px


@dataclass(frozen=True, kw_only=True)
class Edit:
    """What is done to a picture, beside what says how pictures are sampled.

    Attributes:
        task: a key of :data:`imagediff.editing.TASKS`.
        source, source_hash: the picture's file as it was named, and SHA-256 of its bytes.
        strength: how much of the way is walked; 1 keeps nothing of what is replaced.
        invert: what the picture shows, if the walk begins with the noise that DDIM inversion finds
            for it; None for the seed's noise.
        work_side: the shorter side in pixels at which a whole picture is worked on; None for that
            of the model's own size.
        box: what is filled; None where a mask or the margins say it.
        mask, mask_hash: the file that says what is filled.
        margins: pixels added at the left, top, right and bottom.
        feather: width in pixels of the blended border around what is filled.
        opaque: whether what is filled stops being transparent.
        method, jump_length, jump_count, xi: see :class:`~shared.edit_settings.FillSettings`.

    Raises:
        UserError: a number outside what there is.
    """

    task: str
    source: str
    source_hash: str
    strength: float = 1.0
    invert: str | None = None
    work_side: int | None = None
    box: Box | None = None
    mask: str | None = None
    mask_hash: str | None = None
    margins: Box = (0, 0, 0, 0)
    feather: int = 0
    opaque: bool = False
    method: str = FillSettings.method
    jump_length: int = FillSettings.jump_length
    jump_count: int = FillSettings.jump_count
    xi: float = FillSettings.xi

    def __post_init__(self) -> None:
        self.how()
        if not 0 <= self.strength <= 1:  # NaN is refused as well
            raise UserError(f"strength must be from 0 to 1, not {self.strength:g}")
        if self.invert is not None and self.task != "restyle":
            raise UserError(f"restyle alone inverts what it is given, {self.task!r} does not")
        if not 0 <= self.feather <= MAX_FEATHER:
            raise UserError(f"feather must be from 0 to {MAX_FEATHER} pixels, not {self.feather}")
        if self.work_side is not None and self.work_side < 1:
            raise UserError(f"the work side must be at least 1 pixel, not {self.work_side}")

    def how(self) -> FillSettings:
        """How what is free is filled."""
        return FillSettings(
            method=self.method,
            jump_length=self.jump_length,
            jump_count=self.jump_count,
            xi=self.xi,
        )


@dataclass(frozen=True, kw_only=True)
class EditSettings(Edit, Settings):
    """One edited picture, complete; ``size`` is that at which the model worked on its part."""

    def __post_init__(self) -> None:
        Settings.__post_init__(self)
        Edit.__post_init__(self)

    def check_prompt(self) -> None:
        """Without a prompt the model draws what it would draw without one."""


def parse_box(text: str) -> Box:
    """ "10,20,30,40" -> (10, 20, 30, 40): x, y, width, height.

    Raises:
        UserError: not of that form, or empty.
    """
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"a box must be X,Y,W,H in whole pixels, as 32,16,64,64, not {text!r}"
        ) from None
    if x < 0 or y < 0 or width < 1 or height < 1:
        raise UserError(f"a box begins at 0 or further and is at least 1 by 1, not {text!r}")
    return x, y, width, height


def check_margins(margins: Box) -> None:
    """Raise UserError unless something is to be added somewhere."""
    if min(margins) < 0 or max(margins) == 0:
        raise UserError(
            "pixels to add must be 0 or more and somewhere above 0 "
            "(--left, --right, --top, --bottom)"
        )
