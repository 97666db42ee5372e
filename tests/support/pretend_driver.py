"""The part of ``torch.cuda`` that speaks to a driver, answered without one: for
``pretend_device.py``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

ANSWERS = {
    "_lazy_init": None,
    "is_available": True,
    "is_initialized": True,
    "device_count": 1,
    "get_device_name": "pretended",
    "get_device_capability": (8, 0),
    "mem_get_info": (8 << 30, 16 << 30),
    "max_memory_allocated": 0,
    "reset_peak_memory_stats": None,
    "synchronize": None,
    "device": contextlib.nullcontext(),
    "current_stream": None,
    "is_current_stream_capturing": False,
}


class RandomState:
    """The state of the device's generator: the number that it was last seeded with."""

    def __init__(self) -> None:
        self.state = torch.zeros(1, dtype=torch.int64)

    def seed(self, value: int) -> None:
        self.state = torch.tensor([value])

    def get(self, device: object = None) -> Tensor:
        return self.state

    def put_back(self, state: Tensor, device: object = None) -> None:
        self.state = state


class Event:
    """A mark in the device's queue, which is always empty here."""

    def __init__(self, enable_timing: bool = False) -> None:
        self.at = 0.0

    def record(self, stream: object = None) -> None:
        self.at = time.perf_counter()

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: Event) -> float:
        return (end.at - self.at) * 1000


def answering(value: Any) -> Callable[..., Any]:
    """Return a function that returns ``value``, whatever its arguments."""
    return lambda *args, **kwargs: value


def driver(random: RandomState) -> dict[str, Any]:
    """Return what stands for the functions and classes of ``torch.cuda``, by name."""
    told = {name: answering(value) for name, value in ANSWERS.items()}
    seeding = {
        "manual_seed": random.seed,
        "manual_seed_all": random.seed,
        "get_rng_state": random.get,
        "set_rng_state": random.put_back,
    }
    return {**told, **seeding, "Event": Event}
