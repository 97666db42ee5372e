"""Measure the peak memory of this process or of a CUDA device, and the memory limit."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class MemoryGauge:
    """Measure the highest memory since :meth:`reset`.

    On a CUDA device this is the memory that torch allocated there. On the CPU it is the resident
    memory of the process. The system keeps one peak for all gauges, so a reset affects every gauge.
    Where the peak cannot be reset (not Linux), it is the peak since the process began: an upper
    bound.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        """
        Args:
            device: the device whose memory is measured. None means the CPU.
        """
        self._cuda = device if device is not None and device.type == "cuda" else None

    def reset(self) -> None:
        """Forget the peak so far."""
        if self._cuda is not None:
            import torch

            torch.cuda.reset_peak_memory_stats(self._cuda)
            return
        with contextlib.suppress(OSError):  # not every container allows it
            _CLEAR.write_text("5", encoding="ascii")  # 5 resets only the peak (man 5 proc)

    def peak_mib(self) -> float:
        """Return the highest memory since the last reset, in MiB."""
        if self._cuda is not None:
            import torch

            return torch.cuda.max_memory_allocated(self._cuda) / 2**20
        return peak_resident_mib()


def peak_resident_mib() -> float:
    """Return the peak resident memory of this process in MiB, since the last reset if any."""
    with contextlib.suppress(OSError):
        found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
        if found:
            return int(found[1]) / 1024
    import resource  # not on every system

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 2**20 if sys.platform == "darwin" else used / 1024


def memory_of_the_machine(proc: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the bytes of memory that this process may use.

    This is the memory of the machine, or a lower limit of a container or a batch system.

    Args:
        proc: the file in which Linux lists the control groups of this process.
        groups: the folder in which Linux keeps the limits of the control groups.

    Returns:
        None if the system does not say.
    """
    known = "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {})
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if known else []
    for file in _limit_files(proc, groups):
        with contextlib.suppress(OSError, ValueError):  # not there, or "max"
            limits.append(int(file.read_text(encoding="ascii")))
    return min(limits, default=None)


def _limit_files(proc: Path, groups: Path) -> Iterator[Path]:
    """Yield the files that may hold a memory limit, for both versions of control groups."""
    named = []
    with contextlib.suppress(OSError):
        named = [line.split(":", 2) for line in proc.read_text(encoding="utf-8").splitlines() if line.count(":") >= 2]
    paths = {kinds: path for _, kinds, path in named}
    for top, file, kind in ((groups, "memory.max", ""), (groups / "memory", "memory.limit_in_bytes", "memory")):
        inner = Path(paths.get(kind, "/").lstrip("/"))
        yield from (top / folder / file for folder in (inner, *inner.parents))
