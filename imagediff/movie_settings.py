"""What makes a series of pictures, complete; no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pydantic import Field
from pydantic.dataclasses import dataclass as checked

from imagediff.settings import Settings
from shared.config import STRICT
from shared.errors import UserError
from shared.naming import choose

MAX_FRAMES = 10_000
MAX_FPS = 120

EASES: dict[str, Callable[[float], float]] = {
    "linear": lambda share: share,
    "in": lambda share: share**2,
    "out": lambda share: 1 - (1 - share) ** 2,
    "in-out": lambda share: share**2 * (3 - 2 * share),
    "hold": lambda share: 0.0,
}
"""How one keyframe becomes the next: the share of the time -> the share of the way."""


@dataclass(frozen=True, kw_only=True)
class BlendSettings(Settings):
    """Pictures on the way from one picture to another.

    Attributes:
        task: "blend".
        source, source_hash, other, other_hash: the files and SHA-256 of their bytes.
        other_prompt: what the other shows; ``prompt`` is what the first does.
        strength: of the walk in the middle; at the ends it is 0.
        frames: pictures, both ends included.
        fps: pictures a second, in a file that moves.

    Raises:
        UserError: a number outside what there is.
    """

    task: str
    source: str
    source_hash: str
    other: str
    other_hash: str
    other_prompt: str
    strength: float
    frames: int
    fps: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.strength <= 1:
            raise UserError(f"strength must be from 0 to 1, not {self.strength:g}")
        if not 2 <= self.frames <= MAX_FRAMES:
            raise UserError(
                f"a blend has from 2 to {MAX_FRAMES} pictures, both ends included, "
                f"not {self.frames}"
            )
        check_fps(self.fps)

    def check_prompt(self) -> None:
        """Without a prompt the model draws what it would draw without one."""


@dataclass(frozen=True, kw_only=True)
class AnimationSettings(Settings):
    """Pictures along a time line; ``prompt`` and ``seed`` are those of the first keyframe.

    Attributes:
        task: "animate".
        script: its JSON text, which is all that is needed to make it again.
    """

    task: str
    script: str


@checked(frozen=True, config=STRICT)
class Keyframe:
    """At ``at`` seconds the picture of this prompt and seed; ``ease`` leads on to the next."""

    at: float = Field(ge=0, le=3600)
    prompt: str = Field(min_length=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    ease: str = "in-out"


@checked(frozen=True, config=STRICT)
class Script:
    """The time line of an animation.

    Attributes:
        keyframes: in the order of their times, the first at 0.
        fps: pictures a second.
        size: width and height as "128x128"; None for the model's own.
    """

    keyframes: tuple[Keyframe, ...] = Field(min_length=2)
    fps: float = 12
    size: str | None = None


@dataclass(frozen=True)
class Moment:
    """Between two keyframes: 0 is the first's picture, 1 the second's."""

    first: Keyframe
    second: Keyframe
    share: float


def check_fps(fps: float) -> None:
    """Raise UserError unless pictures can follow each other so fast."""
    if not 0 < fps <= MAX_FPS:
        raise UserError(f"fps must be above 0 and at most {MAX_FPS}, not {fps:g}")


def moments(script: Script) -> list[Moment]:
    """What each picture shows, from the first keyframe to the last.

    Raises:
        UserError: keyframes out of order, an ease that there is not, or too many pictures.
    """
    check_fps(script.fps)
    times = [keyframe.at for keyframe in script.keyframes]
    if times[0] != 0 or any(after <= before for before, after in pairwise(times)):
        told = ", ".join(f"{time:g}" for time in times)
        raise UserError(f"keyframes begin at 0 and follow each other in time, not at {told}")
    for keyframe in script.keyframes:
        choose("ease", keyframe.ease, EASES)
    count = math.floor(times[-1] * script.fps + 1e-6) + 1
    if count > MAX_FRAMES:
        raise UserError(f"the script asks for {count} pictures; {MAX_FRAMES} are the most")
    return [_moment(script.keyframes, frame / script.fps) for frame in range(count)]


def _moment(keyframes: Sequence[Keyframe], time: float) -> Moment:
    for first, second in pairwise(keyframes):
        if time < second.at:
            share = (time - first.at) / (second.at - first.at)
            return Moment(first, second, EASES[first.ease](share))
    return Moment(keyframes[-1], keyframes[-1], 0.0)
