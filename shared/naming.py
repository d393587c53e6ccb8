"""Choosing one thing by its name from a table, with an error that helps."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

from shared.errors import UserError

T = TypeVar("T")


def choose(kind: str, name: str, table: Mapping[str, T]) -> T:
    """Return ``table[name]``.

    ``kind`` says what the names stand for ("sampler", "schedule") and only appears in the message.

    Raises:
        UserError: the name is not in the table; lists what is, the nearest first.
    """
    if name in table:
        return table[name]
    nearest = difflib.get_close_matches(name, table, n=1, cutoff=0.5)
    hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
    raise UserError(f"unknown {kind} {name!r}{hint}; choose one of: {', '.join(table)}")
