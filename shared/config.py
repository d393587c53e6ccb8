"""Reading a run's configuration: a YAML file as a frozen dataclass, every key checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from shared.errors import UserError

STRICT = ConfigDict(extra="forbid")
"""For ``pydantic.dataclasses.dataclass``: a key that is not there is a fault, not a default."""

T = TypeVar("T")


def read_art(path: Path, default: str) -> str:
    """What the run of a YAML file is about: its top-level key ``art``, such as "music".

    Raises:
        UserError: the file is missing or is no YAML.
    """
    content = _read_yaml(path)
    return str(content.get("art", default)) if isinstance(content, dict) else default


def read_config(path: Path, kind: type[T]) -> T:
    """Read a YAML file as a configuration of ``kind``.

    Raises:
        UserError: the file is missing, is no YAML, or a key is missing, unknown or of a wrong type.
    """
    content = _read_yaml(path)
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(f"{path}: {where}: {first['msg']}") from error


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the config {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file in UTF-8") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
