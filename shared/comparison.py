"""Comparing samplers: one prompt and one seed through several, each in several numbers of steps."""

from __future__ import annotations

from dataclasses import dataclass

from shared.errors import UserError
from shared.settings import MAX_STEPS

DEFAULT_SAMPLERS = "euler,euler-ancestral,heun,dpm++2m,dpm++2m-sde,unipc"
DEFAULT_STEPS = "5,10,25"


@dataclass(frozen=True)
class Comparison:
    """What is compared: every sampler in every number of steps, in this order.

    Raises:
        UserError: no sampler, a number of steps that cannot be, or either named twice.
    """

    samplers: tuple[str, ...]
    steps: tuple[int, ...]

    def __post_init__(self) -> None:
        for what, values in (("samplers", self.samplers), ("steps", self.steps)):
            if len(set(values)) < len(values):
                raise UserError(f"one of the {what} to compare is named twice")
        for steps in self.steps:
            if not 1 <= steps <= MAX_STEPS:
                raise UserError(f"steps must be from 1 to {MAX_STEPS}, not {steps}")

    def pairs(self) -> list[tuple[str, int]]:
        """(sampler, steps) of each, all steps of a sampler one after the other."""
        return [(sampler, steps) for sampler in self.samplers for steps in self.steps]

    def captions(self) -> list[str]:
        """What to write below each."""
        return [f"{sampler}, {steps} step{'s' * (steps > 1)}" for sampler, steps in self.pairs()]


def parse_comparison(samplers: str, steps: str) -> Comparison:
    """ "euler,heun", "5,10" -> what to compare.

    Raises:
        UserError: not of that form, or see :class:`Comparison`.
    """
    names = tuple(name.strip() for name in samplers.split(","))
    try:
        numbers = tuple(int(number) for number in steps.split(","))
    except ValueError:
        raise UserError(f"steps must be whole numbers, as 5,10,25, not {steps!r}") from None
    return Comparison(names, numbers)
