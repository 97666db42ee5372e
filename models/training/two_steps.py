"""Compute what DCMI does with heads of tasks: a distance by head, and prediction in two steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def head_distances(logits: Tensor, teacher_logits: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return the L2 distance of logits, averaged over samples and over the heads of tasks.

    Args:
        logits: (b, old classes), of the student.
        teacher_logits: (b, old classes).
        sizes: the classes of each old head.
    """
    parts = (logits - teacher_logits).split(list(sizes), dim=1)
    return torch.stack([part.norm(dim=1).mean() for part in parts]).mean()


def two_step_scores(logits: Tensor, features: Tensor, prototypes: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return scores whose largest is the class that DCMI predicts.

    The prototype with the largest cosine to the feature chooses the task. A score is the
    probability of the class within its task, plus 1 in the task that is chosen.

    Args:
        logits: (b, classes).
        features: (b, d).
        prototypes: (classes, d).
        sizes: the classes of each task.
    """
    shares = torch.cat([part.softmax(1) for part in logits.split(list(sizes), dim=1)], dim=1)
    nearest = (features @ F.normalize(prototypes, dim=1).t()).argmax(1)
    task_of = torch.repeat_interleave(torch.tensor(list(sizes), device=logits.device))
    return shares + (task_of[nearest].unsqueeze(1) == task_of).to(shares.dtype)
