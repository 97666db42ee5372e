"""Books the seconds and the peak memory of a run to its phases."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pmi_cl.machine.memory import MemoryGauge

if TYPE_CHECKING:
    import torch


class Phases:
    """A clock and a memory gauge for phases, which may nest; an outer phase is not charged for the inner one.

    So the seconds of all phases add up to the time spent in any of them, and a peak
    (:class:`pmi_cl.machine.memory.MemoryGauge`) belongs to the phase that caused it.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        """Args: device: the one that is waited for at each border and whose memory is measured; ``None``: the CPU."""
        self._cuda = device if device is not None and device.type == "cuda" else None
        self._gauge = MemoryGauge(device)
        self._seconds: dict[str, float] = {}
        self._peak: dict[str, float] = {}
        self._open: list[str] = []
        self._since = time.perf_counter()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Charges the body to ``name``; entering one name repeatedly adds up."""
        self._book()
        self._open.append(name)
        try:
            yield
        finally:
            self._book()
            self._open.pop()

    def seconds(self) -> dict[str, float]:
        """Seconds by phase so far, the open ones included."""
        self._book()
        return dict(self._seconds)

    def peak_memory_mib(self) -> dict[str, float]:
        """Peak memory in MiB by phase so far, the open ones included."""
        self._book()
        return dict(self._peak)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a resumed run reports the whole of its cost."""
        return {"seconds": self.seconds(), "peak_memory_mib": self.peak_memory_mib()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from :meth:`state_dict`."""
        self._seconds = dict(state["seconds"])
        self._peak = dict(state["peak_memory_mib"])

    def _book(self) -> None:
        """Charges time and memory since the last border to the innermost open phase, and starts anew."""
        if self._cuda is not None:
            import torch

            torch.cuda.synchronize(self._cuda)  # else work that was only queued would be charged to the next phase
        now = time.perf_counter()
        if self._open:
            name = self._open[-1]
            self._seconds[name] = self._seconds.get(name, 0.0) + now - self._since
            self._peak[name] = max(self._peak.get(name, 0.0), self._gauge.peak_mib())
        self._since = now
        self._gauge.reset()
