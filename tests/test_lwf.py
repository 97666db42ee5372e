"""Test LwF and LwF-MC: which loss is taken in which epoch, and what the teacher sees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pmi_cl.models.training.distillation import sigmoid_targets, soft_distillation
from tests.support.small_runs import begin, start, train_task


def in_second_task(method: str, **flags: Any) -> tuple[Any, Any]:
    """Return a run in its second task, whose teacher still is the network itself."""
    training = start(method, n_epochs=2, train_per_class=8, batch_size=8, **flags)
    model: Any = train_task(training, 0)
    model.end_task(training.shown)
    return training, begin(training, 1)


@pytest.mark.parametrize("plain", [0, 1])
def test_old_logits_are_held_to_those_of_the_teacher(plain: int) -> None:
    training, model = in_second_task("lwf", warmup_part=0, lambda_kd=0.5, temperature=3, plain_teacher=plain)
    inputs, labels, raw = next(training.shown.train_batches(1, 0, 8))
    model.begin_epoch(0, training.shown)
    model.net.eval()  # so that the pass can be repeated
    with torch.no_grad():
        logits = model.net(inputs)
        seen = training.shown.normalise(raw) if plain else inputs
        kd = 0.5 * soft_distillation(logits, model.teacher(seen), 3.0)
    losses = model.observe(inputs, labels, raw)
    assert float(losses["kd"]) == pytest.approx(float(kd), rel=1e-5)
    assert float(losses["ce"]) == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-5)


def test_the_warm_up_trains_the_new_head_alone() -> None:
    training, model = in_second_task("lwf", warmup_part=0.5)
    assert (model.n_epochs(), model.warmup_epochs()) == (3, 1)
    before = {name: value.clone() for name, value in model.net.state_dict().items()}
    head = next(name for name in before if name.startswith("head.tasks.1"))
    for epoch in range(2):
        model.begin_epoch(epoch, training.shown)
        model.set_modes()
        assert model.opt.param_groups[0]["lr"] == model.options.lr
        for step, batch in enumerate(training.shown.train_batches(1, epoch, 8)):
            losses = model.observe(*batch, epoch=epoch, step=step)
        moved = {name for name, value in model.net.state_dict().items() if not torch.equal(value, before[name])}
        if epoch == 0:
            assert moved == {head} and losses.keys() == {"ce", "loss"}, "nor do BatchNorms move"
        else:
            assert len(moved) > len(before) / 2 and losses.keys() == {"ce", "kd", "loss"}


def test_the_first_task_has_no_warm_up() -> None:
    model: Any = begin(start("lwf", warmup_part=1, n_epochs=3), 0)
    assert model.n_epochs() == 3 and not model.warming


@pytest.mark.parametrize("over", ["sum", "mean"])
def test_sigmoids_of_old_classes_are_held_to_the_teachers(over: str) -> None:
    training, model = in_second_task("lwf_mc", bce_classes=over)
    inputs, labels, raw = next(training.shown.train_batches(1, 0, 8))
    model.net.eval()
    with torch.no_grad():
        logits = model.net(inputs)
        targets = sigmoid_targets(labels, model.teacher(inputs), 4)
    shares, wanted = logits.double().sigmoid().numpy(), targets.double().numpy()
    each = -(wanted * np.log(shares) + (1 - wanted) * np.log(1 - shares))
    expected = each.sum(1).mean() if over == "sum" else each.mean()
    assert float(model.observe(inputs, labels, raw)["loss"]) == pytest.approx(expected, rel=1e-5)
    assert wanted[:, 2:].sum(1).tolist() == [1.0] * len(labels)


@pytest.mark.parametrize("method", ["lwf", "lwf_mc", "pass"])
def test_the_teacher_is_counted_as_stored(method: str) -> None:
    training = start(method, n_epochs=1, train_per_class=8)
    assert training.model.stored()["networks"] == 0
    model: Any = train_task(training, 0)
    model.end_task(training.shown)
    floats = sum(value.numel() * value.element_size() for value in model.net.state_dict().values())
    assert model.stored()["networks"] == floats > 0
