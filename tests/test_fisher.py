"""Test EWC's Fisher information against softmax regression, autograd, and loops over images."""

from __future__ import annotations

import itertools
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.backbones.resnet_cifar import ResNetCifar
from pmi_cl.models.training.fisher import Fisher, diagonal_fisher, outcomes, quadratic_penalty, squared_gradients
from pmi_cl.seeding import seeded
from tests.support.small_runs import begin, start, train_task


def regression(classes: int = 3, features: int = 4) -> nn.Module:
    """Return softmax regression on images of one row."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(features, classes)).double()


def data(n: int = 7, classes: int = 3) -> tuple[Tensor, Tensor]:
    random = seeded(1, "data")
    images = torch.randn(n, 1, 1, 4, generator=random, dtype=torch.float64)
    return images, torch.randint(0, classes, (n,), generator=random)


def closed_form(net: nn.Module, images: Tensor, labels: Tensor, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the Fisher information of softmax regression, weight and bias, worked out by hand.

    The gradient of log p(y) with respect to logit c is 1[c = y] - p_c, times x_j for weight c, j.
    The mean of its square over the network's own labels is p_c (1 - p_c).
    """
    x = images.flatten(1).numpy()
    p = net(images).softmax(1).detach().numpy()
    y = np.eye(p.shape[1])[labels.numpy()]
    of_label = {"exact": p * (1 - p), "empirical": (y - p) ** 2, "weighted": (y - p) ** 2 * (p * y).sum(1)[:, None]}
    slope = of_label[kind]
    return slope.T @ x**2 / len(x), slope.mean(0)


@pytest.mark.parametrize("kind", ["exact", "empirical", "weighted"])
def test_fisher_of_softmax_regression_has_its_closed_form(kind: str) -> None:
    net, (images, labels) = regression(), data()
    batches = zip(images.split(3), labels.split(3), strict=True)  # the last one is smaller
    found = diagonal_fisher(net, batches, cast(Fisher, kind))
    weight, bias = closed_form(net, images, labels, kind)
    np.testing.assert_allclose(found["1.weight"], weight, rtol=1e-12)
    np.testing.assert_allclose(found["1.bias"], bias, rtol=1e-12)


def test_sampled_labels_are_those_of_the_network() -> None:
    """Their shares are its probabilities, so that the mean of "sampled" is "exact"."""
    logits = torch.log(torch.tensor([[0.1, 0.6, 0.3]])).repeat(4000, 1)
    ((labels, weights),) = outcomes(logits, torch.zeros(4000, dtype=torch.long), "sampled", seeded(0, "fisher"))
    np.testing.assert_allclose(labels.bincount(minlength=3) / 4000, [0.1, 0.6, 0.3], atol=0.02)
    assert weights.tolist() == [1.0] * 4000
    ((again, _),) = outcomes(logits, labels, "sampled", seeded(0, "fisher"))
    assert torch.equal(labels, again)


def test_squared_gradients_are_those_of_autograd_image_by_image() -> None:
    """BatchNorm is frozen: an image's gradient does not depend on the images beside it."""
    torch.manual_seed(0)
    net = ResNetCifar((1, 1, 1, 1)).double()
    for size in (2, 3):
        net.head.grow(size, seeded(0, "head", size))
        net.double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    images, labels = torch.randn(3, 3, 8, 8, dtype=torch.float64), torch.tensor([4, 0, 2])
    weights = torch.tensor([1.0, 0.25, 2.0], dtype=torch.float64)
    net.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = squared_gradients(net, images, labels, weights)
    expected = {name: torch.zeros_like(parameter) for name, parameter in net.named_parameters()}
    for image, label, weight in zip(images, labels, weights, strict=True):
        net.zero_grad()
        F.cross_entropy(cast(Tensor, net(image[None])), label[None]).backward()
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None
            expected[name] += weight * parameter.grad**2
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-12)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_penalty_is_half_a_weighted_square() -> None:
    random = seeded(0, "penalty")
    values, anchors, fisher = (
        {name: torch.rand(2, 3, generator=random, dtype=torch.float64) for name in names}
        for names in ("abc", "ab", "ab")
    )
    values["a"].requires_grad_()
    total = 0.0
    for name, row, column in itertools.product("ab", range(2), range(3)):
        gap = float(values[name].detach()[row, column] - anchors[name][row, column])
        total += 0.5 * float(fisher[name][row, column]) * gap**2
    penalty = quadratic_penalty(values, anchors, fisher)
    penalty.backward()
    assert float(penalty.detach()) == pytest.approx(total, rel=1e-12)
    np.testing.assert_allclose(values["a"].grad, fisher["a"] * (values["a"].detach() - anchors["a"]), rtol=1e-12)


# the method


def test_the_fisher_information_of_earlier_tasks_decays() -> None:
    training = start("ewc_on", n_epochs=1, train_per_class=8, ewc_gamma=0.25, ewc_fisher="empirical")
    model: Any = train_task(training, 0)
    model.end_task(training.shown)
    first = dict(model.fisher)
    train_task(training, 1)
    model.net.eval()
    alone = diagonal_fisher(model.net, training.shown.plain_batches(1), "empirical")
    model.end_task(training.shown)
    for name, value in model.fisher.items():
        np.testing.assert_allclose(value, alone[name] + 0.25 * first.get(name, 0), rtol=1e-3, atol=1e-7)
    assert all(torch.equal(model.anchors[name], value) for name, value in model.net.named_parameters())
    assert model.stored() == {"statistics": 2 * 4 * sum(value.numel() for value in model.net.parameters())}


def test_a_strong_penalty_holds_the_weights_that_matter() -> None:
    """With a Fisher information of one everywhere, nothing but the new head can move."""
    moved = {}
    for strength in (0.0, 100.0):
        training = start("ewc_on", n_epochs=1, train_per_class=8, ewc_lambda=strength, lr=0.005, optim_wd=0)
        model: Any = train_task(training, 0)
        model.end_task(training.shown)
        model.fisher = {name: torch.ones_like(value) for name, value in model.fisher.items()}
        before = {name: value.detach().clone() for name, value in model.net.named_parameters()}
        begin(training, 1)
        for step, batch in enumerate([*training.shown.train_batches(1, 0, 8)] * 4):
            model.set_modes()
            losses = model.observe(*batch, epoch=0, step=step)
        moved[strength] = sum(float((dict(model.net.named_parameters())[n] - v).norm()) for n, v in before.items())
        assert ("ewc" in losses) and bool(model.net.head.tasks[1].weight.grad.any())
    assert moved[100.0] < 0.5 * moved[0.0]
