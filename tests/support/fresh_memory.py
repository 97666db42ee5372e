"""Memory that the process did not have before.

malloc may hand out blocks that earlier tests have left resident; mmap does not.
"""

from __future__ import annotations

import mmap

import numpy as np


def touch(mib: int) -> None:
    """Take so many MiB from the system, write to all of them, and give them back."""
    with mmap.mmap(-1, mib * 2**20) as block:
        pages = np.frombuffer(block, dtype=np.uint8)
        pages[:] = 1
        del pages  # it holds the block
