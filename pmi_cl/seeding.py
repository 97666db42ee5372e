"""Stateless random numbers: a generator is made from a seed and the names of what it is for, never from what ran before."""

from __future__ import annotations

import contextlib
import hashlib
import operator
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def mix(seed: int, *keys: int | str) -> int:
    """A number of 63 bits that depends on the seed, on every key and on their order; 1 and "1" differ."""
    parts = [f"s{key}" if isinstance(key, str) else f"i{operator.index(key)}" for key in (seed, *keys)]
    digest = hashlib.blake2b("\x1f".join(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seeded(seed: int, *keys: int | str) -> torch.Generator:
    """A CPU generator for one purpose, e.g. ``seeded(args.seed, "augment", task, epoch, step)``.

    Step k draws the same numbers whether or not the steps before it ran, so that a resumed run equals an uninterrupted
    one; drawing on the CPU makes the numbers the same on every device.
    """
    import torch

    return torch.Generator().manual_seed(mix(seed, *keys))


@contextlib.contextmanager
def global_seed(seed: int, *keys: int | str, device: torch.device | None = None) -> Iterator[None]:
    """While entered, torch's own CPU generator is the one for this purpose, for layers that initialise themselves; put back afterwards.

    Args:
        device: where the body draws too, as dropout does: the generator of a GPU is seeded and put back like the CPU's. No other GPU's is
            touched.
    """
    import torch

    gpus = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(gpus, device_type="cuda"):
        torch.default_generator.manual_seed(
            mix(seed, *keys)
        )  # torch.manual_seed would seed every GPU, and nothing put them back
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(mix(seed, *keys))
        yield
