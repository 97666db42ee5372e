"""Test the methods with exemplars against slow references: losses, corrections, held-out images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pmi_cl.backbones.cosine_head import CosineHead
from pmi_cl.cli import main
from pmi_cl.models.resnet.icarl import class_means
from pmi_cl.models.resnet.lucir import imprinted
from pmi_cl.models.training.bias_correction import corrected, fit_correction
from pmi_cl.models.training.cosine_losses import less_forget, margin_ranking
from pmi_cl.seeding import seeded
from tests.support.small_runs import begin, epochs, start, train_task

EXEMPLAR_METHODS = ["bic", "icarl", "lucir"]


def second_task(method: str, **flags: Any) -> tuple[Any, Any]:
    """Return a run and its method, which stands before the first epoch of its second task."""
    training = start(method, **flags)
    train_task(training, 0).end_task(training.shown)
    return training, begin(training, 1)


def a_batch(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return normalised images of all four classes."""
    dataset = model.dataset
    rows = torch.cat([(dataset.train.labels == label).nonzero().squeeze(1)[:2] for label in range(4)])
    return dataset.normalise(dataset.train.pixels(rows)), dataset.train.labels[rows]


# What all share.


@pytest.mark.parametrize("method", EXEMPLAR_METHODS)
def test_the_memory_shrinks_by_class_and_is_counted(method: str) -> None:
    training, model = second_task(method, buffer_size=12, exemplars_per_class="none")
    held = int(method == "bic")  # of the images that are stored of a class
    assert model.memory.labels.tolist() == [0] * (6 - held) + [1] * (6 - held)
    first = model.memory.first_of_each(3 - held).images
    model.end_task(training.shown)
    assert model.memory.labels.bincount().tolist() == [3 - held] * 4
    assert torch.equal(model.memory.images[: len(first)], first)
    assert model.stored()["real images"] == 12 * (3 * 16 * 16 + 8)


def test_an_epoch_has_new_images_and_exemplars_in_proportion() -> None:
    _, model = second_task("icarl", buffer_size=16, batch_size=16)  # 48 new images, 16 exemplars
    inputs, labels, _ = next(model.train_batches(0))
    assert (len(labels), model.exemplars_with(len(labels)), model.steps_per_epoch()) == (12, 4, 4)
    seen: list[list[int]] = []
    model.losses = lambda images, labels: (seen.append(labels.tolist()), {"x": model.net(images).sum()})[1]
    model.observe(inputs, labels, inputs)
    assert sorted(seen[0][12:]) == [0, 0, 1, 1] and min(seen[0][:12]) == 2


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--buffer_size", "9"], "--buffer_size 9 is less than one image for each of 10 classes: give 10 or more"),
        (["--data_free", "1"], "--data_free 1: icarl stores real images of earlier tasks; these store none: "),
    ],
)
def test_a_memory_that_cannot_be_is_refused(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "icarl", "--dataset", "seq-digits", "--check", *words]) == 2
    error = capsys.readouterr().err
    assert line in error and error.count("\n") == 1
    if "data_free" in line:
        named = error.rsplit(": ", 1)[1].strip().split(", ")
        assert {"sgd", "rdfcil", "pmi_rdfcil"} <= set(named)
        assert not {*EXEMPLAR_METHODS, "joint", "vpt"} & set(named)


# iCaRL.


def test_icarls_loss_is_a_double_loop() -> None:
    _, model = second_task("icarl")
    images, labels = a_batch(model)
    model.eval()
    loss = model.losses(images, labels)["bce"]
    share = torch.sigmoid(model.net(images)).double().tolist()
    old = torch.sigmoid(model.teacher(images)).double().tolist()
    expected = 0.0
    for row, label in enumerate(labels.tolist()):
        for y in range(4):
            target = old[row][y] if y < 2 else float(y == label)
            expected -= target * math.log(share[row][y]) + (1 - target) * math.log(1 - share[row][y])
    assert float(loss) == pytest.approx(expected / len(labels) / 6, rel=1e-4)  # the run has six classes


def test_icarl_predicts_the_class_of_the_nearest_mean_of_its_exemplars() -> None:
    training = start("icarl", buffer_size=12)
    model: Any = train_task(training, 0)
    images, _ = a_batch(model)
    assert torch.equal(model(images), model.net(images))  # there is no exemplar yet
    model.end_task(training.shown)
    model.eval()
    with torch.no_grad():
        features = F.normalize(model.net(images, returnt="features")).numpy()
        stored = model.dataset.normalise(model.memory.images)
        own = F.normalize(model.net(stored, returnt="features")).numpy()
        scores = model(images).numpy()
    for label in range(2):
        mean = own[model.memory.labels.numpy() == label].mean(0)
        distance = np.linalg.norm(features - mean / np.linalg.norm(mean), axis=1)
        np.testing.assert_allclose(scores[:, label], -(distance**2), atol=1e-4)


def test_the_nearest_mean_does_not_depend_on_lengths() -> None:
    features, labels = torch.randn(12, 5, generator=seeded(0)), torch.arange(12) % 3
    lengths = torch.rand(12, 1, generator=seeded(1)) + 0.1
    one, other = (class_means(values, labels, 3) for values in (features, features * lengths))
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(one.norm(dim=1), torch.ones(3))


# UCIR.


def test_the_cosine_head_grows_and_gives_scaled_cosines() -> None:
    head = CosineHead(4)
    head.grow(2, seeded(0))
    head.grow(3, seeded(1))
    head.scale.data.fill_(7.0)
    features = torch.randn(5, 4, generator=seeded(2))
    found = head(features)
    for row in range(5):
        for label in range(5):
            w = head.weight[label]
            expected = 7 * float(features[row] @ w) / float(features[row].norm() * w.norm())
            assert float(found[row, label]) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    again = CosineHead(4)
    again.load_state_dict(head.state_dict())
    assert again.sizes == [2, 3] and torch.equal(again(features), found)


def test_ucirs_losses_by_hand() -> None:
    cosines = torch.tensor([[0.9, 0.1, 0.2, 0.7, -0.5], [0.0, 0.3, 0.1, 0.0, 0.4], [0.5, 0.5, 0.9, 0.0, 0.0]])
    labels = torch.tensor([0, 1, 2])  # two old classes, three new ones
    # Row 0 has rivals 0.7 and 0.2: max(0.5 - 0.9 + 0.7, 0) = 0.3 and 0. Row 1: 0.6 and 0.3.
    assert float(margin_ranking(cosines, labels, 2, 0.5, 2)) == pytest.approx((0.3 + 0.9) / 2)
    assert float(margin_ranking(cosines[2:], labels[2:], 2, 0.5, 2)) == 0
    assert float(margin_ranking(cosines, labels, 2, 0.5, 9)) == pytest.approx((0.3 + 0.9 + 0.2) / 2)
    features, teacher = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    assert float(less_forget(features, teacher)) == pytest.approx(1 - (0.6 + 0) / 2)


def test_ucir_weighs_its_terms_and_fixes_the_old_embeddings() -> None:
    training, model = second_task("lucir", lambda_lf=3, n_epochs=1)
    images, labels = a_batch(model)
    model.eval()
    losses = model.losses(images, labels)
    features, before = (net(images, returnt="features") for net in (model.net, model.teacher))
    assert float(losses["lf"]) == pytest.approx(3 * float(less_forget(features, before)), abs=1e-5)
    logits = model.net(images)
    assert float(losses["ce"]) == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-5)
    old, new = (linear.weight.clone() for linear in model.net.head.tasks)
    for _ in epochs(training, 1):
        pass
    assert torch.equal(model.net.head.tasks[0].weight, old)
    assert not torch.equal(model.net.head.tasks[1].weight, new)


def test_imprinted_embeddings_point_to_the_means() -> None:
    features, labels = F.normalize(torch.randn(6, 3, generator=seeded(0))), torch.tensor([5, 4, 5, 4, 4, 5])
    found = imprinted(features, labels, range(4, 6), torch.tensor(2.5))
    for row, label in enumerate((4, 5)):
        mean = features[labels == label].mean(0)
        torch.testing.assert_close(found[row], 2.5 * mean / mean.norm())
    _, model = second_task("lucir")
    old, new = (linear.weight.norm(dim=1) for linear in model.net.head.tasks)
    torch.testing.assert_close(new, old.mean().expand(2))


def test_balanced_epochs_move_the_embeddings_alone() -> None:
    training, model = second_task("lucir", balanced_epochs=2, exemplars_per_class=4)
    before = {name: value.clone() for name, value in model.net.state_dict().items()}
    model.end_task(training.shown)
    after = model.net.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"head.tasks.0.weight", "head.tasks.1.weight"}


def test_balanced_epochs_go_down_cross_entropy_and_margins_at_a_falling_rate() -> None:
    training, model = second_task("lucir", balanced_epochs=2, exemplars_per_class=4, batch_size=16, lr_gamma=0.1)
    model.net.head.scale.data.fill_(3.0)
    parts = [linear.weight.detach().clone().requires_grad_() for linear in model.net.head.tasks]
    model.end_task(training.shown)
    features, labels = F.normalize(model.exemplar_features()), model.memory.labels
    opt = torch.optim.SGD(parts, lr=0.01, momentum=0.9, weight_decay=model.options.optim_wd)
    for lr in (0.01, 0.001):  # all 16 exemplars are one batch
        opt.param_groups[0]["lr"] = lr
        cosines = features @ F.normalize(torch.cat(parts)).t()
        opt.zero_grad()
        (F.cross_entropy(3 * cosines, labels) + margin_ranking(cosines, labels, 2, 0.5, 2)).backward()
        opt.step()
    for linear, part in zip(model.net.head.tasks, parts, strict=True):
        torch.testing.assert_close(linear.weight, part, rtol=1e-4, atol=1e-6)


# BiC.


def test_the_correction_has_the_closed_form_of_a_tiny_logistic_problem() -> None:
    """With one old and one new class, and two values of the new logit, the fit is exact: the share
    of the new class at each value is the sigmoid of alpha x + beta.
    """
    values, shares, each = (2.0, 5.0), (0.25, 0.6), 20
    rows = [(x, int(k < share * each)) for x, share in zip(values, shares, strict=True) for k in range(each)]
    logits = torch.tensor([[0.0, x] for x, _ in rows])
    labels = torch.tensor([label for _, label in rows])
    ends = [math.log(share / (1 - share)) for share in shares]
    alpha = (ends[1] - ends[0]) / (values[1] - values[0])
    found = fit_correction(logits, labels, 1, ridge=(0.0, 0.0))
    assert found == pytest.approx((alpha, ends[0] - alpha * values[0]), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_correction_is_a_minimum(seed: int) -> None:
    logits = 4 * torch.randn(60, 5, generator=seeded(seed), dtype=torch.float64)
    logits[:, 3:] += 5  # the bias
    labels = torch.randint(0, 5, (60,), generator=seeded(seed, "labels"))
    point = torch.tensor(fit_correction(logits, labels, 3), dtype=torch.float64, requires_grad=True)
    loss = F.cross_entropy(corrected(logits, 3, *point), labels) + 5e-4 * (point[0] - 1) ** 2 + 0.05 * point[1] ** 2
    (slope,) = torch.autograd.grad(loss, point)
    assert float(slope.abs().max()) < 1e-4
    assert float(loss.detach()) < float(F.cross_entropy(logits, labels))


def test_the_correction_of_separated_classes_is_finite() -> None:
    alpha, beta = fit_correction(torch.tensor([[3.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 1]), 1)
    assert 1 < alpha < 100 and abs(beta) < 100


def test_bic_holds_as_many_images_of_each_class_out_and_trains_on_none_of_them() -> None:
    training, model = second_task("bic", buffer_size=40, held_out=0.1)
    assert model.held.labels.bincount().tolist() == [2] * 4
    assert model.memory.labels.bincount().tolist() == [18] * 2
    assert not model.held.contains(model.memory.images).any()
    dataset, seen = training.shown, []
    model.losses = lambda images, labels: (seen.append(len(labels)), {"x": model.net(images).sum()})[1]
    rows = dataset.train_indices(1)
    raw, labels = dataset.train.pixels(rows), dataset.train.labels[rows]
    model.observe(dataset.normalise(raw), labels, raw)
    new = len(rows) - 4
    assert seen == [new + model.exemplars_with(new)]


def test_bic_corrects_by_images_that_no_task_has_trained_on() -> None:
    training = start("bic", buffer_size=40, held_out=0.1)
    model: Any = train_task(training, 0)
    first = model.held
    assert first.labels.bincount().tolist() == [2, 2]
    model.end_task(training.shown)
    assert model.correction == (1.0, 0.0)  # there is no old class
    assert len(model.memory) == 2 * (20 - 2) and not first.contains(model.memory.images).any()
    assert torch.equal(model.held.images, first.images)
    begin(training, 1)
    assert torch.equal(model.held.part(model.held.labels < 2).images, first.images)
    model.end_task(training.shown)
    assert model.correction != (1.0, 0.0)
    assert torch.equal(model.held.part(model.held.labels < 2).images, first.first_of_each(1).images)


def test_bic_weighs_its_terms_by_the_shares_of_classes_and_corrects_the_teacher() -> None:
    _, model = second_task("bic", classes_per_task="2,3,1")
    images, labels = a_batch(model)
    model.eval()
    model.teacher_correction = (0.5, 1.0)  # all classes of the first task are new ones to the teacher
    losses = model.losses(images, labels)
    logits, old = model.net(images), 0.5 * model.teacher(images) + 1
    kd = -(F.softmax(old / 2, 1) * F.log_softmax(logits[:, :2] / 2, 1)).sum(1).mean()
    assert float(losses["kd"]) == pytest.approx(2 / 5 * float(kd), rel=1e-4)
    assert float(losses["ce"]) == pytest.approx(3 / 5 * float(F.cross_entropy(logits, labels)), rel=1e-4)


def test_bic_classifies_by_corrected_logits() -> None:
    training, model = second_task("bic")
    model.end_task(training.shown)
    images, _ = a_batch(model)
    model.eval()
    alpha, beta = model.correction
    assert (alpha, beta) != (1.0, 0.0)
    logits = model.net(images)
    expected = torch.cat([logits[:, :2], alpha * logits[:, 2:] + beta], 1)
    torch.testing.assert_close(model(images), expected)
    fresh = start("bic").model
    fresh.load_network(model.network_state(), 1)
    fresh.eval()
    torch.testing.assert_close(fresh(images), expected)
