"""Turns SIGINT, SIGTERM and SIGHUP into a wish to stop that the program grants where it can save first."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, *((signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()))


class Interrupted(Exception):
    """Raised at a safe point, after saving, because a signal asked to stop."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.exit_code = 128 + signal_number


class Interrupts:
    """While entered, a first SIGINT, SIGTERM or SIGHUP is only noted; a SIGINT after that raises ``KeyboardInterrupt`` at once.

    SIGHUP, which a terminal sends when it closes, stays ignored where it is (``nohup``).
    The old handlers are back on leaving, also when the body raises. Outside the main thread, where Python allows no handlers,
    it does nothing.

    Attributes:
        requested: the number of the signal that asked to stop, or ``None``.
    """

    def __init__(self, to_the_end: bool = False) -> None:
        """
        Args:
            to_the_end: the process ends soon after the body; once :meth:`nothing_left` was called, signals change nothing there either.
        """
        self.requested: int | None = None
        self._to_the_end = to_the_end
        self._nothing_left = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            hup = getattr(signal, "SIGHUP", None)
            for number in _SIGNALS:
                if number == hup and signal.getsignal(number) == signal.SIG_IGN:
                    continue
                self._old[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._old.items():
            if self._nothing_left and self._to_the_end:
                # Python needs a third of a second to end: a signal then must not make a failure of a run that is recorded as finished
                signal.signal(number, signal.SIG_IGN)
                continue
            # None: the handler was not set by Python and cannot be set from here
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._old.clear()

    def nothing_left(self) -> None:
        """All that a signal could ask for is being done: what comes from now on changes nothing."""
        self._nothing_left = True

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._nothing_left:
            return
        if self.requested is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.requested is None:
            self.requested = number
            # os.write, as print() may be what the signal interrupted, and it must not be entered twice
            with contextlib.suppress(OSError):  # the terminal may be gone
                os.write(2, b"\nstopping: the step is finished and saved first (Ctrl-C again: stop at once)\n")
