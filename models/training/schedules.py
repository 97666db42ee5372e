"""Learning rates: the stages of a ResNet method's epochs of one task, and the course of a CLIP method's steps."""

from __future__ import annotations

import math
from collections.abc import Sequence


def milestone_epochs(epochs: int, parts: Sequence[float]) -> tuple[int, ...]:
    """The epochs, from 0, before which the rate falls, for parts of all epochs: 0.4 of 200 is epoch 80.

    Never before the first epoch, to which few epochs would round some of them: every task begins at the rate that was asked for.
    """
    return tuple(max(round(epochs * part), 1) for part in parts)


def learning_rate(step: int, steps: int, lr: float, schedule: str, warmup: int = 0) -> float:
    """The learning rate of a step (from 0) of a task of ``steps``: a linear rise over ``warmup`` of them, then the schedule.

    Args:
        lr: at its highest.
        schedule: "cosine" and "quarter" fall to zero along a half and a quarter of a cosine; "constant" does not fall.
    """
    if step < warmup:
        return lr * (step + 1) / warmup
    if schedule == "constant":
        return lr
    passed = (step - warmup) / max(steps - warmup, 1)
    return lr * (0.5 * (1 + math.cos(math.pi * passed)) if schedule == "cosine" else math.cos(0.5 * math.pi * passed))
