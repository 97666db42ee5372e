"""PMI on a CLIP: what is kept of a task, and what is replayed from it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pmi_cl.inversion.features.statistics import Moments
from pmi_cl.inversion.networks.token_statistics import measure_token_moments
from pmi_cl.utils.run.training import Training
from tests.support.clip_runs import PMI, before_second_task
from tests.support.small_clips import small_clip
from tests.support.small_runs import begin, differences, start, train_task

STILL = {"lr": 1e-30, "warmup_steps": 0}  # a rate at which nothing moves
INVERTED = {"samples_per_class": 4, "pmi_steps": 40, "inv_steps": 60, "full_steps": 100, "smi_steps": 100, "inv_tv": 0}


def images_of(training: Training, task: int) -> Tensor:
    rows = training.dataset.train_indices(task)
    return training.dataset.normalise(training.dataset.train.images[rows])


def test_the_registry_has_the_three() -> None:
    assert {"pmi_vpt", "pmi_codap", "pmi_moe"} <= set(PMI)


# What is kept of a task.


@pytest.mark.parametrize("method", PMI)
def test_the_gaussians_are_those_of_the_features(method: str) -> None:
    training, model = before_second_task(method)
    labels = training.dataset.train.labels[training.dataset.train_indices(0)].numpy()
    with torch.no_grad():
        features = torch.cat([model.image_features(image[None]) for image in images_of(training, 0)]).double().numpy()
    for label in (0, 1):
        own = features[labels == label]
        np.testing.assert_allclose(model.replay.gaussians.mean[label], own.mean(0), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(model.replay.gaussians.std[label], own.std(0), rtol=1e-3, atol=1e-4)


def test_old_gaussians_stay_and_new_ones_follow() -> None:
    training, model = before_second_task("pmi_vpt")
    first, embedded = model.replay.gaussians, model.replay.bank.embed(1, torch.ones(3, 16))
    train_task(training, 1).end_task(training.shown)
    assert torch.equal(model.replay.gaussians.mean[:2], first.mean) and len(model.replay.gaussians) == 4
    assert torch.equal(model.replay.bank.embed(1, torch.ones(3, 16)), embedded)
    assert model.replay.bank.embed(3, torch.ones(3, 16)).shape == (3, 16)


@pytest.mark.parametrize("axis", ["channel", "token"])
def test_moments_of_two_tasks_pool_to_those_of_both(axis: Any) -> None:
    training, model = before_second_task("pmi_vpt", inv_axis=axis, **STILL)
    train_task(training, 1).end_task(training.shown)
    with torch.no_grad():
        maps = model.net.pieces()[0](torch.cat([images_of(training, 0), images_of(training, 1)]))
    expected = measure_token_moments(model.net.pieces()[1:], [maps], axis)
    assert len(model.replay.moments) == len(expected) == 4
    for found, right in zip(model.replay.moments, expected, strict=True):
        assert found.inner.keys() == right.inner.keys()
        for one, other in [
            (found.input, right.input),
            *((found.inner[name], right.inner[name]) for name in right.inner),
        ]:
            assert isinstance(one, Moments) and isinstance(other, Moments) and one.count == other.count
            torch.testing.assert_close(one.mean, other.mean, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(one.var, other.var, rtol=1e-4, atol=1e-5)


def test_queries_have_gaussians_of_their_own() -> None:
    training, model = before_second_task("pmi_codap")
    labels = training.dataset.train.labels[training.dataset.train_indices(0)]
    network = small_clip()
    queries = network.query_from(network.pieces()[0](images_of(training, 0)))
    for label in (0, 1):
        torch.testing.assert_close(
            model.replay.queries.mean[label], queries[labels == label].mean(0), rtol=1e-4, atol=1e-5
        )
    _, _, contexts = model.replay.sample_targets(torch.tensor([0, 1, 1]))
    assert contexts.shape == (3, 32) and torch.equal(
        contexts, model.replay.sample_targets(torch.tensor([0, 1, 1])).contexts
    )


# What is replayed.


@pytest.mark.parametrize("method", PMI)
def test_the_buffer_has_every_old_class_with_the_logits_of_the_model_before(method: str) -> None:
    _, model = before_second_task(method)
    model.current_task = 1
    model.grow()
    model.replay.prepare()
    maps, labels = model.replay.buffer.images, model.replay.buffer.labels
    assert maps.shape == (6, 32, 4, 4) and labels.bincount().tolist() == [3, 3]
    features = torch.cat([model.features_of_maps(one[None]).detach() for one in maps])
    if method == "pmi_codap":
        head = model.learned["head"]
        expected = F.linear(F.normalize(features, dim=1), head.weight, head.bias)[:, :2]
    else:
        text = F.normalize(model.net.encode_text(model.net.tokenize(["a zero.", "a one."])), dim=1)
        expected = math.exp(float(model.net.logit_scale)) * F.normalize(features, dim=1) @ text.T
    torch.testing.assert_close(model.replay.buffer.logits, expected.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("inversion", ["pmi", "full", "smi"])
@pytest.mark.parametrize("method", ["pmi_vpt", "pmi_codap"])
def test_each_inversion_comes_near_the_same_targets(method: str, inversion: str) -> None:
    _, model = before_second_task(method, inversion=inversion, **INVERTED)
    model.current_task = 1
    model.replay.prepare()
    labels = model.replay.buffer.labels
    _, targets, contexts = model.replay.sample_targets(labels)
    other = before_second_task(method, inversion="pmi", **INVERTED)[1]
    other.current_task = 1
    assert torch.equal(other.replay.sample_targets(labels).features, targets)

    def distance(maps: Tensor) -> float:
        with torch.no_grad():
            return float((model.features_of_maps(maps, contexts, model.replay.buffer.kept) - targets).square().mean())

    known = model.replay.moments[0].input
    start_maps = known.mean.view(1, -1, 1, 1) + known.var.sqrt().view(1, -1, 1, 1) * torch.randn(
        model.replay.buffer.images.shape
    )
    assert distance(model.replay.buffer.images) < 0.3 * distance(start_maps)


def test_smi_keeps_few_patches_and_these_are_replayed() -> None:
    _, model = before_second_task("pmi_codap", inversion="smi", smi_steps=8)
    model.current_task = 1
    model.replay.prepare()
    assert model.replay.buffer.kept.shape == (6, 2) and model.inversion_figures()["forward_passes"] > 8
    tokens = model.net.pieces()[1](model.replay.buffer.images)
    few = torch.stack(
        [torch.cat([row[:1], row[1:][kept]]) for row, kept in zip(tokens, model.replay.buffer.kept, strict=True)]
    )
    query = few
    for block in model.net.blocks:
        query = block.block(query)
    query = model.net.pieces()[-1].norm(query[:, 0])
    torch.testing.assert_close(model.replay.buffer.contexts, query.detach(), rtol=1e-4, atol=1e-5)
    for piece in model.net.pieces()[2:]:
        few = piece(few, query)
    torch.testing.assert_close(model.replay.inverter.features_of(model.replay.buffer), few, rtol=1e-4, atol=1e-4)
    fresh: Any = start("pmi_codap").model
    fresh.load_state(model.state())
    assert torch.equal(fresh.replay.buffer.kept, model.replay.buffer.kept) and torch.equal(
        fresh.replay.buffer.contexts, model.replay.buffer.contexts
    )


def test_the_stages_are_the_pieces_from_the_top_then_all() -> None:
    names = []
    _, model = before_second_task("pmi_moe", inv_batch=3)
    model.host.curves = lambda tag, losses: names.extend(losses)
    model.current_task = 1
    model.replay.prepare()
    assert names == ["layer 3", "layer 2", "layer 1", "layer 0", "full model"]
    figures = model.inversion_figures()
    assert figures["images"] == 6 and figures["steps"] == 2 * (4 * 2 + 3)


def test_without_cfs_targets_are_plain_samples() -> None:
    plain, chosen = (before_second_task("pmi_vpt", cfs=cfs)[1] for cfs in (0, 1))
    labels = torch.arange(2).repeat(50)
    assert plain.replay.bank is None and chosen.replay.bank is not None
    for model in (plain, chosen):
        model.current_task = 1
    one, other = plain.replay.sample_targets(labels).features, chosen.replay.sample_targets(labels).features
    assert one.shape == other.shape == (100, 16) and not torch.equal(one, other)


def test_a_class_of_one_image_is_replayed_from_its_mean() -> None:
    training, model = before_second_task("pmi_vpt", train_per_class=1, batch_size=2)
    model.current_task = 1
    assert 0 not in model.replay.bank
    assert torch.equal(model.replay.sample_targets(torch.tensor([0, 1])).features, model.replay.gaussians.mean)
    model.replay.prepare()
    assert (
        model.replay.buffer.images.shape == (6, 32, 4, 4)
        and training.dataset.train.labels.bincount().tolist() == [1] * 6
    )


def test_maps_are_in_a_state_within_a_task_and_not_between_tasks() -> None:
    training, model = before_second_task("pmi_vpt")
    assert model.state()["buffer"] is None
    begin(training, 1)
    kept = model.state()
    fresh: Any = start("pmi_vpt").model
    fresh.load_state(kept)
    assert differences(kept, fresh.state()) == []
    assert fresh.replay.buffer.images.shape == (6, 32, 4, 4)
