"""Print in any encoding of the terminal, also where a stream is closed; tell widths and sizes."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TextIO

from pmi_cl.errors import UserError
from pmi_cl.machine.plain_text import printable


def show(text: str) -> None:
    """Print a text on stdout, with escapes for characters that its encoding lacks.

    Raises:
        BrokenPipeError: the reader has closed the pipe.
        UserError: stdout cannot be written to for another reason, such as a full disk.
    """
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(printable(text).encode(encoding, "backslashreplace").decode(encoding), end="", flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        give_up_stdout()
        raise UserError(f"cannot write to the standard output ({error.strerror}): send it elsewhere") from error


def tell(line: str) -> None:
    """Print a line on stderr. Ignore a stderr that cannot be written to."""
    with contextlib.suppress(OSError):
        print(printable(line), file=sys.stderr, flush=True)


def columns(stream: TextIO) -> int:
    """Return the terminal's width, or 80 if there is none.

    It is also 80 if the terminal says 0, as in a fresh container: tqdm would draw nothing.
    """
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:
        return 80


def give_up_stdout() -> None:
    """Discard buffered and later output, so that the interpreter does not fail when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def open_closed_streams() -> None:
    """Open the standard streams that the process was started without (``2>&-``).

    Otherwise the next file that is opened gets the number of the stream, and messages for stderr
    are written into that file.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            with contextlib.suppress(OSError):  # raised if the number is free: open() takes the lowest
                os.fstat(number)
                continue
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or _null_stream()
    sys.stderr = sys.stderr or _null_stream()


def _null_stream() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


def size_text(size: int) -> str:
    """Return a number of bytes as people read it: "13 kB" or "1.1 MB"."""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{max(1, round(size / 1e3))} kB"
