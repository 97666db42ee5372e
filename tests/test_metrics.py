"""The continual-learning figures against matrices done by hand and against plain double loops."""

import random

import numpy as np
import pytest

from pmi_cl.utils.records import metrics

HAND = [[90.0], [70.0, 80.0], [60.0, 85.0, 50.0]]


def test_hand_made_matrix():
    assert metrics.last(HAND) == pytest.approx((60 + 85 + 50) / 3)
    assert metrics.average(HAND) == pytest.approx((90 + 75 + 65) / 3)
    assert metrics.forgetting(HAND) == pytest.approx(((90 - 60) + (80 - 85)) / 2)
    assert metrics.bwt(HAND) == pytest.approx(((60 - 90) + (85 - 80)) / 2)


def test_forgetting_counts_from_the_best_moment_not_from_the_first():
    assert metrics.forgetting([[50.0], [80.0, 90.0], [40.0, 90.0, 10.0]]) == pytest.approx((80 - 40 + 0) / 2)


def test_forgetting_does_not_look_at_the_last_row_for_the_best():
    assert metrics.forgetting([[50.0], [60.0, 70.0]]) == -10.0


@pytest.mark.parametrize("tasks", [2, 3, 7, 20])
@pytest.mark.parametrize("kind", ["list", "array"])
def test_against_double_loops(tasks, kind):
    draw = random.Random(tasks)
    full = [[draw.uniform(0, 100) for _ in range(tasks)] for _ in range(tasks)]
    matrix = [row[: index + 1] for index, row in enumerate(full)]
    dropped = gained = 0.0
    for task in range(tasks - 1):
        best = -1.0
        for moment in range(task, tasks - 1):
            if full[moment][task] > best:
                best = full[moment][task]
        dropped += best - full[tasks - 1][task]
        gained += full[tasks - 1][task] - full[task][task]
    summed = 0.0
    for moment in range(tasks):
        row_sum = 0.0
        for task in range(moment + 1):
            row_sum += full[moment][task]
        summed += row_sum / (moment + 1)
    given = matrix if kind == "list" else [np.array(row) for row in matrix]
    assert metrics.forgetting(given) == pytest.approx(dropped / (tasks - 1))
    assert metrics.bwt(given) == pytest.approx(gained / (tasks - 1))
    assert metrics.average(given) == pytest.approx(summed / tasks)
    assert metrics.last(given) == pytest.approx(row_sum / tasks)
    assert all(type(metrics.summary(given, [1.0])[name]) is float for name in ("last", "average", "forgetting", "bwt"))


def test_one_task():
    assert metrics.summary([[88.5]], [88.5]) == {
        "matrix": [[88.5]],
        "micro": [88.5],
        "last": 88.5,
        "average": 88.5,
        "forgetting": 0.0,
        "bwt": 0.0,
        "micro_last": 88.5,
        "micro_average": 88.5,
    }


def test_joint_training_has_a_single_row_and_nothing_to_forget():
    figures = metrics.summary([[90.0, 80.0, 100.0]], [91.0])
    assert (figures["last"], figures["average"], figures["forgetting"], figures["bwt"]) == (90.0, 90.0, 0.0, 0.0)


def test_before_the_first_task_nothing_is_known():
    figures = metrics.summary([], [])
    assert figures.pop("matrix") == figures.pop("micro") == []
    assert set(figures.values()) == {None}


def test_micro_weighs_tasks_by_their_images():
    assert metrics.micro([90, 1], [100, 10]) == pytest.approx(100 * 91 / 110)
    with pytest.raises(ValueError, match="no image"):
        metrics.micro([], [])


@pytest.mark.parametrize("wrong", [[], [[]], [[1.0], [2.0]], [[1.0, 0.0], [2.0, 3.0]]])
def test_what_is_not_a_triangle_is_refused(wrong):
    for measure in (metrics.last, metrics.average, metrics.forgetting, metrics.bwt):
        with pytest.raises(ValueError, match="row i"):
            measure(wrong)
