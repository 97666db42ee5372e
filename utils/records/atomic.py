"""Write files atomically: a reader finds the old file or the new file, never a part of it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from pmi_cl.errors import UserError

# No string of JSON holds a line break, so this matches no part of one.
_LIST_OF_NUMBERS = re.compile(r"\[\n[^\[\]{}\"]*\n *\]")


def write_atomically(path: Path, write: Callable[[IO[bytes]], object], flag: str = "--results_path") -> None:
    """Write a temporary file in the same folder, sync it to the disk, then rename it to ``path``.

    The temporary name is always the same, so that the next write overwrites what a killed process
    has left.

    Args:
        write: called with the temporary file, open for bytes.
        flag: the flag that decides where ``path`` lies, for the error message.

    Raises:
        UserError: the disk is full, or the folder cannot be written to. ``path`` is unchanged.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror or error}): make room or choose another {flag}"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_bytes(path: Path, content: bytes, flag: str = "--results_path") -> None:
    """Write ``content`` atomically."""
    write_atomically(path, lambda file: file.write(content), flag)


def write_json(path: Path, content: Mapping[str, Any], flag: str = "--results_path") -> None:
    """Write ``content`` as indented JSON, atomically. NaN and infinity become null.

    A list of numbers takes one line. Lone surrogates, which stand for the bytes of a name that is
    not UTF-8, become JSON's escapes.
    """
    text = json.dumps(_jsonable(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    text = _LIST_OF_NUMBERS.sub(lambda found: " ".join(found[0].split()).replace("[ ", "[").replace(" ]", "]"), text)
    write_bytes(path, text.encode("utf-8", "backslashreplace"), flag)


def _jsonable(value: Any) -> Any:
    """Return the value in types that JSON has."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def _sync_folder(folder: Path) -> None:
    """Sync the rename to the disk where the file system can. The file is complete anyway."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
