"""Test the distillation losses against double loops, scipy and autograd's gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, softmax
from torch import Tensor, nn

from pmi_cl.models.training.distillation import (
    feature_distillation,
    sigmoid_distillation,
    sigmoid_targets,
    soft_distillation,
)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("over_all_classes", [False, True])
def test_soft_distillation_is_a_cross_entropy_of_softened_shares(temperature: float, over_all_classes: bool) -> None:
    student, teacher = 3 * randn(4, 7), 3 * randn(4, 5, seed=1)
    total = 0.0
    for row, target in zip(student.numpy(), teacher.numpy(), strict=True):
        shares = softmax(target / temperature)
        logs = log_softmax((row if over_all_classes else row[:5]) / temperature)
        for old in range(5):
            total -= shares[old] * logs[old]
    found = soft_distillation(student, teacher, temperature, over_all_classes=over_all_classes)
    assert float(found) == pytest.approx(total / 4, rel=1e-12)


def test_soft_distillation_softens_as_mammoth_does() -> None:
    """Mammoth raises shares to 1/T and divides by their sum, which is a softmax of logits / T."""
    student, teacher, temperature = randn(3, 4), randn(3, 4, seed=1), 2.0
    total = 0.0
    for row, target in zip(softmax(student.numpy(), axis=1), softmax(teacher.numpy(), axis=1), strict=True):
        new, old = row ** (1 / temperature), target ** (1 / temperature)
        total -= float((old / old.sum() * np.log(new / new.sum())).sum())
    assert float(soft_distillation(student, teacher, temperature)) == pytest.approx(total / 3, rel=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_gradient_of_soft_distillation_is_the_difference_of_shares_over_t(temperature: float) -> None:
    """T^2 times the loss has T times that: of the size that plain cross-entropy has."""
    student, teacher = randn(4, 6).requires_grad_(), randn(4, 5, seed=1).requires_grad_()
    soft_distillation(student, teacher, temperature).backward()
    expected = np.zeros((4, 6))
    shares = softmax(student.detach().numpy()[:, :5] / temperature, axis=1)
    expected[:, :5] = (shares - softmax(teacher.detach().numpy() / temperature, axis=1)) / temperature / 4
    np.testing.assert_allclose(student.grad, expected, atol=1e-14)
    assert teacher.grad is None, "the teacher is fixed"
    student.grad = None
    soft_distillation(student, teacher, temperature, times_squared_temperature=True).backward()
    np.testing.assert_allclose(student.grad, expected * temperature**2, atol=1e-14)


def test_new_classes_get_a_gradient_only_over_all_classes() -> None:
    student = randn(3, 6).requires_grad_()
    soft_distillation(student, randn(3, 4, seed=1), over_all_classes=True).backward()
    assert student.grad is not None and bool((student.grad[:, 4:] > 0).all()), "the teacher has 0 for them"


def test_sigmoid_targets_overwrite_old_columns() -> None:
    teacher = randn(3, 2)
    targets = sigmoid_targets(torch.tensor([3, 1, 2]), teacher, 4)
    np.testing.assert_allclose(targets[:, :2], expit(teacher.numpy()))
    assert targets[:, 2:].tolist() == [[0, 1], [0, 0], [1, 0]], "an image of an old class has no hard label"
    assert sigmoid_targets(torch.tensor([1, 0]), None, 3).tolist() == [[0, 1, 0], [1, 0, 0]]


def test_sigmoid_distillation_is_a_sum_over_classes_and_a_mean_over_samples() -> None:
    logits, teacher, labels = 2 * randn(5, 6), randn(5, 4, seed=1), torch.tensor([4, 5, 5, 0, 4])
    total = 0.0
    for row, target, label in zip(logits.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        for column, value in enumerate(row):
            wanted = 1 / (1 + math.exp(-target[column])) if column < 4 else float(label == column)
            share = 1 / (1 + math.exp(-value))
            total -= wanted * math.log(share) + (1 - wanted) * math.log(1 - share)
    targets = sigmoid_targets(labels, teacher, 6)
    assert float(sigmoid_distillation(logits, targets)) == pytest.approx(total / 5, rel=1e-12)
    assert float(sigmoid_distillation(logits, targets, "mean")) == pytest.approx(total / 5 / 6, rel=1e-12)


def test_sigmoid_distillation_of_far_logits_is_finite() -> None:
    """The logarithm of a sigmoid that is 0 or 1 in float32 would not be."""
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss = sigmoid_distillation(logits, torch.tensor([[0.0, 1.0]]))
    loss.backward()
    assert float(loss.detach()) == 400 and logits.grad is not None and logits.grad.tolist() == [[1, -1]]


@pytest.mark.parametrize("bias", [False, True])
def test_feature_distillation_is_measured_through_the_old_head(bias: bool) -> None:
    head = nn.Linear(5, 3, bias=bias).double().requires_grad_(False)
    student, teacher = randn(4, 5).requires_grad_(), randn(4, 5, seed=1).requires_grad_()
    total, slope = 0.0, np.zeros((4, 5))
    for sample in range(4):
        for old in range(3):
            weight = head.weight[old]
            difference = float(weight @ (student[sample] - teacher[sample]).detach())
            total += difference**2 / 4 / 3
            slope[sample] += 2 * difference * weight.numpy() / 4 / 3
    loss = feature_distillation(student, teacher, head)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(total, rel=1e-12) and teacher.grad is None
    np.testing.assert_allclose(student.grad, slope, atol=1e-14)
