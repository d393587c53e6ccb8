"""Folders of captioned files, as Hugging Face's imagefolder and audiofolder loaders know them.

Files, and a ``metadata.jsonl`` whose lines hold ``file_name``, ``text`` and any further labels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from shared.errors import UserError
from shared.files import whole_file

METADATA = "metadata.jsonl"


@dataclass(frozen=True)
class CaptionedFile:
    """One line of the metadata.

    Attributes:
        path: of the file, which is there.
        text: its caption.
        columns: the whole line, ``file_name`` and ``text`` included.
        where: the line, for messages.
    """

    path: Path
    text: str
    columns: dict[str, Any]
    where: str


def read_captioned(folder: Path, thing: str) -> list[CaptionedFile]:
    """Read the metadata of a folder of captioned files.

    Args:
        thing: what the files are, for messages: "picture".

    Raises:
        UserError: no metadata, a line that is not a JSON object, a row without text, or a file that
            is not there.
    """
    metadata = folder / METADATA
    if not metadata.is_file():
        raise UserError(
            f"{folder} has no {METADATA}; it needs one JSON object a line with file_name and text"
        )
    try:
        # Not splitlines: JSON may hold other characters that it would take for a line's end.
        lines = metadata.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {metadata}: {error}") from None
    rows = [
        _read_line(folder, f"{metadata}, line {number}", line, thing)
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not rows:
        raise UserError(f"{metadata} is empty; it needs at least one {thing}")
    return rows


def _read_line(folder: Path, where: str, line: str, thing: str) -> CaptionedFile:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error.msg}); one JSON object a line") from error
    if not isinstance(row, dict):
        raise UserError(f"{where}: not a JSON object; file_name and text are needed")
    for column in ("file_name", "text"):
        if not isinstance(row.get(column), str) or not row[column].strip():
            raise UserError(f"{where}: {column} is missing or empty; every {thing} needs one")
    path = folder / row["file_name"]
    if not path.is_file():
        raise UserError(f"{where}: there is no {thing} {row['file_name']} in {folder}")
    return CaptionedFile(path, row["text"], row, where)


def rows_in(folder: Path) -> int:
    """How many rows the folder's metadata has already; 0 without any."""
    metadata = folder / METADATA
    if not metadata.exists():
        return 0
    with metadata.open(encoding="utf-8") as lines:
        return sum(1 for _ in lines)


def claim(out: Path, note: str, origin: dict[str, Any], things: str) -> None:
    """Make ``out`` the folder of the files that ``origin`` makes; the file ``note`` says so.

    Raises:
        UserError: it holds anything else already, or cannot be written to.
    """
    file = out / note
    try:
        if file.exists():
            try:
                found = json.loads(file.read_text(encoding="utf-8"))
            except ValueError:
                found = "no JSON"
            if found != origin:
                differing = _differing(found, origin)
                raise UserError(
                    f"{out} holds {things} of another {differing} ({found}, not {origin}); "
                    "choose another folder"
                )
        elif out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(
                f"{out} holds something other than {things}; choose a new or empty folder"
            )
        else:
            out.mkdir(parents=True, exist_ok=True)
            with whole_file(file) as opened:
                opened.write((json.dumps(origin) + "\n").encode())
    except OSError as error:
        raise UserError(f"cannot write to {str(out)!r}: {error.strerror}") from None


def _differing(found: Any, origin: dict[str, Any]) -> str:
    if not isinstance(found, dict):
        return "origin"
    return " and ".join(key for key in origin if found.get(key) != origin[key]) or "origin"


def spread(
    work: Callable[[range], list[str]], chunks: Iterable[range], workers: int
) -> Iterator[list[str]]:
    """Results of ``work`` in the order of the chunks, from processes if more than one is wanted."""
    if workers == 1:
        yield from map(work, chunks)
        return
    # Forked from a process whose OpenMP threads have run, a child waits for ever at its first sum.
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        yield from pool.map(work, chunks)
