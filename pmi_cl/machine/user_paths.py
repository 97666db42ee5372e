"""Turn what a user types into paths, and say in one line why one cannot be used."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from pmi_cl.errors import UserError
from pmi_cl.machine.plain_text import excerpt

DEEPEST = 200  # folders inside each other: Python's own functions give up at about 900


def path_text(text: str) -> str:
    """Return the name of a file in the form that the locale of this process takes.

    Under ``LC_ALL=C`` an "é" of a preset or a record has to become the bytes of its UTF-8.
    """
    with contextlib.suppress(UnicodeError):
        os.fsencode(text)
        return text
    with contextlib.suppress(UnicodeError):
        return os.fsdecode(text.encode("utf-8", "surrogateescape"))
    return text


def expanded(text: str) -> str:
    """Return a typed path with a home folder in place of its ``~``.

    Raises:
        ValueError: there is no such home folder.
    """
    text = path_text(text)
    if not text.startswith("~"):
        return text
    try:
        return str(Path(text).expanduser())
    except RuntimeError:
        home = excerpt(Path(text).parts[0])
        raise ValueError(f"there is no home folder {home}: write the whole path, from / on") from None


def check_path(path: str) -> None:
    """Raise ValueError if the system cannot look the path up. It need not exist."""
    if len(Path(path).parts) > DEEPEST:
        raise ValueError(f"it is more than {DEEPEST} folders deep: choose a shorter path")
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise ValueError(f"{error.strerror}: choose another path") from None
    except ValueError:  # a zero byte, or a character that the locale does not have
        raise ValueError("the system takes no such name: choose another path") from None


def user_path(text: str, typed: str) -> Path:
    """Return a typed path, its ``~`` expanded, that the system can look up.

    Args:
        typed: the flag or word that named it, for the error message.

    Raises:
        UserError: there is no such home folder, or the system cannot look the path up.
    """
    try:
        path = expanded(text)
        check_path(path)
    except ValueError as error:
        raise UserError(f"{typed} {excerpt(text)}: {error}") from None
    return Path(path)


def path_fault(error: OSError, words: Sequence[str]) -> UserError | None:
    """Return the one line for a file that cannot be used; None if the error names no file.

    Args:
        words: the typed words. If the file lies below the value of a flag, the line names the flag.
    """
    if not isinstance(error.filename, str | bytes):
        return None
    path = os.fsdecode(error.filename)
    flag = _flag_of(path, words)
    advice = f"give --{flag} another path" if flag else "choose another path"
    reason = error.strerror or type(error).__name__
    return UserError(f"cannot use {excerpt(path)} ({reason}): change its permissions or name, or {advice}")


def _flag_of(path: str, words: Sequence[str]) -> str:
    """Return the flag whose value is the longest path above ``path``, or an empty text."""
    target = Path(path).absolute()
    found = {}
    for word, after in zip(words, (*words[1:], ""), strict=True):
        name, equals, value = word.partition("=")
        with contextlib.suppress(ValueError):
            above = Path(expanded(value if equals else after)).absolute()
            if name.startswith("--") and above in (target, *target.parents) and (value or after):
                found[str(above)] = name[2:]
    return found[max(found, key=len)] if found else ""
