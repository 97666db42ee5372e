"""Measure the seconds and the peak memory of each phase of a run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pmi_cl.machine.memory import MemoryGauge
from pmi_cl.machine.state_fields import number_fields

if TYPE_CHECKING:
    import torch


class Phases:
    """Measure phases, which may be nested. An inner phase does not count for its outer phase.

    So the seconds of all phases add up to the time in any phase, and a memory peak
    (:class:`pmi_cl.machine.memory.MemoryGauge`) belongs to the phase that caused it.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        """
        Args:
            device: the device whose memory is measured. At the start and the end of a phase, the
                program waits for it. None means the CPU.
        """
        self._cuda = device if device is not None and device.type == "cuda" else None
        self._gauge = MemoryGauge(device)
        self._seconds: dict[str, float] = {}
        self._peak: dict[str, float] = {}
        self._open: list[str] = []
        self._since = time.perf_counter()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the body for the phase ``name``. Repeated phases add up."""
        self._measure()
        self._open.append(name)
        try:
            yield
        finally:
            self._measure()
            self._open.pop()

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each phase so far, with the open phases."""
        self._measure()
        return dict(self._seconds)

    def peak_memory_mib(self) -> dict[str, float]:
        """Return the peak memory of each phase so far in MiB, with the open phases."""
        self._measure()
        return dict(self._peak)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint, so that a resumed run reports its whole cost."""
        return {"seconds": self.seconds(), "peak_memory_mib": self.peak_memory_mib()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the state of :meth:`state_dict`."""
        self._seconds = number_fields(state["seconds"])
        self._peak = number_fields(state["peak_memory_mib"])

    def _measure(self) -> None:
        """Add time and memory since the last call to the innermost open phase."""
        if self._cuda is not None:
            import torch

            torch.cuda.synchronize(self._cuda)  # or queued work would count for the next phase
        now = time.perf_counter()
        if self._open:
            name = self._open[-1]
            self._seconds[name] = self._seconds.get(name, 0.0) + now - self._since
            self._peak[name] = max(self._peak.get(name, 0.0), self._gauge.peak_mib())
        self._since = now
        self._gauge.reset()
