"""What makes one sample of either art, as far as it is the same for both; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from shared import provenance
from shared.errors import UserError

DEFAULT_SAMPLER = "dpm++2m"
DEFAULT_SCHEDULE = "karras"
MAX_COUNT = 10_000
MAX_STEPS = 10_000
MAX_SEED = 2**32 - 1  # all that torch's CPU generator reads of a seed
MAX_GUIDANCE_SCALE = 1000

# The names under which image tools know the samplers and schedules.
_COMMON_NAMES = {
    "ays-sd15": "Align Your Steps",
    "ays-sdxl": "Align Your Steps",
    "beta": "Beta",
    "ddim": "DDIM",
    "ddpm": "DDPM",
    "dpm++2m": "DPM++ 2M",
    "euler": "Euler",
    "exponential": "Exponential",
    "heun": "Heun",
    "karras": "Karras",
    "poly-exponential": "Polyexponential",
    "sgm-uniform": "SGM Uniform",
}


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """Everything but the medium's own measures, nothing left to a default; each art adds those.

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
    model: str
    model_hash: str
    device: str
    dtype: str
    version: str  # of Duotone
    torch_version: str

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise UserError("the prompt is empty; say what to make")
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

    def changes(self, now: SampleSettings) -> list[str]:
        """What made ``now`` otherwise than this, and may so change the result, a line each."""
        facts = ("model", "model_hash", "device", "dtype", "torch_version")
        return [
            f"{fact.replace('_', ' ')} was {getattr(self, fact)}, is now {getattr(now, fact)}"
            for fact in facts
            if getattr(self, fact) != getattr(now, fact)
        ]

    def measures(self) -> Mapping[str, object]:
        """The medium's own entries of the `parameters` text, such as a picture's size."""
        return {}

    def parameters(self) -> str:
        """The `parameters` text that other tools read (see :mod:`shared.provenance`)."""
        values = {
            "Steps": self.steps,
            "Sampler": _COMMON_NAMES.get(self.sampler, self.sampler),
            "Schedule type": _COMMON_NAMES.get(self.schedule, self.schedule),
            "CFG scale": self.guidance_scale,
            "Seed": self.seed,
            **self.measures(),
            "Model hash": self.model_hash[:10],
            "Model": self.model,
            "Version": f"duotone {self.version}",
        }
        return provenance.format_parameters(self.prompt, self.negative_prompt, values)


def check_count(count: int) -> None:
    """Raise UserError unless ``count`` samples can be made at once."""
    if not 1 <= count <= MAX_COUNT:
        raise UserError(f"count must be from 1 to {MAX_COUNT}, not {count}")


def valid_unicode(text: str) -> str:
    """``text`` with "?" for lone surrogates: a shell's bytes that were no UTF-8 fit no file."""
    return text.encode("utf-8", "replace").decode()
