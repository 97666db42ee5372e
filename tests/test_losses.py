"""Test the losses of the ResNet methods against loops and torch's own.

Their factors are compared with values worked out beforehand.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pmi_cl.models.training.losses import (
    Factors,
    angles,
    balancing_weights,
    hard_distillation,
    local_cross_entropy,
    loss_factors,
    relational_distillation,
    text_distillation,
)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# local cross-entropy


@pytest.mark.parametrize("n_old", [0, 3])
def test_local_cross_entropy_is_a_softmax_over_the_new_logits(n_old: int) -> None:
    logits, labels = randn(5, n_old + 4).double(), n_old + torch.tensor([0, 3, 1, 1, 2])
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        total += math.log(sum(math.exp(value) for value in row[n_old:])) - row[label]
    assert float(local_cross_entropy(logits, labels, n_old)) == pytest.approx(total / 5, rel=1e-12)


def test_local_cross_entropy_leaves_old_logits_alone() -> None:
    """Neither their value nor a gradient matters."""
    logits, labels = randn(5, 7).requires_grad_(), torch.tensor([3, 4, 5, 6, 3])
    loss = local_cross_entropy(logits, labels, 3)
    loss.backward()
    assert logits.grad is not None and not logits.grad[:, :3].any() and bool(logits.grad[:, 3:].all())
    moved = logits.detach() + torch.tensor([50.0, -7.0, 3.0, 0, 0, 0, 0])
    assert float(local_cross_entropy(moved, labels, 3)) == pytest.approx(float(loss.detach()))
    assert not math.isclose(float(F.cross_entropy(moved, labels)), float(loss.detach()), rel_tol=0.1)


# hard distillation


def test_hard_distillation_is_a_mean_absolute_difference() -> None:
    """It is the mean over samples and old classes, of raw logits."""
    student, teacher = randn(6, 9), randn(6, 4, seed=1)
    loop = [abs(float(student[i, c]) - float(teacher[i, c])) for i in range(6) for c in range(4)]
    assert float(hard_distillation(student, teacher)) == pytest.approx(sum(loop) / 24, rel=1e-6)
    assert float(hard_distillation(3 * student, 3 * teacher)) == pytest.approx(3 * sum(loop) / 24, rel=1e-6)


def test_hard_distillation_of_equal_logits_is_zero_whatever_the_new_ones_are() -> None:
    teacher = randn(6, 4)
    assert float(hard_distillation(torch.cat([teacher, 100 * randn(6, 5, seed=1)], dim=1), teacher)) == 0


# relational distillation


def slow_angle(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
    """Return the cosine of the angle at a between b and c, or 0 where one of them is a itself."""
    left, right = a - b, a - c
    lengths = np.linalg.norm(left) * np.linalg.norm(right)
    return float(left @ right / lengths) if lengths > 0 else 0.0


def slow_relations(student: Tensor, teacher: Tensor) -> float:
    """Return the mean over all n^3 triplets."""
    s, t, n = student.double().numpy(), teacher.double().numpy(), len(student)
    terms = [
        abs(slow_angle(s[i], s[j], s[k]) - slow_angle(t[i], t[j], t[k]))
        for i in range(n)
        for j in range(n)
        for k in range(n)
    ]
    return sum(terms) / n**3


@pytest.mark.parametrize(("n", "width", "teacher_width"), [(2, 3, 3), (5, 4, 4), (8, 16, 16), (6, 5, 3)])
def test_relations_against_a_triple_loop(n: int, width: int, teacher_width: int) -> None:
    student, teacher = randn(n, width), randn(n, teacher_width, seed=1)
    assert float(relational_distillation(student, teacher)) == pytest.approx(slow_relations(student, teacher), abs=1e-5)


def test_every_angle_against_the_loop() -> None:
    features = randn(5, 3)
    rows = features.double().numpy()
    expected = [[[slow_angle(rows[i], rows[j], rows[k]) for k in range(5)] for j in range(5)] for i in range(5)]
    np.testing.assert_allclose(angles(features).numpy(), expected, atol=1e-5)


def test_relations_do_not_change_with_scale_shift_and_rotation() -> None:
    teacher = randn(7, 4)
    rotation = torch.linalg.qr(randn(4, 4, seed=1))[0]
    assert float(relational_distillation(3 * teacher @ rotation + 5, teacher)) < 1e-5


def test_relations_of_equal_samples_have_a_finite_gradient() -> None:
    """Two images may have one feature, and a network may be dead: nothing is divided by their
    difference of 0.
    """
    for student in (torch.zeros(4, 3), torch.cat([randn(2, 3)] * 2)):
        student.requires_grad_()
        relational_distillation(student, randn(4, 3, seed=1)).backward()
        assert student.grad is not None and bool(torch.isfinite(student.grad).all())


def test_both_sides_of_the_relations_receive_a_gradient() -> None:
    """The teacher's projection is trained too (R-DFCIL's code)."""
    student, teacher = randn(5, 4).requires_grad_(), randn(5, 4, seed=1).requires_grad_()
    relational_distillation(student, teacher).backward()
    assert (
        student.grad is not None and teacher.grad is not None and bool(student.grad.any()) and bool(teacher.grad.any())
    )


# factors

# R-DFCIL's code: classes in all, tasks, then ce / hkd / rkd of the first replay task and of the
# last one, with lambda_ce 0.5
TABLE = [
    (100, 5, (0.6445, 0.5189, 1.7297), (0.3223, 1.0378, 3.4594)),
    (100, 10, (0.6934, 0.3877, 1.2925), (0.2311, 1.1632, 3.8774)),
    (100, 20, (0.7766, 0.2711, 0.9037), (0.1782, 1.1817, 3.9390)),
    (200, 5, (0.6138, 0.6588, 2.1962), (0.3069, 1.3177, 4.3923)),
    (200, 10, (0.6445, 0.5189, 1.7297), (0.2148, 1.5567, 5.1891)),
    (200, 20, (0.6934, 0.3877, 1.2925), (0.1591, 1.6901, 5.6338)),
]
# Worked out by hand: classes, tasks, the task (from 0), then ce / hkd / rkd with lambda_ce 0.75
CHECK_VALUES = [
    (100, 10, 1, (1.040, 0.388, 1.292)),
    (100, 10, 9, (0.347, 1.163, 3.877)),
    (100, 20, 19, (0.267, 1.182, 3.939)),
    (200, 10, 9, (0.322, 1.557, 5.189)),
]
# R-DFCIL's code: ce of the last task with lambda_ce 0.75
LAST_CE = [
    (100, 5, 0.4834),
    (100, 10, 0.3467),
    (100, 20, 0.2673),
    (200, 5, 0.4604),
    (200, 10, 0.3222),
    (200, 20, 0.2386),
]


def factors(classes: int, tasks: int, task: int, lambda_ce: float) -> Factors:
    n_new = classes // tasks
    return loss_factors(n_new, task * n_new, lambda_ce, 0.15, 0.5, 1.0)


@pytest.mark.parametrize(("classes", "tasks", "first", "last"), TABLE)
def test_factors_against_the_table_of_the_baseline(
    classes: int, tasks: int, first: tuple[float, ...], last: tuple[float, ...]
) -> None:
    for task, expected in ((1, first), (tasks - 1, last)):
        found = factors(classes, tasks, task, 0.5)
        assert (found.ce, found.hkd, found.rkd) == pytest.approx(expected, abs=5.1e-5)
        assert factors(classes, tasks, task, 0.75).ce == pytest.approx(1.5 * found.ce)


@pytest.mark.parametrize(("classes", "tasks", "task", "expected"), CHECK_VALUES)
def test_factors_against_the_check_values_of_the_method(
    classes: int, tasks: int, task: int, expected: tuple[float, ...]
) -> None:
    found = factors(classes, tasks, task, 0.75)
    assert (found.ce, found.hkd, found.rkd) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(("classes", "tasks", "expected"), LAST_CE)
def test_the_last_tasks_cross_entropy_with_the_released_weight(classes: int, tasks: int, expected: float) -> None:
    found = factors(classes, tasks, tasks - 1, 0.75)
    assert found.ce == pytest.approx(expected, abs=1e-4)  # the table multiplied rounded numbers
    assert found.ft == pytest.approx(found.ce / 0.75)  # L_ft is scaled like the cross-entropy


def test_the_first_task_is_plain_cross_entropy() -> None:
    assert loss_factors(10, 0, 0.75, 0.15, 0.5, 1.0) == Factors(ce=1, hkd=0, rkd=0, ft=0)


# class weights


def test_weights_are_inverse_counts_divided_by_the_smallest() -> None:
    counts = torch.tensor([100.0, 50, 10, 100])
    assert balancing_weights(counts).tolist() == pytest.approx([1, 2, 10, 1])


def test_every_class_then_weighs_the_same_in_all() -> None:
    counts = torch.tensor([37.0, 411, 5, 1200])
    shares = counts * balancing_weights(counts)
    assert shares.tolist() == pytest.approx([1200.0] * 4)


def test_weights_of_a_whole_task_are_not_the_mean_of_those_of_its_batches() -> None:
    """The counts accumulate. Each batch alone would give other weights."""
    first, second = torch.tensor([10.0, 90]), torch.tensor([50.0, 50])
    assert balancing_weights(first + second).tolist() == pytest.approx([140 / 60, 1])
    mean = (balancing_weights(first) + balancing_weights(second)) / 2
    assert mean.tolist() == pytest.approx([5, 1])


def test_a_class_that_was_never_seen_weighs_as_one_seen_once() -> None:
    weights = balancing_weights(torch.tensor([0.0, 1, 8]))
    assert weights.tolist() == pytest.approx([8, 8, 1])


# text distillation


def test_text_distillation_is_the_mean_over_classes_and_dimensions() -> None:
    student, teacher = randn(3, 4, seed=1), randn(3, 4, seed=2)
    expected = sum(abs(float(student[k, d] - teacher[k, d])) for k in range(3) for d in range(4)) / 12
    assert float(text_distillation(student, teacher)) == pytest.approx(expected, rel=1e-6)
