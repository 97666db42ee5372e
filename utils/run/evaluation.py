"""Accuracy on every task seen so far, with and without being told the task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from pmi_cl.utils.records.metrics import micro

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset
    from pmi_cl.models.continual_model import ContinualModel


@dataclass(frozen=True)
class Accuracies:
    """Accuracies in % on tasks 0..t (``class_il``: among all seen classes; ``task_il``: among the task's own), and over all images."""

    class_il: list[float]
    task_il: list[float]
    micro_class_il: float
    micro_task_il: float


def evaluate(
    model: ContinualModel, dataset: ContinualDataset, n_tasks: int, most_batches: int | None = None
) -> Accuracies:
    """Evaluate a method on the test images of tasks 0..n_tasks-1; its network comes back in the mode it was in.

    Args:
        most_batches: of each task; None: all.
    """
    training = model.net.training
    model.net.eval()
    try:
        with torch.no_grad():
            counts = [_correct(model, dataset, task, most_batches) for task in range(n_tasks)]
    finally:
        model.net.train(training)
    totals, free, told = ([int(count[i]) for count in counts] for i in range(3))
    percent = [[100.0 * right / total for right, total in zip(rights, totals, strict=True)] for rights in (free, told)]
    return Accuracies(percent[0], percent[1], micro(free, totals), micro(told, totals))


def _correct(
    model: ContinualModel, dataset: ContinualDataset, task: int, most: int | None
) -> tuple[int, torch.Tensor, torch.Tensor]:
    """(images, right among all seen classes, right among the task's own) of one task."""
    classes = dataset.task_classes(task)
    total, free, told = 0, torch.zeros((), device=dataset.device), torch.zeros((), device=dataset.device)
    for number, (images, labels) in enumerate(dataset.plain_batches(task, "test", model.EVALUATION_BATCH)):
        if number == most:
            break
        logits = model(images)
        total += len(labels)
        free += (logits.argmax(1) == labels).sum()
        told += (logits[:, classes.start : classes.stop].argmax(1) + classes.start == labels).sum()
    return total, free, told
