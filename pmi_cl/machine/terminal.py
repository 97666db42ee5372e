"""Prints, whatever encoding the terminal has, and whether or not anybody is there to read."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TextIO

from pmi_cl.errors import UserError


def show(text: str) -> None:
    """Prints on stdout, with escapes for what its encoding lacks.

    Raises:
        BrokenPipeError: who read it has closed the pipe.
        UserError: it cannot be written, for another reason (a full disk).
    """
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), end="", flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        give_up_stdout()
        raise UserError(f"cannot write to the standard output ({error.strerror}): send it elsewhere") from error


def tell(line: str) -> None:
    """Prints a line on stderr, with escapes for what its encoding lacks; where nobody can read it, it is no reason to fail."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def give_up_stdout() -> None:
    """What is buffered and what is still printed goes nowhere: the interpreter must not fail over it on its way out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def open_closed_streams() -> None:
    """Opens what the process was started without (``2>&-``): else the next file would get its number, and be written to as stderr."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            with contextlib.suppress(
                OSError
            ):  # the lowest number that is free is this one, unless something has it already
                os.fstat(number)
                continue
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")
