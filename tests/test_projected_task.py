"""Test the last task without images.

Its images are never looked at. It has its own targets and its own schedule, and it is learned.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pmi_cl.errors import UserError
from pmi_cl.inversion.features.projection import projected_features
from pmi_cl.models.clip.map_replay import MapReplay
from pmi_cl.models.run_outline import RunOutline
from pmi_cl.seeding import mix, seeded
from pmi_cl.utils.arguments.command_line import resolve
from tests.support.slow_references import clip_losses
from tests.support.small_clips import small_clip
from tests.support.small_runs import (
    CLIP_METHODS,
    StoppingHost,
    begin,
    differences,
    finished,
    finished_in_pieces,
    start,
    train_task,
    untouched,
    words_of,
)

METHODS = [method for method in CLIP_METHODS if isinstance(untouched(method).model.replay, MapReplay)]
WITHOUT = {"synthetic_last_task": 1, "projection_samples": 6, "projection_repeats": 4, "projection_epochs": 2}
TWO = {"n_classes": 4, "n_tasks": 2}


def before_the_last_task(method: str, **flags: Any) -> tuple[Any, Any]:
    """Train and measure the first task, and leave the second without images.

    The method is in evaluation mode.
    """
    training = start(method, **{**TWO, **WITHOUT, **flags})
    model = train_task(training, 0).eval()
    model.end_task(training.shown)
    return training, model


@pytest.mark.parametrize("method", METHODS)
def test_what_is_kept_for_it_is_of_the_bare_clip(method: str) -> None:
    training, model = before_the_last_task(method)
    rows = training.dataset.train_indices(0)
    with torch.no_grad():
        features = small_clip().features(training.dataset.normalise(training.dataset.train.images[rows]))
    labels = training.dataset.train.labels[rows]
    torch.testing.assert_close(
        model.replay.projected.bare_gaussians.mean[1], features[labels == 1].mean(0), rtol=1e-4, atol=1e-4
    )
    assert not torch.allclose(model.replay.projected.bare_gaussians.mean, model.replay.gaussians.mean)
    assert all(
        block.prompt is not None or block.prefix is not None or block.adapter is not None for block in model.net.blocks
    )


def test_nothing_is_kept_where_no_task_needs_it() -> None:
    training = start("pmi_vpt", **TWO)
    train_task(training, 0).end_task(training.shown)
    assert training.model.replay.projected.bare_gaussians is None and not training.model.replay.projected.bare_moments


@pytest.mark.parametrize("method", METHODS)
def test_its_maps_come_near_the_projected_features_on_the_bare_clip(method: str) -> None:
    training, model = before_the_last_task(method, pmi_steps=40, inv_steps=60)
    begin(training, 1)
    labels, maps = model.replay.projected.samples.labels, model.replay.projected.samples.images
    assert labels.bincount().tolist() == [0, 0, 6, 6]
    texts = F.normalize(small_clip().encode_text(model.classifier.texts.tokens[:4]), dim=1).detach()
    seed = mix(model.args.seed, "projected")
    targets = projected_features(
        model.replay.projected.bare_gaussians, texts[:2], texts[2:], labels - 2, seed, top_k=5, alpha=0.1
    )
    with torch.no_grad():
        features = F.normalize(small_clip().features_from(maps, 1), dim=1)
        noise = F.normalize(small_clip().features_from(torch.randn_like(maps), 1), dim=1)
    found, from_noise = (float((1 - (one * targets).sum(1)).mean()) for one in (features, noise))
    assert found < 0.1 * from_noise  # a random tower gives all images much the same feature


@pytest.mark.parametrize("method", METHODS)
def test_its_images_are_never_looked_at(method: str) -> None:
    plain, changed = (start(method, **TWO, **WITHOUT) for _ in range(2))
    changed.dataset.train.images[changed.dataset.train_indices(1)] = 77
    for training in (plain, changed):
        training.run()
    assert differences(plain.state(), changed.state()) == []
    control = [start(method, **TWO) for _ in range(2)]
    control[1].dataset.train.images[control[1].dataset.train_indices(1)] = 77
    for training in control:
        training.run()
    assert differences(control[0].state(), control[1].state()) != []


def test_its_epochs_batches_and_rates_are_its_own() -> None:
    training, model = before_the_last_task("pmi_vpt", batch_size=16, projection_lr=0.01)
    assert (model.n_epochs(), model.steps_per_epoch()) == (4, 3)
    begin(training, 1)
    assert (model.n_epochs(), model.steps_per_epoch()) == (2, 12 * 4 // 16)
    assert isinstance(model.opt, torch.optim.AdamW)
    batches = list(model.train_batches(0))
    assert [len(labels) for _, labels, _ in batches] == [16, 16, 16]
    seen = torch.cat([labels for _, labels, _ in batches])
    assert seen.bincount().tolist() == [0, 0, 24, 24]  # each of the twelve four times
    own = model.replay.projected.samples
    assert all(torch.equal(own.labels[rows], labels) and len(rows) == 16 for rows, labels, _ in batches)
    assert torch.cat([rows for rows, _, _ in batches]).bincount().tolist() == [4] * 12
    assert torch.equal(next(model.train_batches(0, start=2))[0], batches[2][0])
    assert not torch.equal(next(model.train_batches(1))[0], batches[0][0])
    rates = [model.plan().rate(epoch, step) for epoch in range(2) for step in range(3)]
    assert rates == pytest.approx(
        [0.01 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * done / 6)).item()) for done in range(6)]
    )


@pytest.mark.parametrize(("task_factors", "plastic", "stable"), [(1, 1.630930, 1.584963), (0, 1.0, 1.0)])
@pytest.mark.parametrize("method", METHODS)
def test_its_losses_have_weights_of_their_own(method: str, task_factors: int, plastic: float, stable: float) -> None:
    """With 4 new and 4 old classes a = log2(4/2 + 1) = 1.584963 and b = 1.

    The texts' cross-entropy keeps its weight.
    """
    flags = {
        "n_classes": 8,
        "task_factors": task_factors,
        "lambda_ce": 0.7,
        "lambda_hkd": 0.9,
        "projection_hkd": 0.4,
        "replay_batch": 8,
    }
    flags |= {
        "lambda_tkd": 0.9,
        "projection_tkd": 0.6,
        "lambda_tft": 0.05,
        "warmup_steps": 0,
        "n_epochs": 1,
        "train_per_class": 8,
    }
    training, model = before_the_last_task(method, **flags)
    train_task_without_images(model, training)
    inputs, labels, _ = next(model.train_batches(0))
    found = model.losses(inputs, labels, 0, 0)
    maps, *old = model.replay.buffer.draw(8, seeded(model.args.seed, "draw", 1, 0, 0))
    weights = {"ce": 0.7 * plastic, "hkd": 0.4 * stable}
    if method == "pmi_moe":
        weights |= {"tkd": 0.6 * stable, "tft": 0.05}
    features = model.plan().features(inputs), model.features_of_maps(maps)
    expected = clip_losses(model, (features[0], labels), (features[1], *old), 4, weights)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float(value.detach()) > 1e-5, name
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-8, msg=name)


def train_task_without_images(model: Any, training: Any) -> None:
    """Take some steps of the last task, by which what is learned leaves its teacher.

    The method is in evaluation mode afterwards, without the noise of a gate.
    """
    begin(training, 1)
    model.set_modes()
    for step, batch in enumerate(model.train_batches(0)):
        model.observe(*batch, epoch=0, step=step)
    model.eval()


@pytest.mark.parametrize("part", [0.3, 0.8])
@pytest.mark.parametrize("method", METHODS)
def test_goes_on_bit_for_bit_from_within_it(method: str, part: float, tmp_path: Path) -> None:
    """It is stopped in the inversion of the old classes, in that of the new ones, and in its
    epochs.
    """
    flags = {**TWO, **WITHOUT}
    whole = start(method, StoppingHost(), **flags)
    whole.run()
    passed = whole.host.passed  # type: ignore[attr-defined]
    stops = {
        (place, int(part * count) + 1)
        for place, count in passed.items()
        if place[0] == 1 and place[1] in ("prepare", "train")
    }
    in_pieces, pieces = finished_in_pieces(method, tmp_path, stops, **flags)
    assert pieces == len(stops) >= 3
    assert differences(whole.state(), in_pieces.state()) == []


def test_a_single_task_has_none_before_it() -> None:
    run = resolve(words_of("pmi_vpt", n_classes=2, n_tasks=1, synthetic_last_task=1))
    with pytest.raises(UserError, match="--n_tasks 2 or more"):
        type(start("pmi_vpt").model).check(run.args, RunOutline(2, 1))


def test_old_classes_are_inverted_only_where_a_loss_looks_at_them() -> None:
    for method, hkd, replayed in (("pmi_vpt", 0.0, False), ("pmi_vpt", 0.1, True), ("pmi_moe", 0.0, True)):
        training, model = before_the_last_task(method, projection_hkd=hkd)
        begin(training, 1)
        assert (model.replay.buffer is not None) == replayed and model.replay.projected.samples is not None
        model.set_modes()
        assert ("hkd" in model.observe(*next(model.train_batches(0)))) == replayed


def test_patches_that_smi_dropped_are_not_trained_on() -> None:
    training, model = before_the_last_task("pmi_vpt", inversion="smi", smi_steps=8)
    begin(training, 1)
    rows = torch.arange(4)
    features = model.plan().features(rows)
    new = model.replay.projected.samples
    spoiled = new.images.clone()
    spoiled.flatten(2).scatter_(2, dropped(new.kept)[:, None].expand(-1, 32, -1), 7.0)
    model.replay.projected.samples = replace(new, images=spoiled)
    torch.testing.assert_close(model.plan().features(rows), features)


def dropped(kept: Tensor) -> Tensor:
    """Return the patches (n, 16 - k) that are not kept."""
    return torch.ones(len(kept), 16).scatter_(1, kept, 0.0).nonzero()[:, 1].view(len(kept), -1)


def test_earlier_tasks_are_learned_as_without_it() -> None:
    one, other = (finished("pmi_vpt", **TWO, **flags) for flags in ({}, WITHOUT))
    assert one.class_il[0] == other.class_il[0]
