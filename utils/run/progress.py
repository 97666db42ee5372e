"""Show how far a phase is, on stderr.

On a terminal it is a bar, else a plain line now and then.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    import torch


class Display(Protocol):
    """Shows the progress of one phase."""

    def update(self, done: int, values: Mapping[str, Any]) -> None:
        """Show that ``done`` units are finished.

        ``values`` may be 0-dimensional tensors. They are read only if something is shown.
        """

    def close(self) -> None:
        """End what is shown: the phase is left, finished or not."""


class Progress:
    """The progress of one phase after the other.

    Updates are cheap. A value on a device is turned into a number, for which the device must be
    waited for, only when it is shown.
    """

    def __init__(self, mode: str = "auto", stream: TextIO | None = None, line_seconds: float = 10.0) -> None:
        """Choose between bars, lines and nothing.

        Args:
            mode: "0" shows nothing, "1" bars, "auto" bars on a terminal and lines elsewhere.
            stream: where to write. None: stderr.
            line_seconds: the least time between two lines of one phase. Its end is always shown.
        """
        self._stream = sys.stderr if stream is None else stream
        self._silent = mode == "0"
        self._bars = mode == "1" or self._stream.isatty()
        self._line_seconds = line_seconds
        self._phase: str | None = None
        self._display: Display | None = None

    def update(self, phase: str, done: int, total: int, **values: float | torch.Tensor) -> None:
        """Show that ``done`` of ``total`` units of ``phase`` are finished.

        At ``done == total`` the phase ends.

        Args:
            phase: the name of the phase.
            done, total: units.
            values: shown beside it, by name: numbers or 0-dimensional tensors.
        """
        if self._silent:
            return
        try:
            self._show(phase, done, total, values)
        except OSError:  # the terminal was closed, but the work goes on
            self._silent, self._display = True, None

    def _show(self, phase: str, done: int, total: int, values: Mapping[str, Any]) -> None:
        if phase != self._phase or self._display is None:
            self.close()
            self._phase = phase
            self._display = (
                _Bar(phase, total, self._stream)
                if self._bars
                else _Lines(phase, total, self._stream, self._line_seconds)
            )
        self._display.update(done, values)
        if done >= total:
            self.close()

    def close(self) -> None:
        """End the phase that is shown, if any. What is printed next starts on a line of its own."""
        if self._display is not None:
            with contextlib.suppress(OSError):
                self._display.close()
        self._display = self._phase = None


class _Bar:
    """A tqdm bar, redrawn twice a second."""

    def __init__(self, phase: str, total: int, stream: TextIO) -> None:
        from tqdm import tqdm

        self._bar = tqdm(desc=phase, total=total, file=stream, ncols=_columns(stream))
        self._shown = float("-inf")

    def update(self, done: int, values: Mapping[str, Any]) -> None:
        self._bar.n = done
        now = time.monotonic()
        if now - self._shown < 0.5 and done < (self._bar.total or 0):
            return
        self._shown = now
        self._bar.set_postfix_str(_text(values), refresh=False)
        self._bar.refresh()

    def close(self) -> None:
        self._bar.close()


class _Lines:
    """Plain lines, seldom enough for a log file."""

    def __init__(self, phase: str, total: int, stream: TextIO, seconds: float) -> None:
        self._phase, self._total, self._stream, self._seconds = phase, total, stream, seconds
        self._began = self._shown = time.monotonic()
        self._first: int | None = None

    def update(self, done: int, values: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = done
        if now - self._shown < self._seconds and done < self._total:
            return
        self._shown = now
        spent = now - self._began
        pace = f", {(done - self._first) / spent:.3g}/s" if spent >= 1 else ""
        shown = _text(values)
        print(
            f"{self._phase}: {done}/{self._total} in {spent:.1f} s{pace}{', ' + shown if shown else ''}",
            file=self._stream,
            flush=True,
        )

    def close(self) -> None:
        """Do nothing: every line is complete."""


def _columns(stream: TextIO) -> int:
    """Return the terminal's width, or 80 if there is none.

    It is also 80 if the terminal says 0, as in a fresh container: tqdm would draw nothing.
    """
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:
        return 80


def _text(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {float(value):.4g}" for name, value in values.items())
