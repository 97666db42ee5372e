"""Which classes a task has: against loops, and what is refused."""

from __future__ import annotations

import pytest
import torch

from pmi_cl.datasets.task_split import TaskSplit, split_classes
from pmi_cl.errors import UserError

SPLITS = [(1,), (2, 2, 2), (4, 3, 2, 1), (1, 5, 1), (50, *[5] * 10)]


@pytest.mark.parametrize("sizes", SPLITS, ids=str)
def test_every_label_is_in_the_task_that_a_loop_finds(sizes: tuple[int, ...]) -> None:
    split = TaskSplit(sizes)
    expected = [task for task, size in enumerate(sizes) for _ in range(size)]
    labels = torch.arange(sum(sizes))
    assert split.tasks_of(labels).tolist() == expected
    assert [split.task_of(label) for label in range(sum(sizes))] == expected
    assert [label for task in range(len(sizes)) for label in split.classes(task)] == labels.tolist()


@pytest.mark.parametrize("sizes", SPLITS, ids=str)
def test_past_and_seen_classes_are_sums(sizes: tuple[int, ...]) -> None:
    split = TaskSplit(sizes)
    for task in range(split.n_tasks):
        assert (split.past(task), split.seen(task)) == (sum(sizes[:task]), sum(sizes[: task + 1]))
        assert split.joined(task + 1).sizes == (sum(sizes[: task + 1]),)
    assert split.equal == (min(sizes) == max(sizes))


def test_labels_may_come_in_any_order() -> None:
    labels = torch.tensor([9, 0, 4, 3, 7, 6])
    assert TaskSplit((4, 3, 2, 1)).tasks_of(labels).tolist() == [3, 0, 1, 0, 2, 1]


@pytest.mark.parametrize("classes", [2, 6, 10, 100])
def test_equal_tasks_are_what_dividing_gives(classes: int) -> None:
    for tasks in range(1, classes + 1):
        if classes % tasks == 0:
            split = split_classes(classes, tasks)
            assert split.tasks_of(torch.arange(classes)).tolist() == [c // (classes // tasks) for c in range(classes)]


def test_a_base_and_the_others_share_the_classes() -> None:
    assert split_classes(100, 11, 50).sizes == (50, *[5] * 10)
    assert split_classes(10, 4, 4).sizes == (4, 2, 2, 2)
    assert split_classes(10, 2, 4, ()).sizes == (4, 6)


def test_listed_sizes_are_taken_as_they_are() -> None:
    assert split_classes(10, 7, None, (4, 3, 2, 1)).sizes == (4, 3, 2, 1)


REFUSED = {
    (
        10,
        3,
        None,
        (),
    ): "10 classes do not split into 3 equal tasks: say --n_tasks 2 or 5, or for tasks of different sizes "
    "--base_classes or --classes_per_task",
    (10, 0, None, ()): "equal tasks: say --n_tasks 1, or",
    (10, 4, None, (4, 3, 2)): "--classes_per_task 4,3,2: these are 9 classes, the run has 10",
    (10, 4, None, (11,)): "these are 11 classes, the run has 10",
    (10, 4, None, (10, 0)): "each task needs at least one class",
    (10, 4, 4, (4, 3, 2, 1)): "both say how large tasks are, keep one",
    (10, 4, 10, ()): "--base_classes 10: the run has 10 classes, and the first task must leave some; give 1 to 9",
    (10, 4, 0, ()): "give 1 to 9",
    (10, 5, 4, ()): "the other 6 classes do not split into 4 equal tasks: say --n_tasks 4 or 7, or --classes_per_task",
    (10, 1, 4, ()): "say --n_tasks 2, or --classes_per_task",
}


@pytest.mark.parametrize(("asked", "message"), REFUSED.items(), ids=str)
def test_what_does_not_fit_is_refused(asked: tuple[int, int, int | None, tuple[int, ...]], message: str) -> None:
    with pytest.raises(UserError) as refused:
        split_classes(*asked)
    assert message in str(refused.value) and "\n" not in str(refused.value)
