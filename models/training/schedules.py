"""Compute learning rates: milestones of the ResNet methods, schedules of the CLIP methods."""

from __future__ import annotations

import math
from collections.abc import Sequence


def milestone_epochs(epochs: int, parts: Sequence[float]) -> tuple[int, ...]:
    """Return the epochs (from 0) before which the rate falls, for parts of all epochs.

    0.4 of 200 epochs is epoch 80. No milestone is epoch 0, to which a few epochs would round some
    of them, so that every task begins at the given rate.
    """
    return tuple(max(round(epochs * part), 1) for part in parts)


def learning_rate(step: int, steps: int, lr: float, schedule: str, warmup: int = 0) -> float:
    """Return the learning rate of a step (from 0) of a task of ``steps`` steps.

    Args:
        lr: the highest rate.
        schedule: "cosine" falls to zero along half a period of a cosine, "quarter" along a quarter
            of a period. "constant" does not fall.
        warmup: the first steps, in which the rate rises linearly to ``lr``.
    """
    if step < warmup:
        return lr * (step + 1) / warmup
    if schedule == "constant":
        return lr
    part = (step - warmup) / max(steps - warmup, 1)
    return lr * (0.5 * (1 + math.cos(math.pi * part)) if schedule == "cosine" else math.cos(0.5 * math.pi * part))
