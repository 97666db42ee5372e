"""Turn SIGINT, SIGTERM and SIGHUP into a wish to stop.

The program grants it at the next place where it can save.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, *((signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()))


class Interrupted(Exception):
    """A signal asked to stop. It is raised at a safe point, after saving."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.exit_code = 128 + signal_number


class Interrupts:
    """Note a first SIGINT, SIGTERM or SIGHUP while the context is entered.

    A SIGINT after that raises ``KeyboardInterrupt`` at once. SIGHUP, which a terminal sends when it
    closes, stays ignored if it was ignored before (``nohup``). The old handlers are back on
    leaving, also when the body raises. Outside the main thread, where Python allows no handlers, it
    does nothing.

    Attributes:
        requested: the number of the signal that asked to stop, or None.
    """

    def __init__(self, ends_process: bool = False) -> None:
        """Note how long signals are to be ignored at the end.

        Args:
            ends_process: whether the process ends soon after the body. After
                :meth:`ignore_signals` signals then change nothing behind the body either.
        """
        self.requested: int | None = None
        self._ends_process = ends_process
        self._ignoring = False
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
            if self._ignoring and self._ends_process:
                # Python needs a third of a second to end. A signal in that time must not turn a run
                # that is recorded as finished into a failure.
                signal.signal(number, signal.SIG_IGN)
                continue
            # None: Python did not set the handler, so it cannot be set from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._old.clear()

    def ignore_signals(self) -> None:
        """Ignore signals from now on: all that they could ask for is being done."""
        self._ignoring = True

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._ignoring:
            return
        if self.requested is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.requested is None:
            self.requested = number
            # os.write: the signal may have interrupted print(), which must not be entered twice.
            with contextlib.suppress(OSError):  # the terminal may be gone
                os.write(2, b"\nstopping: the step is finished and saved first (Ctrl-C again: stop at once)\n")
