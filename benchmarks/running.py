"""The ways to run the engine on this machine, and the clock that times them."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from pmi_cl.inversion.config import has_fast_bfloat16


@dataclass(frozen=True)
class Way:
    """A way to run the engine's full-model pass."""

    name: str
    precision: torch.dtype = torch.float32
    compiled: bool = False


def ways_of_running(quick: bool) -> tuple[list[Way], str]:
    """Return the ways that pay on this machine, the fastest last, and why others were left out.

    The reason is "" where none was.
    """
    eager = [Way("fp32")]
    if not has_fast_bfloat16(torch.device("cpu")):
        return eager, "bf16 and bf16_compiled left out: this CPU has no arithmetic for it"
    eager.append(Way("bf16", torch.bfloat16))
    if quick:
        return eager, "bf16_compiled left out by --quick: compiling takes half a minute"
    if not shutil.which(os.environ.get("CXX", "g++")):
        return eager, "bf16_compiled left out: torch.compile needs a C++ compiler, install g++"
    return [*eager, Way("bf16_compiled", torch.bfloat16, compiled=True)], ""


@dataclass
class Clock:
    """CPU seconds of this process and wall seconds, added up over the times it ran."""

    cpu: float = 0.0
    wall: float = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Time the body."""
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        self.cpu += time.process_time() - cpu
        self.wall += time.perf_counter() - wall


def take_turns(loops: dict[str, Callable[[], object]], rounds: int, block: int) -> dict[str, list[Clock]]:
    """Return ``rounds`` clocks of each loop, each of ``block`` calls.

    In a round all loops run, each round another one first: other work on the machine falls on all
    alike.
    """
    names = list(loops)
    times: dict[str, list[Clock]] = {name: [] for name in names}
    for name in names:
        loops[name]()  # the first step allocates
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            clock = Clock()
            with clock.running():
                for _ in range(block):
                    loops[name]()
            times[name].append(clock)
    return times
