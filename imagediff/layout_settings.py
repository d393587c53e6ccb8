"""What is to be where in a picture, as its record keeps it; no numpy."""

from __future__ import annotations

from dataclasses import dataclass

Box = tuple[int, int, int, int]
"""x, y, width and height in pixels, from the left and the top of the upright picture."""


@dataclass(frozen=True)
class Region:
    """A part of a picture and what it is to hold.

    Attributes:
        what: such as "a dog".
        box: None where an outline says it.
        outline: bits of cells of a few pixels, as :mod:`imagediff.regions` writes them.
    """

    what: str
    box: Box | None = None
    outline: str | None = None


Layout = tuple[Region, ...]
"""Later regions lie over earlier ones; none at all says nothing of where things are."""
