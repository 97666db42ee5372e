"""Measures the peak memory of this process, or of a CUDA device, since a mark that can be set anew; and how much memory there is."""

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
    """The highest memory since :meth:`reset`: on a CUDA device what torch allocated there, else the resident memory of the process.

    The system keeps one mark for all gauges: a reset is seen by every other. Without Linux's resettable mark it is the high-water mark
    since the process began, an upper bound.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        """
        Args:
            device: the one whose memory is measured; ``None``: the CPU.
        """
        self._cuda = device if device is not None and device.type == "cuda" else None

    def reset(self) -> None:
        """Sets the mark anew: what was higher before is forgotten."""
        if self._cuda is not None:
            import torch

            torch.cuda.reset_peak_memory_stats(self._cuda)
            return
        with contextlib.suppress(OSError):
            _CLEAR.write_text(
                "5", encoding="ascii"
            )  # 5: only the high-water mark (man 5 proc); not every container allows it

    def peak_mib(self) -> float:
        """The highest memory since the mark, in MiB."""
        if self._cuda is not None:
            import torch

            return torch.cuda.max_memory_allocated(self._cuda) / 2**20
        return peak_resident_mib()


def peak_resident_mib() -> float:
    """High-water mark of the resident memory of this process in MiB, since the last reset where the system has one."""
    with contextlib.suppress(OSError):
        found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
        if found:
            return int(found[1]) / 1024
    import resource  # not on every system

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 2**20 if sys.platform == "darwin" else used / 1024


def memory_of_the_machine(proc: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that this process may use at the most: the machine's memory, or less where a container or a batch system sets a limit.

    Args:
        proc, groups: where Linux tells a process's control groups, and their limits.

    Returns:
        None where the system does not tell.
    """
    known = "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {})
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if known else []
    for file in _limit_files(proc, groups):
        with contextlib.suppress(OSError, ValueError):  # not there, or "max"
            limits.append(int(file.read_text(encoding="ascii")))
    return min(limits, default=None)


def _limit_files(proc: Path, groups: Path) -> Iterator[Path]:
    """Where a limit of any control group around this process would stand, in both versions of control groups."""
    named = []
    with contextlib.suppress(OSError):
        named = [line.split(":", 2) for line in proc.read_text(encoding="utf-8").splitlines() if line.count(":") >= 2]
    paths = {kinds: path for _, kinds, path in named}
    for top, file, kind in ((groups, "memory.max", ""), (groups / "memory", "memory.limit_in_bytes", "memory")):
        inner = Path(paths.get(kind, "/").lstrip("/"))
        yield from (top / folder / file for folder in (inner, *inner.parents))
