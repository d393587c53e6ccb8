"""What makes one picture, complete: the same settings on the same machine give the same pixels."""

from collections.abc import Mapping
from dataclasses import dataclass

from imagediff.enlarged_settings import Enlarged
from imagediff.layout_settings import Layout
from shared.errors import UserError
from shared.settings import SampleSettings

DEFAULT_GUIDANCE_SCALE = 4.0


@dataclass(frozen=True, kw_only=True)
class Settings(SampleSettings):
    """Everything that makes one picture; the JSON record in its file holds it."""

    size: tuple[int, int]  # width and height in pixels, of what the model draws
    tile: bool = False  # whether it goes on at its other side
    layout: Layout = ()  # what is to be where; () says nothing of it
    upscale: Enlarged | None = None  # what is done with it once it is drawn

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layout:
            from imagediff.regions import check_layout  # brings numpy, which takes its time

            check_layout(self.layout, self.size)

    def check_prompt(self) -> None:
        """Without a prompt there is nothing to guide towards: the scale must be 1 then."""
        if self.guidance_scale != 1:
            super().check_prompt()

    def changes(self, now: SampleSettings) -> list[str]:
        """What made ``now`` otherwise than this, the upscaler as well."""
        before, after = self.upscale, getattr(now, "upscale", None)
        upscaler = [] if before == after else [f"upscaler was {before}, is now {after}"]
        return super().changes(now) + upscaler

    def measures(self) -> Mapping[str, object]:
        """The size, as image tools write it, and how much larger it is made."""
        size = {"Size": "x".join(map(str, self.size))}
        return size if self.upscale is None else size | {"Hires upscale": self.upscale.factor}


def parse_size(text: str) -> tuple[int, int]:
    """ "128x96" -> (128, 96), width first; "128" is a square.

    Raises:
        UserError: not of that form.
    """
    width, separator, height = text.lower().replace("×", "x").partition("x")
    try:
        return int(width), int(height if separator else width)
    except ValueError:
        raise UserError(f"size must be WIDTHxHEIGHT in pixels, as 128x128, not {text!r}") from None
