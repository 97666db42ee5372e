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

    def __init__(self) -> None:
        self.requested: int | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            hup = getattr(signal, "SIGHUP", None)
            for number in _SIGNALS:
                if number == hup and signal.getsignal(number) == signal.SIG_IGN:
                    continue
                self._old[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._old.items():
            # None: the handler was not set by Python and cannot be set from here
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._old.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.requested is None:
            self.requested = number
            # os.write, as print() may be what the signal interrupted, and it must not be entered twice
            with contextlib.suppress(OSError):  # the terminal may be gone
                os.write(2, b"\nstopping: the step is finished and saved first (Ctrl-C again: stop at once)\n")
