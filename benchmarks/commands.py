"""Check the flags that benchmarks share, tell progress, and end a command as the program does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from pmi_cl.errors import UserError


def say(line: str) -> None:
    """Print progress to stderr, outside of the report."""
    print(line, file=sys.stderr, flush=True)


def check_images(images: int | None) -> None:
    """Raise UserError unless the number of images is the same for each of ten classes."""
    if images is not None and (images < 10 or images % 10):
        raise UserError(f"--images {images}: give a multiple of 10, the same number for each class")


def check_threads(threads: int) -> None:
    """Raise UserError unless there is a thread."""
    if threads < 1:
        raise UserError(f"--threads {threads}: give at least 1")


def check_folder(flag: str, file: Path | None) -> None:
    """Raise UserError unless the folder of a file to be written is there."""
    if file is not None and not file.parent.is_dir():
        raise UserError(f"{flag} {file}: there is no folder {file.parent}, make it first")


def exit_code(command: Callable[[], None]) -> int:
    """Carry a command out. Return 0, or 2 and a line on stderr for a user's mistake."""
    try:
        command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0
