"""Test ABD and the row "DeepInversion" of its tables against loops, and the generator they keep."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from pmi_cl.inversion.networks.frozen import FrozenNetwork
from pmi_cl.inversion.ways.generator import GeneratorWeights, generator_loss
from pmi_cl.models.training.losses import share_weights, weighted_cross_entropy
from pmi_cl.seeding import seeded
from pmi_cl.utils.run.training import Training
from tests.support.preset_runs import different_options, digits, method, options
from tests.support.small_runs import begin, epochs, in_the_third_task, start, train_task

UNEQUAL = {"classes_per_task": "3,1,2", "train_per_class": 8, "n_epochs": 1, "batch_size": 8}
BRIEF = {"generator_steps": 2, "generator_batch": 4}
JOINT_REPLAY = ("abd", "deepinversion")


def test_the_weight_of_a_sample_is_the_share_of_the_other_classes() -> None:
    """Five old classes and one new: r = 5/6 for old samples, 1/6 for new ones. By hand."""
    weights = share_weights(torch.tensor([5, 0, 4, 5]), 5, 1)
    torch.testing.assert_close(weights, torch.tensor([1 / 6, 5 / 6, 5 / 6, 1 / 6]))
    torch.testing.assert_close(share_weights(torch.tensor([2, 3]), 3, 2), torch.tensor([3 / 5, 2 / 5]))
    assert share_weights(torch.tensor([0, 7]), 0, 8).tolist() == [1, 1]  # the first task


def test_the_weighted_cross_entropy_is_not_divided_by_its_weights() -> None:
    logits, labels = torch.randn(4, 3, generator=seeded(0)), torch.tensor([0, 2, 2, 1])
    weights = torch.tensor([0.1, 0.2, 0.3, 0.8])
    total = sum(-float(w * row.softmax(0)[c].log()) for row, c, w in zip(logits, labels, weights, strict=True))
    assert float(weighted_cross_entropy(logits, labels, weights)) == pytest.approx(total / 4, rel=1e-5)


def loop_cross_entropy(logits: Tensor, labels: Tensor, weights: list[float]) -> float:
    total = 0.0
    for row, label, weight in zip(logits.tolist(), labels.tolist(), weights, strict=True):
        shares = torch.tensor(row, dtype=torch.float64).exp()
        total -= weight * float((shares[label] / shares.sum()).log())
    return total / len(labels)


def step_of(training: Training, model: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Take a step. Return its losses, and what the network of before gives for the same images."""
    inputs, labels, raw = next(training.shown.train_batches(2, 0, 8))
    images, old_labels, _ = model.draw_replay(8, 0, 0)
    net, together = copy.deepcopy(model.net), torch.cat([inputs, images])
    with torch.no_grad():
        logits, features = net(together, returnt="both")
        teacher_logits, teacher_features = model.teacher(together, returnt="both")
        through = model.teacher.head(features)
    found = model.observe(inputs, labels, raw, epoch=0, step=0)
    for name, value in net.state_dict().items():  # one pass of both kinds together
        if "running" in name:
            torch.testing.assert_close(model.net.state_dict()[name], value)
    seen = torch.cat([labels, old_labels])
    return found, {
        "labels": seen,
        "logits": logits,
        "teacher": teacher_logits,
        "through the old head": through,
        "teacher features": teacher_features,
    }


def test_a_step_of_abd_minimises_its_three_losses() -> None:
    training, model = in_the_third_task("abd", **UNEQUAL, **BRIEF, lambda_ce=0.7, lambda_ft=0.6, lambda_kd=0.3)
    found, seen = step_of(training, model)
    labels, logits = seen["labels"], seen["logits"]
    weights = [4 / 6 if label < 4 else 2 / 6 for label in labels.tolist()]
    distances = [
        (float(seen["through the old head"][i, c]) - float(seen["teacher"][i, c])) ** 2
        for i in range(16)
        for c in range(4)
    ]
    expected = {
        "ce": 0.7 * loop_cross_entropy(logits[:8, 4:], labels[:8] - 4, weights[:8]),
        "ft": 0.6 * loop_cross_entropy(logits, labels, weights),
        "kd": 0.3 * sum(distances) / 16 / 4,
    }
    assert found.keys() == {"loss", *expected}
    assert {name: float(found[name]) for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-7)
    assert float(found["loss"]) == pytest.approx(sum(expected.values()), rel=1e-4)
    assert min(expected.values()) > 1e-5


def test_a_step_of_the_row_deepinversion_minimises_cross_entropy_and_two_distillations() -> None:
    training, model = in_the_third_task("deepinversion", **UNEQUAL, **BRIEF, lambda_kd=0.4, kd_temperature=3)
    found, seen = step_of(training, model)
    logits, teacher = seen["logits"] / 3, (seen["teacher"] / 3).softmax(1)
    real = -sum(float(teacher[i, c] * logits[i, :4].log_softmax(0)[c]) for i in range(8) for c in range(4)) / 8
    padded = torch.cat([teacher, torch.zeros(16, 2)], dim=1)  # the teacher gives new classes nothing
    generated = -sum(float(padded[i, c] * logits[i].log_softmax(0)[c]) for i in range(8, 16) for c in range(6)) / 8
    expected = {
        "ce": loop_cross_entropy(seen["logits"][:8], seen["labels"][:8], [1.0] * 8),
        "kd": 0.4 * real,
        "kd_generated": 0.4 * generated,
    }
    assert found.keys() == {"loss", *expected}
    assert {name: float(found[name]) for name in expected} == pytest.approx(expected, rel=1e-4)


def test_abds_loss_over_all_classes_moves_the_classifier_alone() -> None:
    training = start("abd", **{**UNEQUAL, **BRIEF}, lambda_ce=0, lambda_kd=0, optim_wd=0)
    train_task(training, 0).end_task(training.shown)
    model: Any = begin(training, 1)
    before = {name: value.clone() for name, value in model.net.named_parameters()}
    for _ in epochs(training, 1):
        pass
    changed = {name for name, value in model.net.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {"head.tasks.0.weight", "head.tasks.1.weight"}


@pytest.mark.parametrize("method", JOINT_REPLAY)
def test_one_generator_and_its_adam_live_through_all_tasks(method: str) -> None:
    training = start(method, **{**UNEQUAL, **BRIEF})
    train_task(training, 0).end_task(training.shown)
    model: Any = training.model
    assert model.generator is None
    train_task(training, 1).end_task(training.shown)
    generator, adam = model.generator, model.generator_opt
    begin(training, 2)
    assert model.generator is generator and model.generator_opt is adam
    assert {int(sums["step"]) for sums in adam.state.values()} == {2 * BRIEF["generator_steps"]}
    assert model.inversion_figures()["steps"] == 2 * BRIEF["generator_steps"]


def test_the_schedule_of_abd() -> None:
    """250 epochs, a tenth of the rate from 100, 150 and 200; 10,000 steps of the generator."""
    for name in JOINT_REPLAY:
        model, o = method(name, "paper"), options(name, "paper")
        model.grow()
        model.begin_task(digits())
        rates = []
        for epoch in range(model.n_epochs()):
            model.begin_epoch(epoch, digits())
            rates += [group["lr"] for group in model.opt.param_groups]
        assert rates == pytest.approx([0.1] * 100 + [0.01] * 50 + [0.001] * 50 + [0.0001] * 50)
        assert (o["optim_wd"], o["generator_steps"], o["generator_statistics"]) == (2e-4, 10_000, 50)
    assert [options("abd", "paper")[name] for name in ("lambda_ce", "lambda_ft", "lambda_kd")] == [1, 1, 0.1]
    assert [options("deepinversion", "paper")[name] for name in ("lambda_kd", "kd_temperature")] == [1, 2]


def test_rdfcil_plus_is_rdfcil_with_the_classifiers_loss() -> None:
    assert different_options("rdfcil", "paper", "rdfcil_plus") == {"lambda_ft"}
    assert different_options("rdfcil", "paper", "rdfcil_plus_pmi") == {"lambda_ft", "lambda_ce"}
    found = options("rdfcil", "rdfcil_plus_pmi")
    assert (found["lambda_ft"], found["lambda_ce"], options("rdfcil", "rdfcil_plus")["lambda_ce"]) == (1, 0.75, 0.5)


def test_a_generator_inverts_a_network_without_statistics_by_its_other_terms() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten())
    head = torch.nn.Linear(4 * 14 * 14, 3)
    images = torch.randn(4, 3, 16, 16, generator=seeded(0)).requires_grad_()
    generator_loss(FrozenNetwork([network], head), images, GeneratorWeights()).backward()
    assert images.grad is not None and bool(images.grad.any())
