"""The files that something was made of: told by their hash, and found again."""

from __future__ import annotations

import hashlib
from pathlib import Path

from shared.errors import UserError


def file_hash(file: Path) -> str:
    """SHA-256 of its bytes.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise UserError(f"there is no file {str(file)!r}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {str(file)!r}: {error}") from None


def found(result: Path, named: str, digest: str | None) -> Path:
    """A file that ``result`` was made of: where it was named, or beside its result.

    Raises:
        UserError: it is not there, or is another by now.
    """
    places = [Path(named), result.parent / Path(named).name]
    present = [place for place in places if place.is_file()]
    for place in present:
        if file_hash(place) == digest:
            return place
    if present:
        raise UserError(
            f"{str(present[0])!r} is no longer the file that {str(result)!r} was made of"
        )
    raise UserError(f"{str(result)!r} was made of {named!r}, which is not there")
