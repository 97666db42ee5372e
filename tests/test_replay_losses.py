"""Test the losses of a step with replay, written out beside the code."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from pmi_cl.models.training.losses import hard_distillation, local_cross_entropy, relational_distillation
from tests.support.method_runs import REPLAYING, THIRD, WAYS, trained_twice
from tests.support.small_runs import begin, epochs, in_the_third_task, options_of, start, train_task


@pytest.mark.parametrize("method", REPLAYING)
def test_synthetic_samples_carry_the_teachers_logits(method: str) -> None:
    model: Any = trained_twice(method)[0].model
    images, labels, logits = model.draw_replay(32, 0, 0)
    assert images.shape == (32, 3, 16, 16) and images.dtype == torch.float32 and not images.requires_grad
    assert logits.shape == (32, model.n_past_classes) and set(labels.tolist()) <= set(range(model.n_past_classes))
    torch.testing.assert_close(logits, model.teacher(images).detach(), rtol=1e-4, atol=1e-5)
    same, other = model.draw_replay(32, 0, 0)[0], model.draw_replay(32, 0, 1)[0]
    assert torch.equal(images, same) and not torch.equal(images, other)


@pytest.mark.parametrize("method", REPLAYING)
def test_class_weights_come_from_the_whole_task(method: str) -> None:
    """They are the counts of all samples since the task's first epoch, refreshed at each epoch's
    end.

    The counts of a batch or of an epoch would give others.
    """
    training, seen, weights = trained_twice(method)
    counts = np.zeros(training.model.n_seen_classes)
    for labels, weight in zip(seen, weights, strict=True):
        counts += np.bincount(labels.numpy(), minlength=len(counts))
        inverse = counts.sum() / np.maximum(counts, 1)
        np.testing.assert_allclose(weight.numpy(), inverse / inverse.min(), rtol=1e-6)


# With 3 new and 6 old classes a = log2(3/2 + 1) = 1.321928 and b = sqrt(6/3) = 1.414214.
PLASTIC, STABLE = 1.242013, 1.869490  # (1 + 1/a) / b of the cross-entropies, a b of the distillations
LAMBDAS = {"lambda_ce": 0.6, "lambda_hkd": 0.3, "lambda_rkd": 0.4, "lambda_ft": 0.7}


@pytest.mark.parametrize(("way", "hkd_scale"), [("plain", 1.0), ("unfreezing", 0.01)])
@pytest.mark.parametrize("method", REPLAYING)
def test_a_step_minimises_equation_23_as_a_sum(method: str, way: str, hkd_scale: float) -> None:
    """While the released code trains the new head alone, HKD has a hundredth of its weight, and
    there is no RKD.
    """
    training, model = in_the_third_task(method, **{**THIRD, **LAMBDAS, **WAYS[way]})
    inputs, labels, raw = next(training.shown.train_batches(2, 0, 16))
    images, old_labels, teacher_logits = model.draw_replay(16, 0, 0)
    net, first, second = copy.deepcopy(model.net), *map(copy.deepcopy, model.projections)
    # Real first, synthetic last.
    (new, features), (old, old_features) = (
        net(inputs, returnt="both"),
        net(images, returnt="both"),
    )
    both = net.head(torch.cat([features, old_features]))
    expected = {
        "ce": 0.6 * PLASTIC * local_cross_entropy(new, labels, 6),
        "hkd": 0.3 * STABLE * hkd_scale * hard_distillation(old, teacher_logits),
        "rkd": 0.4
        * STABLE
        * relational_distillation(first(features), second(model.teacher(inputs, returnt="features"))),
        "ft": 0.7 * PLASTIC * torch.nn.functional.cross_entropy(both, torch.cat([labels, old_labels])),
    }
    if way == "unfreezing":
        del expected["rkd"]
    found = model.observe(inputs, labels, raw, epoch=0, step=0)
    assert found.keys() == {"loss", *expected}
    for name, value in expected.items():
        assert float(value.detach()) > 1e-4
        torch.testing.assert_close(found[name], value.detach(), rtol=1e-4, atol=1e-6, msg=name)
    torch.testing.assert_close(found["loss"], sum(found[name] for name in expected))
    statistics = {name: value for name, value in net.state_dict().items() if "running" in name}
    torch.testing.assert_close({name: model.net.state_dict()[name] for name in statistics}, statistics)


@pytest.mark.parametrize("method", REPLAYING)
def test_the_classifiers_stage_minimises_balanced_cross_entropy_and_distillation(method: str) -> None:
    """CE is over all classes on real and synthetic images, weighted by class and by the plain
    lambda.

    HKD, scaled by the numbers of classes, is on the synthetic images alone. There is no RKD.
    """
    training, model = in_the_third_task(method, **THIRD, **LAMBDAS)
    model.begin_epoch(model.n_epochs() - 1, training.shown)
    model.set_modes()
    assert model.stage.trains == "classifier"
    model.class_weights = weights = torch.linspace(1, 5, 9)
    inputs, labels, raw = next(training.shown.train_batches(2, 1, 16))
    images, old_labels, teacher_logits = model.draw_replay(16, 1, 0)
    net = copy.deepcopy(model.net).eval()
    with torch.no_grad():
        log_probabilities = net(torch.cat([inputs, images])).log_softmax(1)
        seen = torch.cat([labels, old_labels])
        picked = -log_probabilities[range(len(seen)), seen]
        expected = {
            "ce": 0.6 * (weights[seen] * picked).sum() / weights[seen].sum(),
            "hkd": 0.3 * STABLE * (net(images)[:, :6] - teacher_logits).abs().mean(),
        }
    found = model.observe(inputs, labels, raw, epoch=1, step=0)
    assert found.keys() == {"loss", *expected}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)
    torch.testing.assert_close(found["loss"], found["ce"] + found["hkd"])


@pytest.mark.parametrize("method", REPLAYING)
def test_the_classifiers_loss_on_detached_features_moves_the_classifier_alone(method: str) -> None:
    training = start(method, lambda_ce=0, lambda_hkd=0, lambda_rkd=0, lambda_ft=1, optim_wd=0, n_epochs=1)
    train_task(training, 0).end_task(training.shown)
    model: Any = begin(training, 1)
    before = {name: value.clone() for name, value in model.net.named_parameters()}
    for _ in epochs(training, 1):
        assert model.stage.trains == "all"
    changed = {name for name, value in model.net.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {"head.tasks.0.weight", "head.tasks.1.weight"}


@pytest.mark.parametrize("method", [method for method in REPLAYING if "replay_augment" in options_of(method)])
def test_the_teacher_looks_at_what_the_student_sees(method: str) -> None:
    training = start(method, replay_augment=1)
    train_task(training, 0).end_task(training.shown)
    model: Any = begin(training, 1)
    plain, cropped = model.draw_replay(16, 0, 0)[0], model._replay(16, 0, 0)
    assert not torch.equal(plain, cropped[0])
    torch.testing.assert_close(cropped[2], model.teacher(cropped[0]).detach())
