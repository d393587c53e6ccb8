"""Writing files: whole or not at all, never over another, named so that every system takes them."""

import os
import secrets
import stat
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from shared.errors import UserError


def slug(text: str, max_bytes: int = 60) -> str:
    """``text`` as part of a file name: letters, marks and digits of any script, joined by hyphens.

    At most ``max_bytes`` bytes of UTF-8; "untitled" where nothing is left (a prompt of emoji only).
    """
    # Emoji's joiners and variation selectors count as marks, so a letter must begin each word.
    kept = "".join(
        char if unicodedata.category(char)[0] in "LMN" else " "
        for char in unicodedata.normalize("NFC", text[:1000]).lower()
    )
    words = [word for word in kept.split() if unicodedata.category(word[0])[0] != "M"]
    name = "-".join(words).encode()[:max_bytes].decode(errors="ignore")
    return name.strip("-") or "untitled"


def output_paths(
    output: Path | None,
    names: list[str],
    tags: list[str],
    suffixes: Sequence[str],
    overwrite: bool = False,
) -> list[Path]:
    """One path a file to be made, checked before anything is computed.

    Args:
        output: a file, an existing folder, or None for the current folder.
        names: default file name of each file, without its suffix.
        tags: what tells the files apart ("STEM-TAG.png") when ``output`` names one file for many.
        suffixes: those allowed, each with its dot; the first is that of the default names.

    Raises:
        UserError: another suffix, a file in the way, or a folder missing or not writable.
    """
    try:
        is_folder = output is None or output.is_dir()
    except OSError as error:  # a name that the file system does not take
        raise UserError(f"cannot write {str(output)!r}: {error.strerror}") from None
    if output is None or is_folder:
        folder = output or Path()
        paths = [folder / f"{name}{suffixes[0]}" for name in names]
    elif output.suffix.lower() not in suffixes:
        allowed = ", ".join(suffixes[:-1]) + " or " * (len(suffixes) > 1) + suffixes[-1]
        raise UserError(f"{str(output)!r} is neither a {allowed} file name nor an existing folder")
    elif len(names) == 1:
        paths = [output]
    else:
        paths = [output.with_name(f"{output.stem}-{tag}{output.suffix}") for tag in tags]
    check_writable(paths[0].parent)
    for path in paths:
        _refuse_existing(path, overwrite)
    return paths


def folder_paths(folder: Path, names: Sequence[str], overwrite: bool = False) -> list[Path]:
    """Paths of files in a folder that may not be there yet, checked before anything is computed.

    Raises:
        UserError: a file in the way, or the folder or the one it is to be in not writable.
    """
    check_writable(folder if folder.exists() else folder.parent)
    paths = [folder / name for name in names]
    for path in paths:
        _refuse_existing(path, overwrite)
    return paths


def check_writable(folder: Path) -> None:
    """Raise UserError unless files can be made in ``folder``."""
    if not folder.exists():
        raise UserError(f"cannot write to {str(folder)!r}: there is no such folder")
    if not folder.is_dir():
        raise UserError(f"cannot write to {str(folder)!r}: it is not a folder")
    try:  # asking the file system is the only sure answer: permissions, read-only mounts, quotas
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"cannot write to folder {str(folder)!r}: {error.strerror}") from None


@contextmanager
def whole_file(path: Path, overwrite: bool = False) -> Iterator[BinaryIO]:
    """A binary file to write; it takes its name ``path`` only when the block ends without error.

    Raises:
        UserError: ``path`` exists and ``overwrite`` is false, or the system refuses to write.
    """
    # Beside its final place, so that the rename stays within one file system and is atomic.
    partial = path.with_name(f".duotone-{secrets.token_hex(6)}.tmp")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _refuse_existing(path, overwrite)
        partial.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _refuse_existing(path: Path, overwrite: bool) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"cannot write {str(path)!r}: {error.strerror}") from None
    if stat.S_ISDIR(mode):
        raise UserError(f"{str(path)!r} is a folder; a file cannot take its place")
    if not overwrite:
        raise UserError(f"{str(path)!r} exists; pass --overwrite to replace it")
