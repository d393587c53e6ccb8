"""What a run of ``duotone distill`` asks for, and how its student wants to be sampled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic.dataclasses import dataclass as validated

from shared.config import STRICT
from shared.distillation.consistency import HUBER_C
from shared.errors import UserError
from shared.train_denoiser import NoiseLevels, Repeats
from shared.training import LoopConfig


@validated(frozen=True, config=STRICT)
@dataclass(frozen=True)
class GuidanceRange:
    """The guidance scales that the student learns to take as an input.

    Drawn evenly from ``low`` to ``high``. 1 to 1 is no guidance: the student takes none.

    Attributes:
        dim: length of the embedded scale, diffusers' ``time_cond_proj_dim``.
    """

    low: float = 1.0
    high: float = 1.0
    dim: int = 64

    def __post_init__(self) -> None:
        if not 1 <= self.low <= self.high or self.dim < 4:
            raise UserError(
                "guidance: low must be at least 1, high at least low and dim at least 4, not "
                f"{self.low:g}, {self.high:g} and {self.dim}"
            )

    @property
    def on(self) -> bool:
        """Whether there is any."""
        return self.high > 1


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """What all ways to distil ask for.

    Attributes:
        loop: see :class:`shared.training.LoopConfig`.
        guidance: scales that the teacher is guided by and the student is told.
        rank: of the student's difference to its teacher; 0 trains all weights.
        init: a model folder whose carried student, of that rank, to begin with: where the teacher
            has learnt a little more since, its student has not much to learn.
        noise: the noise levels.
        start: a share of the draws is at the noisiest level, where sampling begins.
        caption_dropout: share of samples with an empty caption.
        latents: "vae" encodes the data; "code" takes the linear code, if the model has one.
        where: label -> values; only rows of the data with one of these are used.
        repeat: label -> value -> how many times a row with it counts among the others.
        guidance_scale: of the samples to look at.
        prompts: of the samples to look at.
    """

    loop: LoopConfig
    guidance: GuidanceRange = field(default_factory=GuidanceRange)
    rank: int = 0
    init: str | None = None
    noise: NoiseLevels = field(default_factory=NoiseLevels)
    start: float = 0.1
    caption_dropout: float = 0.1
    latents: Literal["vae", "code"] = "vae"
    where: dict[str, list[str]] = field(default_factory=dict)
    repeat: Repeats = field(default_factory=dict)
    guidance_scale: float = 4.0
    prompts: tuple[str, ...] = ()


@validated(frozen=True, config=STRICT)
@dataclass(frozen=True, kw_only=True)
class ProgressiveConfig(DistillConfig):
    """A run of ``distill progressive``: rounds, each as long as ``loop`` says.

    Attributes:
        teacher_steps: DDIM steps of the first teacher.
        steps: of the last student.
        factor: by which each round divides them; the paper's is 2.
        schedule: the grid they walk; it has to be in even steps of the trained time.
    """

    teacher_steps: int = 32
    steps: int = 4
    factor: int = 2
    schedule: Literal["trailing", "sgm-uniform"] = "trailing"

    def __post_init__(self) -> None:
        reached = self.steps
        while self.factor > 1 and 0 < reached < self.teacher_steps:
            reached *= self.factor
        if self.steps < 1 or reached != self.teacher_steps or self.steps == self.teacher_steps:
            raise UserError(
                "teacher_steps must be steps times factor, once or more, such as 32 for 4 with "
                f"factor 2 or 8, not {self.teacher_steps} for {self.steps} with {self.factor}"
            )


@validated(frozen=True, config=STRICT)
@dataclass(frozen=True, kw_only=True)
class GuidedConfig(DistillConfig):
    """A run of ``distill guided``; it needs a ``guidance`` that is on."""

    def __post_init__(self) -> None:
        if not self.guidance.on:
            raise UserError("guidance: high must be above 1: there is nothing to distil otherwise")


@validated(frozen=True, config=STRICT)
@dataclass(frozen=True, kw_only=True)
class ConsistencyConfig(DistillConfig):
    """A run of ``distill consistency``.

    Attributes:
        source: what tells where a path leads: "teacher" (consistency distillation) or "data"
            (consistency training, which knows no guidance).
        levels: "easy" (easy consistency tuning) or "doubling" (improved consistency training).
        stages: how often the levels draw nearer to each other; "easy" begins far off, with what
            the teacher knows, and wants about 8, "doubling" about 5.
        huber_c: of :func:`shared.distillation.pseudo_huber`.
        steps: of the samples to look at, and what the student is said to want.
    """

    source: Literal["teacher", "data"] = "teacher"
    levels: Literal["easy", "doubling"] = "doubling"
    stages: int = 5
    huber_c: float = HUBER_C
    steps: int = 4

    def __post_init__(self) -> None:
        if self.source == "data" and self.guidance.on:
            raise UserError("guidance needs source: teacher, for data know no guidance scale")
        if not (1 <= self.stages <= 12 and self.steps >= 1 and self.huber_c > 0):
            raise UserError(
                "stages must be from 1 to 12, steps at least 1 and huber_c above 0, not "
                f"{self.stages}, {self.steps} and {self.huber_c:g}"
            )


@validated(frozen=True, config=STRICT)
@dataclass(frozen=True, kw_only=True)
class TrajectoryConfig(DistillConfig):
    """A run of ``distill trajectory``: paths of the teacher, then ``loop`` on their steps.

    Attributes:
        paths: how many the teacher walks.
        teacher_steps: of DPM++ 2M in each.
        steps: of the student; a divisor of the teacher's.
        schedule: the grid they walk.
    """

    paths: int = 4000
    teacher_steps: int = 16
    steps: int = 4
    schedule: Literal["trailing", "sgm-uniform"] = "trailing"

    def __post_init__(self) -> None:
        if not 1 <= self.steps < self.teacher_steps or self.teacher_steps % self.steps:
            raise UserError(
                "teacher_steps must be steps times 2 or more, such as 16 for 4, not "
                f"{self.teacher_steps} for {self.steps}"
            )
        if self.paths < 1:
            raise UserError(f"paths must be at least 1, not {self.paths}")
