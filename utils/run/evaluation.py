"""Measure the accuracy on every task.

It is measured among all classes seen, within the task's own, and on tasks not yet learned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from pmi_cl.errors import UserError
from pmi_cl.utils.records.metrics import micro

if TYPE_CHECKING:
    from torch import Tensor

    from pmi_cl.datasets.continual_dataset import ContinualDataset
    from pmi_cl.models.continual_model import ContinualModel


@dataclass(frozen=True)
class Accuracies:
    """Accuracies in %, by task.

    Attributes:
        class_il: on each seen task, among all classes seen so far.
        task_il: on each seen task, among the task's own classes.
        micro_class_il, micro_task_il: the same over all images together.
        confusion: for each seen class the number of its images that were taken for each class of
            the run, among all classes seen so far.
        others: by each other classifier of the method, ``class_il`` and ``micro_class_il``.
        everywhere: on every task of the run, learned or not: ``class_il`` among all classes of the
            run, ``task_il`` among the task's own. None: it was not asked for.
    """

    class_il: list[float]
    task_il: list[float]
    micro_class_il: float
    micro_task_il: float
    confusion: list[list[int]]
    others: dict[str, tuple[list[float], float]]
    everywhere: dict[str, list[float]] | None = None


@dataclass(frozen=True)
class Counts:
    """The number of test images of a task, and of those that are classified rightly.

    Attributes:
        images: all of them.
        seen: 0-dimensional, right among the classes seen so far. 0 for a task that is not learned
            yet.
        own: 0-dimensional, right among the task's own classes.
        every: 0-dimensional, right among all classes of the run. None: the method cannot recognise
            unseen ones.
        confusion: (classes of the task, classes of the run), int64: how many images of a class
            (row) were taken for each class (column) among the classes seen so far.
        others: ``seen`` by each other classifier of the method.
        finite: 0-dimensional, whether every logit is a finite number. If not, the others mean
            nothing: argmax takes NaN for the highest.
    """

    images: int
    seen: Tensor
    own: Tensor
    every: Tensor | None
    confusion: Tensor
    others: dict[str, Tensor]
    finite: Tensor


def evaluate(
    model: ContinualModel,
    dataset: ContinualDataset,
    n_tasks: int,
    most_batches: int | None = None,
    every_task: int | None = None,
) -> Accuracies:
    """Evaluate a method on the test images of tasks 0..n_tasks-1, and on others if asked to.

    The network comes back in the mode it was in.

    Args:
        model: the method.
        dataset: the data set.
        n_tasks: the number of tasks learned so far.
        most_batches: the most batches of each task. None: all.
        every_task: how many tasks ``everywhere`` covers. None: it is left out.

    Raises:
        UserError: a logit is not finite. It names the task and the learning rate.
    """
    counts = _count_tasks(model, dataset, max(n_tasks, every_task or 0), n_tasks, most_batches, every_task is not None)
    seen = counts[:n_tasks]
    images = [count.images for count in seen]
    free, own = [int(count.seen) for count in seen], [int(count.own) for count in seen]
    everywhere = None if every_task is None else _everywhere(counts[:every_task])
    confusion = torch.cat([count.confusion for count in seen])
    both = micro(free, images), micro(own, images)
    others = {name: [int(count.others[name]) for count in seen] for name in seen[0].others}
    by_other = {name: (_percent(right, images), micro(right, images)) for name, right in others.items()}
    return Accuracies(_percent(free, images), _percent(own, images), *both, confusion.tolist(), by_other, everywhere)


def before_training(
    model: ContinualModel, dataset: ContinualDataset, most_batches: int | None = None
) -> dict[str, list[float]]:
    """Return ``Accuracies.everywhere`` of a method that has not learned a task yet.

    Raises:
        UserError: a logit is not finite.
    """
    return _everywhere(_count_tasks(model, dataset, dataset.N_TASKS, 0, most_batches, True))


def _everywhere(counts: list[Counts]) -> dict[str, list[float]]:
    images = [count.images for count in counts]
    every = [int(count.every) for count in counts if count.every is not None]
    return {"class_il": _percent(every, images), "task_il": _percent([int(count.own) for count in counts], images)}


def _percent(right: list[int], images: list[int]) -> list[float]:
    return [100.0 * correct / total for correct, total in zip(right, images, strict=True)]


def _count_tasks(
    model: ContinualModel, dataset: ContinualDataset, tasks: int, learned: int, most: int | None, every: bool
) -> list[Counts]:
    training = model.net.training
    model.net.eval()
    try:
        with torch.no_grad():
            counts = [_count_task(model, dataset, task, task < learned, most, every) for task in range(tasks)]
    finally:
        model.net.train(training)
    if not all(bool(count.finite) for count in counts):
        raise _no_numbers(model, learned)
    return counts


def _no_numbers(model: ContinualModel, learned: int) -> UserError:
    """Return the error for logits that are not finite after ``learned`` tasks."""
    when = f"after task {learned}" if learned else "before task 1"
    rate = getattr(model.options, "lr", None)
    if not learned or rate is None:
        return UserError(f"the network gives no numbers {when}, and nothing has trained it: give it other weights")
    return UserError(f"the network gives no numbers {when}: lower --lr (it is {rate:g})")


def _count_task(
    model: ContinualModel, dataset: ContinualDataset, task: int, learned: bool, most: int | None, every: bool
) -> Counts:
    classes = dataset.task_classes(task)
    seen, own, total = (torch.zeros((), device=dataset.device) for _ in range(3))
    finite = torch.ones((), dtype=torch.bool, device=dataset.device)
    confusion = torch.zeros(len(classes) * dataset.N_CLASSES, dtype=torch.int64, device=dataset.device)
    images, others, zero = 0, dict[str, torch.Tensor](), torch.zeros((), device=dataset.device)
    for number, (inputs, labels) in enumerate(dataset.plain_batches(task, "test", model.EVALUATION_BATCH)):
        if number == most:
            break
        scores = {} if every else model.scores(inputs)
        logits = model.every_class(inputs) if every else scores.pop(model.classified_by)
        images += len(labels)
        finite &= torch.stack([torch.isfinite(each).all() for each in (logits, *scores.values())]).all()
        own += (logits[:, classes.start : classes.stop].argmax(1) + classes.start == labels).sum()
        if every:
            total += (logits.argmax(1) == labels).sum()
            logits = logits[:, : model.n_seen_classes]
        if learned:
            predicted = logits.argmax(1)
            seen += (predicted == labels).sum()
            for name, each in scores.items():
                others[name] = others.get(name, zero) + (each.argmax(1) == labels).sum()
            cells = (labels - classes.start) * dataset.N_CLASSES + predicted
            confusion.scatter_add_(0, cells, torch.ones_like(labels))
    return Counts(images, seen, own, total if every else None, confusion.view(len(classes), -1), others, finite)
