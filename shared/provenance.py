"""Records of what made a file: written as JSON and as the `parameters` text image tools read.

A record is the ``dataclasses.asdict`` of a frozen settings dataclass, from which the file can be
made again. This module knows records only; each art puts them into its own kind of file.
"""

import json
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import Any, TypeVar

from shared.errors import UserError

Settings = TypeVar("Settings")

# Quoted values may hold commas: `Model: "a, b"`.
_FIELD = re.compile(r'\s*([\w /+-]+):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
_SAFE = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)])  # all but tab and newline


def version() -> str:
    """The installed version of Duotone, such as "0.1.0"."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("duotone")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown"


def to_json(settings: Any) -> str:
    """The settings dataclass as one line of ASCII JSON: safe in any text chunk and any terminal."""
    return json.dumps(asdict(settings), allow_nan=False)


def from_json(text: str, kind: type[Settings]) -> Settings:
    """Read a record back into the dataclass ``kind``; keys it does not know are left out.

    Fields that have a default may be missing: records of earlier versions lack them.

    Raises:
        UserError: not JSON, a field missing or of the wrong type, or a value ``kind`` refuses.
    """
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the record is not valid JSON ({error})") from None
    if not isinstance(record, dict):
        raise UserError("the record is not a JSON object")
    return _from_record(record, kind)


def _from_record(record: dict[str, Any], kind: type[Settings]) -> Settings:
    hints = typing.get_type_hints(kind)
    known = fields(kind)  # type: ignore[arg-type]
    missing = [
        field.name
        for field in known
        if field.name not in record and field.default is field.default_factory is MISSING
    ]
    if missing:
        raise UserError(f"the record lacks {', '.join(missing)}")
    names = [field.name for field in known if field.name in record]
    return kind(**{name: _typed(name, record[name], hints[name]) for name in names})


def format_parameters(prompt: str, negative_prompt: str, values: Mapping[str, object]) -> str:
    """The text form that AUTOMATIC1111's web UI began and most image tools read.

    The prompt, a line with the negative prompt if there is one, and one line of `Key: value`
    pairs. Control characters, which have no place in a PNG text chunk, are left out.
    """
    lines = [prompt.translate(_SAFE)]
    if negative_prompt:
        lines.append(f"Negative prompt: {negative_prompt.translate(_SAFE)}")
    lines.append(", ".join(f"{key}: {_quoted(str(value))}" for key, value in values.items()))
    return "\n".join(lines)


def parse_parameters(text: str) -> dict[str, str]:
    """Read `parameters` text, from any tool, into ``{"Prompt": ..., "Negative prompt": ..., ...}``.

    Whatever is not in the standard form is taken as part of the prompt; never raises.
    """
    *lines, last = text.strip().split("\n")
    values = {}
    if re.match(r"Steps: \d+", last):
        values = {key.strip(): _unquoted(value) for key, value in _FIELD.findall(last)}
    else:
        lines.append(last)
    prompt, separator, negative = "\n".join(lines).partition("Negative prompt: ")
    parsed = {"Prompt": prompt.strip()}
    if separator:
        parsed["Negative prompt"] = negative.strip()
    return parsed | values


def printable(text: str) -> str:
    """``text`` on one line, with control characters (a terminal would obey them) as escapes."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _quoted(value: str) -> str:
    plain = value.translate(_SAFE)
    return json.dumps(plain, ensure_ascii=False) if re.search(r'[,:"\n]', plain) else plain


def _unquoted(value: str) -> str:
    try:
        return str(json.loads(value)) if value.startswith('"') else value.strip()
    except ValueError:
        return value.strip()


def _typed(name: str, value: Any, hint: Any) -> Any:
    """``value`` of a JSON record as the type that the dataclass declares for field ``name``."""
    if isinstance(hint, types.UnionType):  # T | None
        if value is None:
            return None
        hint = next(part for part in typing.get_args(hint) if part is not types.NoneType)
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        parts = typing.get_args(hint)
        if len(parts) == 2 and parts[1] is Ellipsis:
            return tuple(_typed(name, item, parts[0]) for item in value)
        if len(parts) == len(value):
            return tuple(_typed(name, *pair) for pair in zip(value, parts, strict=True))
    elif isinstance(hint, type) and is_dataclass(hint) and isinstance(value, dict):
        return _from_record(value, hint)
    elif hint is float and type(value) is int:
        return float(value)
    elif type(value) is hint:
        return value
    wanted = hint if isinstance(hint, types.GenericAlias) else hint.__name__
    raise UserError(f"the record's {name} is {value!r:.60}, not {wanted}")
