"""What makes one sample of either art, as far as it is the same for both; no torch."""

from __future__ import annotations

import math
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
AUTOGUIDANCE_SCALE = 2.0  # where none is stated

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
class GuidanceSettings:
    """What there is to say of guidance beside its scale; as it is, nothing more is done.

    Attributes:
        interval: guide in these steps only, as shares of all: (0.25, 1) leaves out the first
            quarter, the noisiest. Outside, the prompt alone says what to make.
        rescale: 0 (off) to 1; brings the spread of the guided output back to the unguided's.
        cfg_pp: the scale of CFG++, 0 to 1, which then takes the place of the guidance scale; None
            is off.
        pag_scale: of perturbed-attention guidance, beside the prompt's; 0 is off, the paper has 3.
        autoguidance: name or folder of a worse model of the same latents to be guided by, beside
            the prompt; None is off.
        autoguidance_scale: how far away from that model; 1 is off.
        autoguidance_hash: of that model, for the record; filled in where it is looked up.

    Raises:
        UserError: a number outside what can be, or two that exclude each other.
    """

    interval: tuple[float, float] = (0.0, 1.0)
    rescale: float = 0.0
    cfg_pp: float | None = None
    pag_scale: float = 0.0
    autoguidance: str | None = None
    autoguidance_scale: float = AUTOGUIDANCE_SCALE
    autoguidance_hash: str | None = None

    def __post_init__(self) -> None:
        low, high = self.interval
        if not 0 <= low < high <= 1:
            raise UserError(
                "guidance interval must be LOW:HIGH with 0 <= LOW < HIGH <= 1, shares of the "
                f"steps, not {low:g}:{high:g}"
            )
        if not 0 <= self.rescale <= 1:
            raise UserError(f"guidance rescale must be from 0 (off) to 1, not {self.rescale:g}")
        if self.cfg_pp is not None and not 0 <= self.cfg_pp <= 1:
            raise UserError(f"the scale of CFG++ must be from 0 to 1, not {self.cfg_pp:g}")
        if not 0 <= self.pag_scale <= MAX_GUIDANCE_SCALE:
            raise UserError(
                f"PAG scale must be from 0 (off) to {MAX_GUIDANCE_SCALE}, not {self.pag_scale:g}"
            )
        if not 1 <= self.autoguidance_scale <= MAX_GUIDANCE_SCALE:
            raise UserError(
                f"autoguidance scale must be from 1 (off) to {MAX_GUIDANCE_SCALE}, "
                f"not {self.autoguidance_scale:g}"
            )
        if self.autoguidance is None and self.autoguidance_scale != AUTOGUIDANCE_SCALE:
            raise UserError("an autoguidance scale needs a model: --autoguidance MODEL")
        if self.cfg_pp is not None and (self.rescale or self.pag_scale or self.autoguidance):
            raise UserError(
                "CFG++ goes neither with guidance rescale nor with a PAG scale nor autoguidance"
            )

    def steps(self, n: int) -> tuple[int, int]:
        """The steps first .. last - 1 of n that are guided.

        Raises:
            UserError: the interval has none of them.
        """
        # 0.7 of 10 is step 7, whatever 0.7 * 10 is in binary.
        first, last = (math.ceil(share * n - 1e-9) for share in self.interval)
        if first == last:
            low, high = self.interval
            raise UserError(f"guidance interval {low:g}:{high:g} has none of the {n} steps in it")
        return first, last

    def stated(self) -> dict[str, object]:
        """What is not as it is by default, each named ``guidance_...``."""
        plain = asdict(PROMPT_ALONE)
        mine = asdict(self).items()
        return {f"guidance_{name}": value for name, value in mine if value != plain[name]}

    def measures(self, guidance_scale: float) -> Mapping[str, object]:
        """Entries of the `parameters` text, with those of the plain guidance scale."""
        low, high = self.interval
        stated = {
            "CFG scale": guidance_scale if self.cfg_pp is None else None,
            "CFG++ scale": self.cfg_pp,
            "CFG interval": f"{low:g}-{high:g}" if self.interval != (0, 1) else None,
            "CFG rescale": self.rescale or None,
            "PAG scale": self.pag_scale or None,
        }
        if self.autoguidance is not None:
            stated |= {
                "Autoguidance": self.autoguidance,
                "Autoguidance scale": self.autoguidance_scale,
                "Autoguidance hash": self.autoguidance_hash and self.autoguidance_hash[:10],
            }
        return {name: value for name, value in stated.items() if value is not None}


PROMPT_ALONE = GuidanceSettings()


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
    guidance: GuidanceSettings = PROMPT_ALONE
    student: bool = False  # that the model carries made it, not the model itself

    def __post_init__(self) -> None:
        self.check_prompt()
        if not 1 <= self.steps <= MAX_STEPS:
            raise UserError(f"steps must be from 1 to {MAX_STEPS}, not {self.steps}")
        if not 0 <= self.seed <= MAX_SEED:
            raise UserError(f"seed must be from 0 to {MAX_SEED} (2**32 - 1), not {self.seed}")
        if not 0 <= self.guidance_scale <= MAX_GUIDANCE_SCALE:  # NaN is refused as well
            raise UserError(
                f"guidance scale must be from 0 to {MAX_GUIDANCE_SCALE} (1 is off), "
                f"not {self.guidance_scale:g}"
            )
        self.guidance.steps(self.steps)

    def check_prompt(self) -> None:
        """Raise UserError unless there is a prompt; what edits may do without one."""
        if not self.prompt.strip():
            raise UserError("the prompt is empty; say what to make")

    def record(self) -> dict[str, Any]:
        """The settings as JSON knows them."""
        return asdict(self)

    def changes(self, now: SampleSettings) -> list[str]:
        """What made ``now`` otherwise than this, and may so change the result, a line each."""
        facts = ("model", "model_hash", "device", "dtype", "torch_version")
        pairs = {fact: (getattr(self, fact), getattr(now, fact)) for fact in facts}
        hashes = self.guidance.autoguidance_hash, now.guidance.autoguidance_hash
        pairs["hash of the autoguidance model"] = hashes
        return [
            f"{fact.replace('_', ' ')} was {before}, is now {after}"
            for fact, (before, after) in pairs.items()
            if before != after
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
            **self.guidance.measures(self.guidance_scale),
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
