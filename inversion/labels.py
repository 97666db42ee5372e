"""Which classes the synthetic samples of a task belong to."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_labels(n: int, n_classes: int, balanced: bool, generator: torch.Generator) -> Tensor:
    """``n`` labels (n,) of ``n_classes`` classes, shuffled, so that every batch mixes classes.

    Balanced: every class equally often to within one. Else uniformly at random (the released code's), but each class at least
    twice, or its statistics could not be refreshed.

    Raises:
        ValueError: fewer than two samples a class.
    """
    if n < 2 * n_classes:
        raise ValueError(f"{n} samples are too few for {n_classes} classes: two each are needed")
    if balanced:
        return balanced_labels(n, n_classes, generator)
    drawn = torch.randint(n_classes, (n - 2 * n_classes,), generator=generator)
    labels = torch.cat([torch.arange(n_classes).repeat(2), drawn])
    return labels[torch.randperm(n, generator=generator)]


def balanced_labels(n: int, n_classes: int, generator: torch.Generator) -> Tensor:
    """``n`` labels (n,), every one of ``n_classes`` classes equally often to within one, shuffled."""
    return (torch.arange(n) % n_classes)[torch.randperm(n, generator=generator)]
