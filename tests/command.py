"""Running ``duotone ARGS`` in this process; the fixture ``duotone`` in conftest.py does it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Result:
    code: int
    out: list[str]
    err: str


Duotone = Callable[..., Result]


def refused(result: Result, *fragments: str) -> None:
    """One line that names the fault, exit code 2, nothing printed and nothing written."""
    assert result.code == 2
    assert result.out == []
    assert result.err.startswith("Error: ") and result.err.count("\n") == 1
    for fragment in fragments:
        assert fragment in result.err
    assert names() == []


def names(folder: Path = Path()) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
