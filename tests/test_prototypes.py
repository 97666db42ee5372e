"""Test PASS: rotation labels, prototypes, the radius of their noise, and its losses, by loops."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from pmi_cl.errors import UserError
from pmi_cl.models.training.prototypes import class_means, draw_around, noise_radius, rotated
from pmi_cl.seeding import seeded
from tests.support.small_runs import begin, start, train_task


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_every_image_is_shown_in_four_rotations_as_four_classes() -> None:
    images, labels = randn(3, 2, 4, 4), torch.tensor([5, 0, 2])
    turned, wanted = rotated(images, labels)
    for number, label in enumerate(labels.tolist()):
        for quarter in range(4):
            row = wanted.tolist().index(4 * label + quarter)
            np.testing.assert_array_equal(turned[row], np.rot90(images[number].numpy(), quarter, (1, 2)))
    assert sorted(wanted.tolist()) == [0, 1, 2, 3, 8, 9, 10, 11, 20, 21, 22, 23]


def test_prototypes_are_the_means_of_the_classes() -> None:
    features, labels = randn(9, 3), torch.tensor([4, 5, 4, 6, 6, 4, 5, 6, 6])
    means = class_means(features, labels, 4, 3)
    for number, label in enumerate((4, 5, 6)):
        rows = [row.numpy() for row, own in zip(features, labels.tolist(), strict=True) if own == label]
        np.testing.assert_allclose(means[number], sum(rows) / len(rows), rtol=1e-12)


def test_the_radius_is_the_root_of_the_mean_trace_of_covariances() -> None:
    features, labels = 2 * randn(20, 3), torch.arange(20) % 4
    labels[0] = 9  # a class of one image has no covariance
    traces = []
    for label in range(4):
        covariance = np.cov(features[labels == label].numpy().T)
        traces.append(np.trace(covariance) / 3)
    assert float(noise_radius(features, labels)) == pytest.approx(math.sqrt(sum(traces) / 4), rel=1e-12)
    assert float(noise_radius(features[:2], torch.tensor([0, 1]))) == 0


def test_noise_around_prototypes_has_the_radius() -> None:
    means = torch.tensor([[0.0, 50.0], [100.0, -50.0], [-100.0, 0.0]])
    features, classes = draw_around(means, torch.tensor(2.5), 6000, seeded(0, "noise"))
    np.testing.assert_allclose(classes.bincount() / 6000, [1 / 3] * 3, atol=0.02)
    for number in range(3):
        of_class = features[classes == number]
        np.testing.assert_allclose(of_class.mean(0), means[number], atol=0.3)
        np.testing.assert_allclose(of_class.std(0), 2.5, rtol=0.06)


# the method


def in_second_task() -> tuple[Any, Any]:
    training = start("pass", n_epochs=1, train_per_class=8, batch_size=8)
    model: Any = train_task(training, 0)
    model.end_task(training.shown)
    return training, begin(training, 1)


def test_predictions_are_those_of_upright_images() -> None:
    _, model = in_second_task()
    images = randn(5, 3, 16, 16).float()
    model.eval()
    assert model.net(images).shape == (5, 16) and model.net.head.sizes == [8, 8]
    np.testing.assert_array_equal(model(images).detach(), model.net(images).detach()[:, [0, 4, 8, 12]])


def test_the_losses_are_those_of_a_loop() -> None:
    training, model = in_second_task()
    o = model.options
    inputs, labels, raw = next(training.shown.train_batches(1, 0, 8))
    model.net.eval()  # so that the pass can be repeated
    with torch.no_grad():  # away from the teacher
        model.net.blocks[-1].bn2.weight.add_(0.5)
    turned, wanted = rotated(inputs, labels)
    with torch.no_grad():
        logits, features = model.net(turned, returnt="both")
        gap = (features - model.teacher(turned, returnt="features")).double().numpy()
        random = seeded(model.args.seed, "prototypes", 1, 2, 3)
        drawn, classes = draw_around(model.prototypes, model.radius, o.batch_size, random)
        of_drawn = model.net.head(drawn)
    losses = model.observe(inputs, labels, raw, epoch=2, step=3)
    assert float(losses["ce"]) == pytest.approx(mean_cross_entropy(logits / o.temperature, wanted), rel=1e-4)
    proto = mean_cross_entropy(of_drawn / o.temperature, 4 * classes)
    assert float(losses["proto"]) == pytest.approx(o.lambda_proto * proto, rel=1e-4)
    assert set(classes.tolist()) == {0, 1}
    kd = o.lambda_kd * math.sqrt(sum(value**2 for row in gap for value in row))
    assert float(losses["kd"]) == pytest.approx(kd, rel=1e-3) and kd > 1
    assert float(losses["loss"]) == pytest.approx(float(losses["ce"] + losses["proto"] + losses["kd"]))


def mean_cross_entropy(logits: Tensor, labels: Tensor) -> float:
    """Return the mean cross-entropy of logits (n, classes), number by number."""
    total = 0.0
    for row, label in zip(logits.double().tolist(), labels.tolist(), strict=True):
        highest = max(row)
        total += highest + math.log(sum(math.exp(value - highest) for value in row)) - row[label]
    return total / len(labels)


def test_the_radius_is_that_of_the_first_task_and_prototypes_of_old_classes_stay() -> None:
    training, model = in_second_task()
    radius, prototypes = model.radius.clone(), model.prototypes.clone()
    assert float(radius) > 0 and prototypes.shape == (2, model.net.feature_dim)
    model.end_task(training.shown)
    assert torch.equal(model.radius, radius) and torch.equal(model.prototypes[:2], prototypes)
    own = torch.cat([model.teacher(images, returnt="features") for images, _ in training.shown.plain_batches(1)])
    labels = torch.cat([labels for _, labels in training.shown.plain_batches(1)])
    np.testing.assert_allclose(model.prototypes[2:], class_means(own, labels, 2, 2), rtol=1e-4, atol=1e-5)
    assert model.stored()["statistics"] == 4 * (4 * model.net.feature_dim + 1)


def test_images_that_are_not_square_are_refused() -> None:
    model = start("pass").model
    with pytest.raises(UserError, match=r"^--model pass .* 16x24 pixels: give square ones$"):
        model.check_data(cast(Any, SimpleNamespace(SIZE=(16, 24))))
