"""Stateless random numbers.

A generator is made from a seed and the names of its purpose. It never depends on what ran before.
"""

from __future__ import annotations

import contextlib
import hashlib
import operator
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def mix(seed: int, *keys: int | str) -> int:
    """Return 63 bits that depend on the seed, each key and their order. 1 and "1" differ."""
    parts = [f"s{key}" if isinstance(key, str) else f"i{operator.index(key)}" for key in (seed, *keys)]
    digest = hashlib.blake2b("\x1f".join(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seeded(seed: int, *keys: int | str) -> torch.Generator:
    """Return a CPU generator for a purpose, as in ``seeded(seed, "augment", task, epoch, step)``.

    Step k draws the same numbers whether or not the steps before it ran: a resumed run equals an
    uninterrupted one. Numbers that are drawn on the CPU are the same on every device.
    """
    import torch

    return torch.Generator().manual_seed(mix(seed, *keys))


@contextlib.contextmanager
def global_seed(seed: int, *keys: int | str, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's own generator for one purpose inside the body, and put it back afterwards.

    It is for code that draws from that generator, such as layers that initialise themselves.

    Args:
        device: where the body draws, too, as dropout does. The generator of that GPU is seeded and
            put back as well; no other GPU is touched.
    """
    import torch

    gpus = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(gpus, device_type="cuda"):
        # torch.manual_seed would seed every GPU, and nothing would put them back.
        torch.default_generator.manual_seed(mix(seed, *keys))
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(mix(seed, *keys))
        yield
