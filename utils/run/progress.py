"""Show how far a phase is, on stderr, and when it will end.

On a terminal it is a bar. Elsewhere it is a plain line a minute, and nothing for a short phase.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol, TextIO

from pmi_cl.machine.terminal import columns
from pmi_cl.models.host import PhaseState

if TYPE_CHECKING:
    import torch


RECENT_SECONDS = 10.0  # over which a rate is measured
REDRAWN_SECONDS = 0.5  # between two pictures of a bar


class Pace:
    """The rate of the last seconds, and the time that is left at this rate."""

    def __init__(self, seconds: float = RECENT_SECONDS) -> None:
        """
        Args:
            seconds: over which the rate is measured.
        """
        self._seconds = seconds
        self._points: deque[tuple[float, int, float]] = deque()  # moment, units, part

    def add(self, moment: float, done: int, part: float) -> None:
        """Take note of what is done at a moment, in seconds.

        Between two points that are kept lies a fiftieth of the time that is looked at.
        """
        points = self._points
        if len(points) > 1 and moment - points[-2][0] < self._seconds / 50:
            points.pop()
        points.append((moment, done, part))
        while len(points) > 2 and points[1][0] <= moment - self._seconds:
            points.popleft()

    @property
    def rate(self) -> float | None:
        """Return the units per second. None: nothing is known yet."""
        return self._growth(1)

    @property
    def seconds_left(self) -> float | None:
        """Return the seconds that are left. None: nothing is known yet."""
        growth = self._growth(2)
        return (1 - self._points[-1][2]) / growth if growth else None

    def _growth(self, place: int) -> float | None:
        if len(self._points) < 2 or self._points[-1][0] <= self._points[0][0]:
            return None
        first, last = self._points[0], self._points[-1]
        return (last[place] - first[place]) / (last[0] - first[0])


def described(state: PhaseState, pace: Pace) -> str:
    """Return "2:03 left, 31.2/s, batch 2/5, stage 4/16: layer 12, loss 0.1"."""
    left, rate = pace.seconds_left, pace.rate
    words = [f"{duration(left)} left"] if left is not None and state.done < state.total else []
    words += [f"{rate:.3g}/s"] if rate else []
    words += [state.where] if state.where else []
    return ", ".join([*words, *(f"{name} {float(value):.4g}" for name, value in state.values.items())])


def duration(seconds: float) -> str:
    """Return a time as "0:07", "12:03" or "5:00:10"."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


class Display(Protocol):
    """Shows the progress of one phase."""

    def update(self, state: PhaseState) -> None:
        """Show how far the phase is."""

    def close(self) -> None:
        """End what is shown: the phase is left, finished or not."""


class Progress:
    """The progress of one phase after the other.

    Updates are cheap. A value on a device is turned into a number, for which the device must be
    waited for, only when it is shown.
    """

    def __init__(self, mode: str = "auto", stream: TextIO | None = None, line_seconds: float = 60.0) -> None:
        """Choose between bars, lines and nothing.

        Args:
            mode: "0" shows nothing, "1" bars, "auto" bars on a terminal and lines elsewhere.
            stream: where to write. None: stderr.
            line_seconds: the least time between two lines of one phase, and before the first.
        """
        self._stream = sys.stderr if stream is None else stream
        self._silent = mode == "0"
        self._bars = mode == "1" or self._stream.isatty()
        self._line_seconds = line_seconds
        self._phase: str | None = None
        self._display: Display | None = None

    def update(self, phase: str, done: int, total: int, **values: float | torch.Tensor) -> None:
        """Show that ``done`` of ``total`` units of ``phase`` are finished, see :meth:`show`."""
        self.show(phase, PhaseState(done, total, values=values))

    def show(self, phase: str, state: PhaseState) -> None:
        """Show how far a phase is. At ``done == total`` it ends."""
        if self._silent:
            return
        try:
            self._show(phase, state)
        except OSError:  # the terminal was closed, but the work goes on
            self._silent, self._display = True, None

    def _show(self, phase: str, state: PhaseState) -> None:
        if phase != self._phase or self._display is None:
            self.close()
            self._phase = phase
            self._display = (
                _Bar(phase, state.total, self._stream)
                if self._bars
                else _Lines(phase, self._stream, self._line_seconds)
            )
        self._display.update(state)
        if state.done >= state.total:
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

        layout = "{desc}: {percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt}{postfix}"
        self._bar = tqdm(desc=phase, total=total, file=stream, ncols=columns(stream), bar_format=layout)
        self._pace = Pace()
        self._shown = float("-inf")

    def update(self, state: PhaseState) -> None:
        self._bar.n = state.done
        now = time.monotonic()
        self._pace.add(now, state.done, state.work)
        if now - self._shown < REDRAWN_SECONDS and state.done < state.total:
            return
        self._shown = now
        self._bar.set_postfix_str(described(state, self._pace), refresh=False)
        self._bar.refresh()

    def close(self) -> None:
        self._bar.close()


class _Lines:
    """Plain lines, seldom enough for a log file. The end of a phase is shown if its way was."""

    def __init__(self, phase: str, stream: TextIO, seconds: float) -> None:
        self._phase, self._stream, self._seconds = phase, stream, seconds
        self._began = self._shown = time.monotonic()
        self._pace = Pace()

    def update(self, state: PhaseState) -> None:
        now = time.monotonic()
        self._pace.add(now, state.done, state.work)
        ends = state.done >= state.total and self._shown > self._began
        if now - self._shown < self._seconds and not ends:
            return
        self._shown = now
        words = [f"{self._phase}: {state.done}/{state.total} in {duration(now - self._began)}"]
        print(", ".join(filter(None, [*words, described(state, self._pace)])), file=self._stream, flush=True)

    def close(self) -> None:
        """Do nothing: every line is complete."""
