"""Finds the files that may define methods, data sets or backbones, before any of them is parsed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

MARKS = {"model": b"NAME", "dataset": b"NAME", "backbone": b"BACKBONES"}  # what a file that defines one has to hold


def files_below(folders: Sequence[Path], kind: str) -> dict[str, Path]:
    """Return the files of a kind, in its folder and all folders inside: dotted name -> path.

    Names that begin with ``_`` or ``.`` are private. The ``__init__.py`` of a folder has the name
    of the folder. A file without the mark of the kind is left out, because parsing all files would
    take most of the time of ``--list``. If two of ``folders`` have a file of the same name, that of
    the first counts, as it does for an import.
    """
    found: dict[str, Path] = {}
    for root in reversed(folders):
        for path in (root / f"{kind}s").rglob("*.py"):
            parts = path.relative_to(root / f"{kind}s").with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            if not any(part[:1] in "_." for part in parts) and _holds(path, MARKS[kind]):
                found[".".join(parts)] = path
    return dict(sorted(found.items()))


def _holds(path: Path, mark: bytes) -> bool:
    try:
        return not path.is_file() or mark in path.read_bytes()  # to read a pipe could take for ever
    except OSError:
        return True  # the reader says what is wrong with it


def what_it_is(path: Path) -> str:
    """Return in words what a path is that is no file, and what to do; an empty text for a file."""
    try:
        if path.is_file():
            return ""
        kind = "a folder" if path.is_dir() else "a link to nothing" if path.is_symlink() else "no plain file"
    except OSError as error:
        kind = f"not to be looked at ({error.strerror})"
    return f"{path} is {kind}: give it a name without .py, or take it away"


def names_in(path: Path, kind: str) -> list[str]:
    """Return the names that an unreadable file seems to define.

    A user who chooses one of them is told what is wrong with the file.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    except OSError:
        return []
    if kind != "backbone":
        return re.findall(r"""^\s+NAME\b[^=+\n]*=\s*["']([^"'\n]+)["']\s*(?:#.*)?$""", text, re.MULTILINE)
    written = re.search(r"^BACKBONES\b[^{]*\{([^}]*)", text, re.MULTILINE)
    return re.findall(r"""["']([^"'\n]+)["']\s*:""", written[1]) if written else []
