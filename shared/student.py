"""The student that a model folder may carry: ``student/``, for few steps, beside the teacher.

``student.json`` tells how it wants to be sampled, and is read without torch, to choose by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shared.errors import UserError
from shared.layout import read_json
from shared.settings import DEFAULT_SAMPLER, DEFAULT_SCHEDULE, PROMPT_ALONE, GuidanceSettings

STUDENT = "student"
STUDENT_FILE = "student.json"


@dataclass(frozen=True)
class Student:
    """How a student wants to be sampled.

    Attributes:
        method: that distilled it.
        steps: that it was made for, at most.
        sampler, schedule: names as ``--sampler`` and ``--schedule`` take them.
        guidance: the lowest and highest scale that it takes as an input; 1 and 1 for none.
    """

    method: str
    steps: int
    sampler: str
    schedule: str
    guidance: tuple[float, float]


def read_student(folder: Path) -> Student:
    """``folder/student.json``.

    Raises:
        UserError: it is missing or not whole.
    """
    path = folder / STUDENT_FILE
    values = read_json(path)
    try:
        low, high = values["guidance"]
        return Student(
            method=str(values["method"]),
            steps=int(values["steps"]),
            sampler=str(values["sampler"]),
            schedule=str(values["schedule"]),
            guidance=(float(low), float(high)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} does not tell how to sample the student ({error!r})") from None


@dataclass(frozen=True)
class Choice:
    """Which denoiser of a model folder samples, and how.

    Attributes:
        student: the student that the model carries, not the model itself.
        sampler, schedule: names.
    """

    student: bool
    sampler: str
    schedule: str


def choose_denoiser(
    model: Path,
    *,
    steps: int,
    guidance_scale: float,
    sampler: str,
    schedule: str,
    negative_prompt: str = "",
    guidance: GuidanceSettings = PROMPT_ALONE,
    quality: bool = False,
) -> Choice:
    """What the options that both arts share ask for.

    A student that the model carries is taken for no more steps than it was made for and guidance
    scales that it knows, unless ``quality`` or anything that it does not take is asked for: another
    sampler or schedule than the default ones, a negative prompt, further guidance. A model that is
    itself a student has a sampler and a schedule of its own by default.

    Raises:
        UserError: a ``student.json`` that is not whole.
    """
    asked = Choice(False, sampler, schedule)
    if (sampler, schedule) != (DEFAULT_SAMPLER, DEFAULT_SCHEDULE):
        return asked
    if (model / STUDENT_FILE).is_file():
        itself = read_student(model)
        return Choice(False, itself.sampler, itself.schedule)
    if quality or negative_prompt.strip() or guidance != PROMPT_ALONE:
        return asked
    if not (model / STUDENT / STUDENT_FILE).is_file():
        return asked
    carried = read_student(model / STUDENT)
    low, high = carried.guidance
    if steps > carried.steps or not low <= guidance_scale <= high:
        return asked
    return Choice(True, carried.sampler, carried.schedule)
