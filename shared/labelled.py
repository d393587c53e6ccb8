"""Files of prompts with labels, as the evaluations of both arts read them: a JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from shared.errors import UserError

P = TypeVar("P")


def read_prompts(path: Path, needed: str, parse: Callable[[dict[str, Any], int], P]) -> list[P]:
    """What ``parse`` makes of each line that is not empty.

    Args:
        needed: keys that each object has, for messages: "prompt and kind".
        parse: (a line's object, its number from 0 on) -> a prompt. A ``UserError`` says what is
            wrong with it; so do a missing key and a value of a wrong type.

    Raises:
        UserError: no such file, no line, or one at fault.
    """
    try:
        # Not splitlines: JSON may hold other characters that it would take for a line's end.
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read prompts from {str(path)!r}: {error}") from None
    prompts = []
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        where = f"{path}, line {number + 1}"
        try:
            prompts.append(parse(json.loads(line), number))
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            message = f"{where}: a JSON object with {needed} is needed ({error!r})"
            raise UserError(message) from None
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
    if not prompts:
        raise UserError(f"{str(path)!r} holds no prompts; one JSON object a line is needed")
    return prompts


def refuse_faults(faults: dict[str, bool]) -> None:
    """Raise a ``UserError`` of the first fault that was found.

    Args:
        faults: what is wrong -> whether it is.
    """
    for fault, found in faults.items():
        if found:
            raise UserError(fault)
