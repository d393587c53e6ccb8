"""What makes an edited clip out of another one, complete; no torch."""

from __future__ import annotations

from dataclasses import dataclass

from audiodiff.settings import DEFAULT_GUIDANCE_SCALE, MusicSettings
from shared.edit_settings import FillSettings
from shared.errors import UserError

Span = tuple[float, float]
"""Start and end in seconds."""

SHORTEST_SPAN = 0.05  # seconds
LONGEST = 600.0  # seconds that are made at once
REGENERATE = 0.85  # k of arXiv 2311.00613: the share of noise that a regenerated part begins with
OVERLAPS = (0.2, 60.0)  # seconds of a transition
FILLING_GUIDANCE_SCALE = 2.0  # nearer to real clips than 3: what is around tells as much as words


def guidance_scale_of(task: str) -> float:
    """The guidance scale of an edit that is told none; another style is for words to say."""
    return DEFAULT_GUIDANCE_SCALE if task == "restyle" else FILLING_GUIDANCE_SCALE


@dataclass(frozen=True, kw_only=True)
class Edit:
    """What is done to a clip, beside what says how clips are sampled.

    Attributes:
        task: a key of :data:`audiodiff.editing.TASKS`.
        source, source_hash: the clip's file as it was named, and SHA-256 of its bytes.
        span: the part that is made anew, seconds of the clip; None for all of it, or where
            ``added`` or ``overlap`` say it.
        added: seconds that are added.
        before: they come before the clip and not after it.
        other, other_hash: a second file: the one that a transition leads to, or a reference.
        overlap: seconds that a transition lasts, in which both clips would sound.
        strength: the share of the noise levels that are walked; 1 begins with noise alone.
        invert: what the clip is, if the walk begins with the noise that DDIM inversion finds for
            it; None for the seed's noise.
        noise: k of a part that is regenerated: it begins with ``k * noise + (1 - k) * itself``.
        method, jump_length, jump_count, xi: see :class:`~shared.edit_settings.FillSettings`.

    Raises:
        UserError: a number outside what there is.
    """

    task: str
    source: str
    source_hash: str
    span: Span | None = None
    added: float = 0.0
    before: bool = False
    other: str | None = None
    other_hash: str | None = None
    overlap: float = 0.0
    strength: float = 1.0
    invert: str | None = None
    noise: float = REGENERATE
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
        if not 0 <= self.noise < 1:
            raise UserError(f"the share of noise must be from 0 to below 1, not {self.noise:g}")

    def how(self) -> FillSettings:
        """How what is free is filled."""
        return FillSettings(
            method=self.method,
            jump_length=self.jump_length,
            jump_count=self.jump_count,
            xi=self.xi,
        )


@dataclass(frozen=True, kw_only=True)
class EditSettings(Edit, MusicSettings):
    """One edited clip, complete.

    ``seconds`` are those that the model worked on, what it heard on both sides included;
    ``sample_rate`` is the file's; ``loudness`` counts for nothing, what is made is as loud as what
    is around it.
    """

    def __post_init__(self) -> None:
        MusicSettings.__post_init__(self)
        Edit.__post_init__(self)

    def check_prompt(self) -> None:
        """Without a prompt the model plays what it would play without one."""


def parse_span(text: str) -> tuple[float, float | None]:
    """ "2:4" -> (2.0, 4.0); "2:" lasts to the end, ":4" from the beginning.

    Raises:
        UserError: not of that form.
    """
    start, colon, end = text.partition(":")
    try:
        if not colon:
            raise ValueError
        return float(start) if start.strip() else 0.0, float(end) if end.strip() else None
    except ValueError:
        raise UserError(
            f"a span must be START:END in seconds, as 2:4 or 2.5:, not {text!r}"
        ) from None


def check_span(span: tuple[float, float | None], seconds: float) -> Span:
    """A span with both ends, within a clip of that length.

    Raises:
        UserError: it does not lie within the clip, or is too short or too long.
    """
    start, end = span[0], seconds if span[1] is None else span[1]
    if not 0 <= start < end <= seconds + 1e-3:  # NaN is refused as well
        raise UserError(
            f"the span {start:g}:{end:g} does not lie within the clip, which is {seconds:.3f} "
            "seconds long"
        )
    end = min(end, seconds)
    if not SHORTEST_SPAN <= end - start <= LONGEST:
        raise UserError(
            f"a span lasts {SHORTEST_SPAN:g} to {LONGEST:g} seconds, not {end - start:g}"
        )
    return start, end


def check_added(seconds: float) -> None:
    """Raise UserError unless so many seconds can be added."""
    if not SHORTEST_SPAN <= seconds <= LONGEST:  # NaN is refused as well
        raise UserError(
            f"seconds to add must be from {SHORTEST_SPAN:g} to {LONGEST:g}, not {seconds:g}"
        )


def check_overlap(overlap: float, seconds: float) -> None:
    """Raise UserError unless clips, the shorter so long, can overlap by so much."""
    low, high = OVERLAPS
    if not low <= overlap <= high:  # NaN is refused as well
        raise UserError(f"the overlap must be from {low:g} to {high:g} seconds, not {overlap:g}")
    if overlap > seconds:
        raise UserError(
            f"an overlap of {overlap:g} seconds does not fit into a clip of {seconds:.3f}"
        )
