"""Know which classes a task has. Nothing else in the project counts classes by task."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pmi_cl.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TaskSplit:
    """How many classes each task has. Labels run through the tasks in order, from 0.

    Attributes:
        sizes: the number of classes of each task; each at least 1.
    """

    sizes: tuple[int, ...]

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """For each task, the number of classes of the tasks up to it."""
        return tuple(itertools.accumulate(self.sizes))

    @property
    def n_tasks(self) -> int:
        """Return the number of tasks."""
        return len(self.sizes)

    @property
    def n_classes(self) -> int:
        """Return the number of classes of all tasks."""
        return self.ends[-1]

    @property
    def equal(self) -> bool:
        """Return whether all tasks have the same number of classes."""
        return len(set(self.sizes)) == 1

    def past(self, task: int) -> int:
        """Return the number of classes of the tasks before ``task``."""
        return self.ends[task] - self.sizes[task]

    def seen(self, task: int) -> int:
        """Return the number of classes of the tasks up to ``task``, itself included."""
        return self.ends[task]

    def classes(self, task: int) -> range:
        """Return the labels of a task."""
        return range(self.past(task), self.seen(task))

    def task_of(self, label: int) -> int:
        """Return the task that a label belongs to."""
        return bisect.bisect_right(self.ends, label)

    def tasks_of(self, labels: Tensor) -> Tensor:
        """Return the task of each label: int64 (n,) to int64 (n,), on the same device."""
        import torch

        return torch.bucketize(labels, torch.tensor(self.ends, device=labels.device), right=True)

    def joined(self, tasks: int) -> TaskSplit:
        """Return the first ``tasks`` tasks as a single one."""
        return TaskSplit((self.seen(tasks - 1),))

    def __str__(self) -> str:
        """Return "5 tasks", or "4 tasks of 4, 3, 2, 1 classes" where they differ."""
        sizes = "" if self.equal else f" of {', '.join(map(str, self.sizes))} classes"
        return f"{self.n_tasks} task{'s' * (self.n_tasks > 1)}{sizes}"


def split_classes(
    n_classes: int, n_tasks: int, base_classes: int | None = None, classes_per_task: Sequence[int] = ()
) -> TaskSplit:
    """Split the classes of a run into tasks.

    Args:
        n_classes: of the run; at least 1.
        n_tasks: how many tasks there are; of no account where ``classes_per_task`` says it.
        base_classes: classes of the first task; the others share the rest equally. None: all
            tasks are equal.
        classes_per_task: classes of each task; empty: as the other arguments say.

    Raises:
        UserError: the classes cannot be split so; says what to type instead.
    """
    if classes_per_task:
        return _as_listed(n_classes, base_classes, classes_per_task)
    if base_classes is not None:
        return _with_a_base(n_classes, n_tasks, base_classes)
    if n_tasks < 1 or n_classes % n_tasks:
        choice = _choice(_divisors(n_classes), n_tasks)
        other = "for tasks of different sizes --base_classes or --classes_per_task"
        raise UserError(
            f"{n_classes} classes do not split into {n_tasks} equal tasks: say --n_tasks {choice}, or {other}"
        )
    return TaskSplit((n_classes // n_tasks,) * n_tasks)


def _as_listed(n_classes: int, base_classes: int | None, sizes: Sequence[int]) -> TaskSplit:
    typed = f"--classes_per_task {','.join(map(str, sizes))}"
    if base_classes is not None:
        raise UserError(f"{typed} and --base_classes {base_classes}: both say how large tasks are, keep one")
    if min(sizes) < 1:
        raise UserError(f"{typed}: each task needs at least one class")
    if sum(sizes) != n_classes:
        raise UserError(
            f"{typed}: these are {sum(sizes)} classes, the run has {n_classes}; give sizes that add up to it"
        )
    return TaskSplit(tuple(sizes))


def _with_a_base(n_classes: int, n_tasks: int, base: int) -> TaskSplit:
    rest = n_classes - base
    if base < 1 or rest < 1:
        raise UserError(
            f"--base_classes {base}: the run has {n_classes} classes, and the first task must leave some; "
            f"give 1 to {n_classes - 1}"
        )
    others = n_tasks - 1
    if others < 1 or rest % others:
        choice = _choice([n + 1 for n in _divisors(rest)], n_tasks)
        raise UserError(
            f"--base_classes {base}: the other {rest} classes do not split into {others} equal tasks: "
            f"say --n_tasks {choice}, or --classes_per_task"
        )
    return TaskSplit((base, *[rest // others] * others))


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _choice(numbers: Sequence[int], wanted: int) -> str:
    """Return the numbers next to ``wanted``, below and above.

    For 7 among the divisors of 100 it is "5 or 10".
    """
    below = [str(number) for number in numbers if number < wanted][-1:]
    above = [str(number) for number in numbers if number > wanted][:1]
    return " or ".join(below + above)
