"""Test the rules of PMI's released code that the appendix does not have (preset ``code``).

Each is written out beside the code, slowly. Learning rates are in ``test_schedules.py`` and
``test_descent.py``, the best iterate is in ``test_descent.py``, the loss of the head's stage in
``test_replay_losses.py``.
"""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.engine.engine import Inversion
from pmi_cl.inversion.ways.pmi import PmiConfig
from pmi_cl.seeding import seeded
from tests.support.method_runs import WAYS, by_hand
from tests.support.slow_references import hooked_kls
from tests.support.small_inversions import EVERYTHING, finished, inversion
from tests.support.small_networks import two_blocks
from tests.support.small_runs import begin, epochs, start, train_task

# Training.


@pytest.mark.parametrize("train_stem", [0, 1])
def test_the_stem_stays_after_the_first_task(train_stem: int) -> None:
    training = start("pmi_rdfcil", **{**WAYS["unfreezing"], "train_stem": train_stem})
    train_task(training, 0).end_task(training.shown)
    model: Any = begin(training, 1)
    before = {name: value.clone() for name, value in model.net.state_dict().items()}
    for _ in epochs(training, 1):
        pass
    after = model.net.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    stem = {id(value) for value in model.net.pieces()[0].state_dict(keep_vars=True).values()}
    of_stem = {name for name, value in model.net.state_dict(keep_vars=True).items() if id(value) in stem}
    assert len(of_stem) == 6  # a convolution, a BatchNorm
    assert bool(of_stem & moved) == bool(train_stem)
    others = {name for name, _ in model.net.named_parameters()} - of_stem - {"head.tasks.0.weight"}
    assert others <= moved, "all else has trained"


@pytest.mark.parametrize("first", [0, 1])
def test_the_counts_behind_the_class_weights_start_at(first: int) -> None:
    training = start("pmi_rdfcil", first_count=first)
    train_task(training, 0).end_task(training.shown)
    model: Any = begin(training, 1)
    counts = np.full(model.n_seen_classes, float(first))
    for epoch in epochs(training, 1):
        for step, (_, labels, _) in enumerate(training.shown.train_batches(1, epoch, model.options.batch_size)):
            drawn = model.draw_replay(len(labels), epoch, step)[1]
            for label in [*labels.tolist(), *drawn.tolist()]:
                counts[label] += 1
    np.testing.assert_array_equal(model.counts.numpy(), counts)
    share = [counts.sum() / count for count in counts]
    np.testing.assert_allclose(model.class_weights.numpy(), np.array(share) / min(share), rtol=1e-6)


@pytest.mark.parametrize("augmented", [0, 1])
def test_gaussians_of_new_classes_see_augmented_images(augmented: int) -> None:
    """Every image is seen once. Synthetic images of old classes are seen as they are."""
    training = start("pmi_rdfcil", feature_augment=augmented)
    train_task(training, 0).end_task(training.shown)
    model: Any = train_task(training, 1)
    dataset, buffer = training.dataset, model.buffer
    rows = dataset.train_indices(1)
    real = dataset.normalise(dataset.train.images[rows])
    if augmented:
        real = torch.cat(
            [
                dataset.augment(part, seeded(model.args.seed, "features", 1, number))
                for number, part in enumerate(real.split(256))
            ]
        )
    features = by_hand(training, torch.cat([real, buffer.images]))
    labels = torch.cat([dataset.train.labels[rows], buffer.labels]).numpy()
    model.end_task(training.shown)
    for label in range(4):
        own = features[labels == label]
        np.testing.assert_allclose(model.gaussians.mean[label], own.mean(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(model.gaussians.std[label], own.std(0), rtol=1e-3, atol=1e-5)


# Inversion.


def boosted_by_hand(start: Tensor, targets: Tensor, steps: int, lr: float, alpha: float) -> tuple[Tensor, list[float]]:
    """Run the full-model stage as the released code describes it, in float64.

    From the second step on, a term above its first value doubles its weight, up to 10 times. The
    loss that is recorded, and that decides which iterate is the best, is plain. The best iterate is
    stored after the step.
    """
    network = two_blocks().double()
    features_alone = nn.Module()
    features_alone.forward = network.features  # type: ignore[method-assign]
    features_alone.add_module("network", network)
    x = start.double().clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=lr)
    first: tuple[float, float] | None = None
    mse_weight, kl_weight, best, best_loss, losses = 1.0, 1.0, x.detach().clone(), float("inf"), []
    for _ in range(steps):
        features, kls = hooked_kls(features_alone, x)
        mse, kl = F.mse_loss(features, targets.double()), torch.stack(kls).sum()
        now = (float(mse.detach()), float(kl.detach()))
        if first is None:
            first = now
        else:
            mse_weight = min(2 * mse_weight, 10.0) if now[0] > first[0] else mse_weight
            kl_weight = min(2 * kl_weight, 10.0) if now[1] > first[1] else kl_weight
        optimizer.zero_grad()
        (mse_weight * mse + kl_weight * alpha * kl).backward()
        optimizer.step()
        losses.append(now[0] + alpha * now[1])
        if losses[-1] < best_loss:
            best, best_loss = x.detach().clone(), losses[-1]
    assert max(mse_weight, kl_weight) > 1, "something was boosted"
    return best, losses


def test_the_full_stage_boosts_and_keeps_the_iterate_after_its_best_step() -> None:
    config = InversionConfig(steps=14, lr=1.5, batch=8, boost=True, keep_best=True, precision=torch.float64)
    whole = inversion(config, n=8)
    begun = whole.plan.first_coordinates(0)
    losses = [float(progress.loss) for progress in whole.run()]
    assert whole.plan.targets is not None
    images, expected = boosted_by_hand(begun, whole.plan.targets, 14, 1.5, 1.6)
    assert losses == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(whole.images().double(), images, rtol=1e-3, atol=1e-3)
    plain = [float(progress.loss) for progress in inversion(replace(config, boost=False), n=8).run()]
    assert plain != pytest.approx(expected, rel=1e-3)


IN_PARTS = replace(EVERYTHING, start="pmi", batch=2, boost=True, pmi=PmiConfig(steps=3, boost=True, batch=6))


def test_pmi_takes_more_targets_at_once_than_the_full_stage() -> None:
    """Ten targets are two batches of five for PMI, each of three parts for the full model."""
    whole = finished(IN_PARTS)
    assert [(rows.start, rows.stop) for rows in whole.plan.batches] == [(0, 5), (5, 10)]
    names = ["layer 2", "layer 1", "layer 0", "full model", "full model part 2", "full model part 3"]
    assert [entry["stage"] for entry in whole.report.losses] == 2 * names
    assert whole.total_steps == whole.report.steps == 2 * (3 * 3 + 3 * 5)
    layers = [entry["losses"].tolist() for entry in whole.report.losses if entry["stage"].startswith("layer")]
    at_once = finished(replace(IN_PARTS, batch=5))
    assert layers == [e["losses"].tolist() for e in at_once.report.losses if e["stage"].startswith("layer")]
    assert at_once.report.step_equivalents == pytest.approx(whole.report.step_equivalents)


def test_each_part_goes_on_from_its_own_images_to_its_own_targets() -> None:
    plain = replace(IN_PARTS, terms=InversionConfig().terms, transforms=InversionConfig().transforms, keep_best=False)
    begun = finished(replace(plain, steps=0)).images()
    whole = finished(plain)
    for rows in (slice(0, 1), slice(3, 5), slice(6, 8)):
        alone = inversion(replace(plain, start=lambda shape, generator, rows=rows: begun[rows]), n=10)
        network, config = alone.problem.network, replace(alone.problem.config, batch=10)
        targets = alone.problem.targets
        assert targets is not None
        problem = replace(alone.problem, network=network, config=config, targets=targets[rows], labels=None)
        one = Inversion(problem)
        for _ in one.run():
            pass
        torch.testing.assert_close(whole.images()[rows], one.images(), rtol=1e-4, atol=1e-5)


def test_an_inversion_in_parts_resumes_at_every_step() -> None:
    whole = finished(IN_PARTS)
    for stop in (14, 17, 24):  # between two parts, in a part, between two batches
        first, second = inversion(IN_PARTS), inversion(IN_PARTS)
        steps = first.run()
        for _ in range(stop):
            next(steps)
        file = io.BytesIO()
        torch.save(first.state(), file)
        file.seek(0)
        second.load(torch.load(file, weights_only=True))
        assert [progress.done for progress in second.run()] == list(range(stop + 1, whole.total_steps + 1))
        assert torch.equal(second.images(), whole.images())
