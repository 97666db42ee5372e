"""Test f_cont: its loss against a double loop, its training against networks trained one by one."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.inversion.features.contrastive import (
    ContrastiveBank,
    ContrastiveConfig,
    ContrastiveModels,
    train_contrastive,
    uniformity,
)
from pmi_cl.seeding import seeded
from tests.support.slow_references import loop_uniformity

D = 6
FAST = ContrastiveConfig(epochs=4, batch=8)


def sphere(n: int, d: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(n, d, generator=seeded(seed, "sphere"), dtype=torch.float64), dim=1)


def class_features(counts: list[int]) -> tuple[Tensor, Tensor]:
    """Return features of classes with the given counts, in shuffled order.

    They are clustered, so that spreading them is work.
    """
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=seeded(1))]
    noise = torch.randn(len(labels), D, generator=seeded(2))
    return 2.0 + labels[:, None] + 0.5 * noise, labels


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_uniformity_equals_a_double_loop(temperature: float) -> None:
    z = sphere(9, 5)
    assert float(uniformity(z, temperature)) == pytest.approx(loop_uniformity(z, temperature), rel=1e-12)


def test_uniformity_of_several_classes_at_once() -> None:
    z = torch.stack([sphere(9, 5, seed) for seed in range(3)])
    assert uniformity(z).tolist() == pytest.approx([loop_uniformity(part, 1.0) for part in z])


def test_uniformity_of_collapsed_features_is_one() -> None:
    assert float(uniformity(sphere(1, 64).expand(64, -1))) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(("d", "expected"), [(64, 0.035), (512, 0.027)])
def test_uniformity_of_random_points(d: int, expected: float) -> None:
    mean = sum(float(uniformity(sphere(64, d, seed))) for seed in range(8)) / 8
    assert mean == pytest.approx(expected, abs=0.003)


def test_the_regular_simplex_is_the_lower_bound() -> None:
    centred = torch.eye(64, dtype=torch.float64) - 1 / 64
    bound = math.log((math.e + 63 * math.exp(-1 / 63)) / 64)
    assert bound == pytest.approx(0.0113, abs=1e-4)
    assert float(uniformity(F.normalize(centred, dim=1))) == pytest.approx(bound, abs=1e-12)
    assert float(uniformity(sphere(64, 512))) > bound


class OneClass(nn.Module):
    """f_cont as the paper writes it, made of torch's own layers.

    It has the weights of class ``row`` of the batched models.
    """

    def __init__(self, models: ContrastiveModels, row: int) -> None:
        super().__init__()
        self.linears = nn.ModuleList([nn.Linear(D, D) for _ in range(2)])
        self.norms = nn.ModuleList([nn.BatchNorm1d(D) for _ in range(2)])
        for layer, linear in enumerate(self.linears):
            linear.load_state_dict({"weight": models.weights[layer][row], "bias": models.biases[layer][row, 0]})

    def forward(self, x: Tensor) -> Tensor:
        for linear, norm in zip(self.linears, self.norms, strict=True):
            x = F.leaky_relu(norm(linear(x)), 0.01)
        return F.normalize(x, dim=1)


def train_alone(
    model: OneClass, rows: Tensor, label: int, config: ContrastiveConfig
) -> tuple[dict[str, Tensor], float]:
    """Train for one class.

    Return the final weights, or those of the lowest batch loss, and that loss.
    """
    optimizer = (torch.optim.SGD if config.optimizer == "sgd" else torch.optim.Adam)(model.parameters(), lr=config.lr)
    size = min(config.batch, len(rows))
    best, lowest, loss = model.state_dict(), math.inf, torch.zeros(())
    for epoch in range(config.epochs):
        order = torch.randperm(len(rows), generator=seeded(7, "f_cont", label, epoch))
        for start in range(0, len(rows) - size + 1, size):
            before = {name: value.clone() for name, value in model.state_dict().items()}
            z = model(rows[order[start : start + size]])
            loss = (z @ z.t() / config.temperature).exp().mean(1).log().mean()
            if float(loss.detach()) < lowest:
                best, lowest = before, float(loss.detach())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return (best, lowest) if config.keep_best else (model.state_dict(), float(loss.detach()))


@pytest.mark.parametrize("keep_best", [False, True])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_batched_training_equals_networks_trained_one_by_one(optimizer: Any, keep_best: bool) -> None:
    config = replace(FAST, optimizer=optimizer, keep_best=keep_best, temperature=0.7)
    # Three share a group, drop an incomplete batch; the last is one small batch.
    features, labels = class_features([20, 20, 21, 5])
    bank = train_contrastive(features, labels, 4, config, seed=7)
    assert sorted(classes for classes, _ in bank.groups) == [[0, 1, 2], [3]]
    unseen = class_features([8])[0]
    for classes, models in bank.groups:
        initial = ContrastiveModels(len(classes), D, seeded(7, "f_cont", *classes))
        for row, label in enumerate(classes):
            alone = OneClass(initial, row)
            weights, loss = train_alone(alone, features[labels == label], label, config)
            alone.load_state_dict(weights)
            assert bank.losses[label] == pytest.approx(loss, abs=1e-5)
            for layer, (linear, norm) in enumerate(zip(alone.linears, alone.norms, strict=True)):
                part = slice(row * D, (row + 1) * D)
                torch.testing.assert_close(models.weights[layer][row], linear.weight, rtol=1e-3, atol=1e-4)
                torch.testing.assert_close(
                    models.norms[layer].state_dict()["weight"][part], norm.weight, rtol=1e-3, atol=1e-4
                )
            # Adam turns the rounding noise of the biases' zero gradient (BatchNorm
            # follows) into steps.
            if optimizer == "sgd":
                torch.testing.assert_close(
                    bank.embed(label, unseen), alone.eval()(unseen).detach(), rtol=1e-3, atol=1e-4
                )


def test_a_class_does_not_depend_on_the_features_of_the_others() -> None:
    features, labels = class_features([20, 20])
    changed = torch.where(labels[:, None] == 1, features * -3, features)
    first, second = (train_contrastive(f, labels, 2, FAST, seed=0) for f in (features, changed))
    assert torch.allclose(first.embed(0, features), second.embed(0, features), atol=1e-6)
    assert not torch.allclose(first.embed(1, features), second.embed(1, features), atol=1e-2)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_training_spreads_every_class(optimizer: Any) -> None:
    features, labels = class_features([40, 17, 64])
    config = ContrastiveConfig(epochs=60, batch=16, optimizer=optimizer)
    untrained, trained = (
        train_contrastive(features, labels, 3, c, seed=0) for c in (replace(config, epochs=0), config)
    )
    for label in range(3):
        rows = features[labels == label]
        assert float(uniformity(trained.embed(label, rows))) < float(uniformity(untrained.embed(label, rows)))


def test_batched_forward_gives_unit_vectors() -> None:
    z = ContrastiveModels(3, D, seeded(0))(torch.randn(3, 7, D, generator=seeded(1)))
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(3, 7))


def test_embedding_equals_the_batched_forward_in_evaluation_mode() -> None:
    features, labels = class_features([20, 20])
    bank = train_contrastive(features, labels, 2, FAST, seed=0)
    (classes, models), *_ = bank.groups
    batched = models(torch.stack([features[labels == label] for label in classes])).detach()
    for row, label in enumerate(classes):
        torch.testing.assert_close(bank.embed(label, features[labels == label]), batched[row])


def test_the_bank_survives_a_checkpoint() -> None:
    features, labels = class_features([20, 9])
    bank = train_contrastive(features, labels, 2, FAST, seed=0)
    again = ContrastiveBank.from_state(bank.state())
    for label in range(2):
        assert torch.equal(bank.embed(label, features), again.embed(label, features))
    with pytest.raises(KeyError, match="class 2"):
        again.embed(2, features)


def test_a_class_of_one_feature_gets_no_model() -> None:
    features, labels = class_features([9, 1])
    bank = train_contrastive(features, labels, 2, FAST, seed=0)
    assert 0 in bank and 1 not in bank and list(bank.losses) == [0]


def test_pause_is_called_every_epoch_and_may_stop_the_training() -> None:
    calls: list[int] = []

    def stop_at_three() -> None:
        calls.append(len(calls))
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_contrastive(*class_features([9]), 1, FAST, seed=0, pause=stop_at_three)
    assert calls == [0, 1, 2]


def test_newer_classes_follow_the_older_and_embed_as_before() -> None:
    features, labels = torch.randn(24, 6, generator=seeded(1)), torch.arange(24) % 2
    older, newer = (
        train_contrastive(features + shift, labels, 2, ContrastiveConfig(epochs=2), seed=shift) for shift in (0, 1)
    )
    both = older.followed_by(newer, 2)
    for label in range(2):
        assert torch.equal(both.embed(label, features), older.embed(label, features))
        assert torch.equal(both.embed(2 + label, features), newer.embed(label, features))
    assert set(both.losses) == {0, 1, 2, 3} and newer.groups[0][0] == [0, 1]
