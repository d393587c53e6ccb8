"""What makes one picture, complete: the same settings on the same machine give the same pixels."""

from dataclasses import asdict, dataclass
from typing import Any

from shared.errors import UserError

DEFAULT_SAMPLER = "dpm++2m"
DEFAULT_SCHEDULE = "karras"
MAX_COUNT = 10_000
MAX_STEPS = 10_000
MAX_SEED = 2**32 - 1  # all that torch's CPU generator reads of a seed
MAX_GUIDANCE_SCALE = 1000


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that makes one picture, nothing left to a default; the JSON record holds it.

    Raises:
        UserError: an empty prompt, or a number outside what the samplers take.
    """

    prompt: str
    negative_prompt: str
    seed: int
    steps: int
    guidance_scale: float  # 1 is off
    sampler: str
    schedule: str
    size: tuple[int, int]  # width and height in pixels
    model: str
    model_hash: str
    device: str
    dtype: str
    version: str  # of Duotone
    torch_version: str

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise UserError("the prompt is empty; say what to draw")
        if not 1 <= self.steps <= MAX_STEPS:
            raise UserError(f"steps must be from 1 to {MAX_STEPS}, not {self.steps}")
        if not 0 <= self.seed <= MAX_SEED:
            raise UserError(f"seed must be from 0 to {MAX_SEED} (2**32 - 1), not {self.seed}")
        if not 0 <= self.guidance_scale <= MAX_GUIDANCE_SCALE:  # NaN is refused as well
            raise UserError(
                f"guidance scale must be from 0 to {MAX_GUIDANCE_SCALE} (1 is off), "
                f"not {self.guidance_scale:g}"
            )

    def record(self) -> dict[str, Any]:
        """The settings as JSON knows them."""
        return asdict(self)

    def changes(self, now: "Settings") -> list[str]:
        """What made ``now`` otherwise than this, and may so change pixels, a line each."""
        facts = ("model", "model_hash", "device", "dtype", "torch_version")
        return [
            f"{fact.replace('_', ' ')} was {getattr(self, fact)}, is now {getattr(now, fact)}"
            for fact in facts
            if getattr(self, fact) != getattr(now, fact)
        ]


def check_count(count: int) -> None:
    """Raise UserError unless ``count`` pictures can be made at once."""
    if not 1 <= count <= MAX_COUNT:
        raise UserError(f"count must be from 1 to {MAX_COUNT}, not {count}")


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
