"""PMI on a CLIP: what is kept of a task, what is replayed from it, the losses written out, and the three ways to invert."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pmi_cl.backbones.clip_backbones import NAMES
from pmi_cl.backbones.clip_pieces import PatchConv, bare
from pmi_cl.backbones.clip_plan import MODELS
from pmi_cl.backbones.open_clip_library import open_clip_module
from pmi_cl.errors import UserError
from pmi_cl.inversion.features.statistics import Moments
from pmi_cl.inversion.features.token_statistics import measure_token_moments
from pmi_cl.models.clip.pmi_clip import FEATURES, LARGEST_FEATURE, LARGEST_MAP, MAP_VALUES, PmiClip
from pmi_cl.models.continual_model import RunOutline
from pmi_cl.seeding import seeded
from pmi_cl.utils.arguments.command_line import resolve
from pmi_cl.utils.run.preflight import preflight
from pmi_cl.utils.run.training import Training
from tests.support.slow_references import clip_losses
from tests.support.small_clips import small_clip
from tests.support.small_runs import CLIP_METHODS, begin, differences, start, train_task, words_of

PMI = [method for method in CLIP_METHODS if isinstance(start(method).model, PmiClip)]
STILL = {"lr": 1e-30, "warmup_steps": 0}  # a rate at which nothing moves
INVERTED = {"samples_per_class": 4, "pmi_steps": 40, "inv_steps": 60, "full_steps": 100, "smi_steps": 100, "inv_tv": 0}


def before_second_task(method: str, **flags: Any) -> tuple[Training, Any]:
    """The first task is learned and measured; the method is in evaluation mode."""
    training = start(method, **flags)
    model = train_task(training, 0).eval()
    model.end_task(training.shown)
    return training, model


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
        np.testing.assert_allclose(model.gaussians.mean[label], own.mean(0), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(model.gaussians.std[label], own.std(0), rtol=1e-3, atol=1e-4)


def test_old_gaussians_stay_and_new_ones_follow() -> None:
    training, model = before_second_task("pmi_vpt")
    first, embedded = model.gaussians, model.bank.embed(1, torch.ones(3, 16))
    train_task(training, 1).end_task(training.shown)
    assert torch.equal(model.gaussians.mean[:2], first.mean) and len(model.gaussians) == 4
    assert torch.equal(model.bank.embed(1, torch.ones(3, 16)), embedded)
    assert model.bank.embed(3, torch.ones(3, 16)).shape == (3, 16)


@pytest.mark.parametrize("axis", ["channel", "token"])
def test_moments_of_two_tasks_pool_to_those_of_both(axis: Any) -> None:
    training, model = before_second_task("pmi_vpt", inv_axis=axis, **STILL)
    train_task(training, 1).end_task(training.shown)
    with torch.no_grad():
        maps = model.net.pieces()[0](torch.cat([images_of(training, 0), images_of(training, 1)]))
    expected = measure_token_moments(model.net.pieces()[1:], [maps], axis)
    assert len(model.moments) == len(expected) == 4
    for found, right in zip(model.moments, expected, strict=True):
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
        torch.testing.assert_close(model.queries.mean[label], queries[labels == label].mean(0), rtol=1e-4, atol=1e-5)
    _, contexts = model.sample_targets(torch.tensor([0, 1, 1]))
    assert contexts.shape == (3, 32) and torch.equal(contexts, model.sample_targets(torch.tensor([0, 1, 1]))[1])


# What is replayed.


@pytest.mark.parametrize("method", PMI)
def test_the_buffer_has_every_old_class_with_the_logits_of_the_model_before(method: str) -> None:
    _, model = before_second_task(method)
    model.current_task = 1
    model.grow()
    model.prepare()
    maps, labels = model.buffer.images, model.buffer.labels
    assert maps.shape == (6, 32, 4, 4) and labels.bincount().tolist() == [3, 3]
    features = torch.cat([model.features_of_maps(one[None]).detach() for one in maps])
    if method == "pmi_codap":
        head = model.learned["head"]
        expected = F.linear(F.normalize(features, dim=1), head.weight, head.bias)[:, :2]
    else:
        text = F.normalize(model.net.encode_text(model.net.tokenize(["a zero.", "a one."])), dim=1)
        expected = math.exp(float(model.net.logit_scale)) * F.normalize(features, dim=1) @ text.T
    torch.testing.assert_close(model.buffer.logits, expected.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("inversion", ["pmi", "full", "smi"])
@pytest.mark.parametrize("method", ["pmi_vpt", "pmi_codap"])
def test_each_inversion_comes_near_the_same_targets(method: str, inversion: str) -> None:
    _, model = before_second_task(method, inversion=inversion, **INVERTED)
    model.current_task = 1
    model.prepare()
    labels = model.buffer.labels
    targets, contexts = model.sample_targets(labels)
    other = before_second_task(method, inversion="pmi", **INVERTED)[1]
    other.current_task = 1
    assert torch.equal(other.sample_targets(labels)[0], targets)

    def distance(maps: Tensor) -> float:
        with torch.no_grad():
            return float((model.features_of_maps(maps, contexts, model.buffer.kept) - targets).square().mean())

    known = model.moments[0].input
    start_maps = known.mean.view(1, -1, 1, 1) + known.var.sqrt().view(1, -1, 1, 1) * torch.randn(
        model.buffer.images.shape
    )
    assert distance(model.buffer.images) < 0.3 * distance(start_maps)


def test_smi_keeps_a_quarter_of_the_patches_and_these_are_replayed() -> None:
    _, model = before_second_task("pmi_codap", inversion="smi", smi_steps=8)
    model.current_task = 1
    model.prepare()
    assert model.buffer.kept.shape == (6, 4) and model.inversion_figures()["forward_passes"] > 8
    tokens = model.net.pieces()[1](model.buffer.images)
    few = torch.stack(
        [torch.cat([row[:1], row[1:][kept]]) for row, kept in zip(tokens, model.buffer.kept, strict=True)]
    )
    query = few
    for block in model.net.blocks:
        query = block.block(query)
    torch.testing.assert_close(model.buffer.contexts, query[:, 0].detach(), rtol=1e-4, atol=1e-5)
    for piece in model.net.pieces()[2:]:
        few = piece(few, query[:, 0])
    torch.testing.assert_close(model.features_of_samples(model.buffer), few, rtol=1e-4, atol=1e-4)
    fresh: Any = start("pmi_codap").model
    fresh.load_state(model.state())
    assert torch.equal(fresh.buffer.kept, model.buffer.kept) and torch.equal(
        fresh.buffer.contexts, model.buffer.contexts
    )


def test_the_stages_are_the_pieces_from_the_top_then_all() -> None:
    names = []
    _, model = before_second_task("pmi_moe", inv_batch=3)
    model.host.curves = lambda tag, losses: names.extend(losses)
    model.current_task = 1
    model.prepare()
    assert names == ["layer 3", "layer 2", "layer 1", "layer 0", "full model"]
    figures = model.inversion_figures()
    assert figures["images"] == 6 and figures["steps"] == 2 * (4 * 2 + 3)


def test_without_cfs_targets_are_plain_samples() -> None:
    plain, chosen = (before_second_task("pmi_vpt", cfs=cfs)[1] for cfs in (0, 1))
    labels = torch.arange(2).repeat(50)
    assert plain.bank is None and chosen.bank is not None
    for model in (plain, chosen):
        model.current_task = 1
    one, other = plain.sample_targets(labels)[0], chosen.sample_targets(labels)[0]
    assert one.shape == other.shape == (100, 16) and not torch.equal(one, other)


# The losses of a step.


THIRD = {"n_classes": 9, "n_tasks": 3, "train_per_class": 8, "n_epochs": 1, "warmup_steps": 0}
LAMBDAS = {"lambda_ce": 0.7, "lambda_hkd": 0.3, "lambda_tkd": 0.2, "lambda_tft": 0.05}


@pytest.mark.parametrize(("task_factors", "plastic", "stable"), [(1, 1.242013, 1.869490), (0, 1.0, 1.0)])
@pytest.mark.parametrize("method", PMI)
def test_a_step_minimises_the_losses_of_the_paper(
    method: str, task_factors: int, plastic: float, stable: float
) -> None:
    """With 3 new and 6 old classes a = log2(3/2 + 1) = 1.321928 and b = sqrt(6/3) = 1.414214: CE is scaled by (1 + 1/a) / b, the
    distillations by a b, the texts' cross-entropy not at all."""
    training = start(method, task_factors=task_factors, **THIRD, **LAMBDAS)
    for task in (0, 1):
        train_task(training, task).end_task(training.shown)
    model: Any = train_task(training, 2).eval()  # in training the gate of a mixture is noisy
    inputs, labels, _ = next(training.shown.train_batches(2, 0, 16))
    found = model.losses(inputs, labels, 0, 0)
    maps, *old = model.buffer.draw(8, seeded(model.args.seed, "draw", 2, 0, 0))
    weights = {"ce": 0.7 * plastic, "hkd": 0.3 * stable}
    if method == "pmi_moe":
        weights |= {"tkd": 0.2 * stable, "tft": 0.05}
    features = model.image_features(inputs), model.features_of_maps(maps)
    expected = clip_losses(model, (features[0], labels), (features[1], *old), 6, weights)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float(value.detach()) > 1e-5, name
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-8, msg=name)


@pytest.mark.parametrize(
    ("loss", "moved"), [("hkd", {"image", "text"}), ("tkd", {"text"}), ("tft", {"text"}), ("ce", {"image", "text"})]
)
def test_each_loss_moves_its_towers(loss: str, moved: set[str]) -> None:
    training, _ = before_second_task("pmi_moe")
    model: Any = train_task(training, 1)
    inputs, labels, _ = next(training.shown.train_batches(1, 0, 16))
    found = set()
    for tower in ("image", "text"):
        value = model.losses(inputs, labels, 0, 0)[loss]
        grads = torch.autograd.grad(value, list(model.learned[tower].parameters()), allow_unused=True)
        found |= {tower} if any(grad is not None and bool(grad.abs().sum()) for grad in grads) else set()
    assert found == moved and not model.old_text.requires_grad


# Its parts.


def test_bare_blocks_get_back_what_was_added() -> None:
    model: Any = start("pmi_codap").model
    images = torch.rand(2, 3, 16, 16)
    before = [(block.prompt, block.prefix, block.adapter) for block in model.net.blocks]
    assert any(prefix is not None for _, prefix, _ in before)
    with pytest.raises(RuntimeError, match="stop"), bare(model.net.blocks):
        with torch.no_grad():
            assert torch.equal(model.net.features(images), small_clip().features(images))
        raise RuntimeError("stop")
    assert [(block.prompt, block.prefix, block.adapter) for block in model.net.blocks] == before


def test_the_nearest_image_of_a_maps_image_is_that_image() -> None:
    convolution = small_clip(width=64).pieces()[0]  # as many channels as a patch has values, or more
    assert isinstance(convolution, PatchConv)
    images = torch.randn(2, 3, 16, 16, generator=seeded(1))
    with torch.no_grad():
        maps = convolution(images)
        torch.testing.assert_close(convolution.nearest_images(maps), images, rtol=1e-3, atol=1e-4)
        off = maps + torch.randn(maps.shape, generator=seeded(2))
        nearest = convolution.nearest_images(off)
        gap = (convolution(nearest) - off).square().sum()
        for seed in range(5):
            other = nearest + 0.05 * torch.randn(nearest.shape, generator=seeded(seed))
            assert (convolution(other) - off).square().sum() > gap


def test_the_room_for_maps_is_that_of_the_networks() -> None:
    config = open_clip_module("factory").get_model_config

    def of(model: str) -> tuple[int, int]:
        vision = config(model)["vision_cfg"]
        return vision["width"] * (vision["image_size"] // vision["patch_size"]) ** 2, config(model)["embed_dim"]

    assert all((MAP_VALUES[name], FEATURES[name]) == of(MODELS[name]) for name in MODELS)
    others = [of(name.removeprefix("clip:")) for name in NAMES]
    assert max(values for values, _ in others) <= LARGEST_MAP and max(dim for _, dim in others) <= LARGEST_FEATURE


# What does not fit.


def test_tokens_that_are_dropped_have_no_statistics_of_their_own() -> None:
    run = resolve(words_of("pmi_vpt", inversion="smi", inv_axis="token"))
    with pytest.raises(UserError, match="say --inv_axis channel"):
        type(start("pmi_vpt").model).check(run.args, RunOutline(10, 5))


def test_grids_of_a_preset_can_be_taken_back() -> None:
    words = ["--model", "pmi_vpt", "--dataset", "seq-cifar100", "--model_config", "code"]
    assert resolve(words).args.pmi_grids == (2, 4, 8, 14)
    assert resolve([*words, "--pmi_grids", "none"]).args.pmi_grids == ()


def test_a_grid_finer_than_the_map_is_refused() -> None:
    """clip-tiny's is 4 x 4; what a preset has is no exception, as it would be optimised for nothing."""
    preflight(resolve(words_of("pmi_vpt", pmi_grids="2,4")))
    for grids, fitting in (("9", "none"), ("2,4,8,14", "2,4")):
        with pytest.raises(
            UserError, match=f"--pmi_grids {grids}: the map of clip-tiny is 4 x 4: say --pmi_grids {fitting}$"
        ):
            preflight(resolve(words_of("pmi_vpt", pmi_grids=grids)))


def test_grids_become_finer() -> None:
    run = resolve(words_of("pmi_vpt", pmi_grids="4,2"))
    with pytest.raises(UserError, match="--pmi_grids 4,2: give them from the coarsest to the finest"):
        type(start("pmi_vpt").model).check(run.args, RunOutline(10, 5))


def test_what_a_coarse_grid_shows_is_what_is_handed_down() -> None:
    _, model = before_second_task("pmi_vpt", pmi_grids="2", pmi_steps=3, inv_steps=1, inv_lr=1e-30)
    model.current_task = 1
    model.prepare()
    corners = model.buffer.images[:, :, [0, 0, 3, 3], [0, 3, 0, 3]].unflatten(
        2, (2, 2)
    )  # bilinear: the corners are the four cells
    shown = F.interpolate(corners, size=(4, 4), mode="bilinear", align_corners=False)
    torch.testing.assert_close(model.buffer.images, shown, rtol=1e-4, atol=1e-5)


EVERYWHERE = {
    "samples_per_class": 5,
    "pmi_steps": 200,
    "inv_steps": 600,
    "full_steps": 3400,
    "smi_steps": 4000,
    "pmi_lr": 0.1,
}
EVERYWHERE |= {
    "inv_tv": 0.005,
    "lambda_hkd": 0.1,
    "lambda_ce": 1.0,
    "cont_epochs": 200,
    "cont_lr": 0.01,
    "cfs_steps": 5,
}
EVERYWHERE |= {
    "projection_top": 5,
    "projection_mix": 0.1,
    "projection_inv_lr": 0.1,
    "class_order": "np1993",
    "inv_batch": 20,
}
PAPER = {
    "inv_lr": 0.1,
    "inv_schedule": "constant",
    "pmi_lowest_steps": None,
    "pmi_grids": (),
    "cont_optimizer": "sgd",
    "inv_axis": "channel",
}
CODE = {
    "inv_schedule": "cosine",
    "inv_schedule_steps": 2000,
    "pmi_lowest_steps": 1200,
    "pmi_grids": (2, 4, 8, 14),
    "cont_optimizer": "adam",
}
CODE |= {"inv_axis": "token", "cont_keep_best": True}
BY_SET: dict[tuple[str, str], dict[str, Any]] = {
    ("paper", "seq-cifar100"): {"inv_alpha": 0.002, "pmi_alpha": 0.002, "cfs_ratio": 0.5, "cfs_boost": 20},
    ("paper", "seq-imagenet-r"): {"inv_alpha": 0.002, "pmi_alpha": 0.002, "cfs_ratio": 0.5, "cfs_boost": 20},
    ("paper", "seq-cub200"): {"inv_alpha": 0.2, "pmi_alpha": 0.2, "cfs_ratio": 0.5, "cfs_boost": 20},
    ("code", "seq-cifar100"): {
        "inv_alpha": 0.002,
        "pmi_alpha": 0.03,
        "inv_lr": 0.01,
        "cfs_ratio": 0.5,
        "cfs_boost": 20,
    },
    ("code", "seq-imagenet-r"): {
        "inv_alpha": 0.002,
        "pmi_alpha": 0.03,
        "inv_lr": 0.01,
        "cfs_ratio": 0.2,
        "cfs_boost": 50,
    },
    ("code", "seq-cub200"): {"inv_alpha": 0.2, "pmi_alpha": 3.0, "inv_lr": 0.02, "cfs_ratio": 0.5, "cfs_boost": 20},
}
TABLE_9 = {  # PMI's Table 9: rate, epochs, optimiser; and for MoE-Adapters the weights of TKD and TFT
    "pmi_vpt": {"seq-cifar100": (0.02, 5, "sgd"), "seq-imagenet-r": (0.01, 5, "sgd"), "seq-cub200": (0.02, 5, "sgd")},
    "pmi_codap": {"seq-cifar100": (0.1, 5, "sgd"), "seq-imagenet-r": (0.1, 5, "sgd"), "seq-cub200": (0.1, 5, "sgd")},
    "pmi_moe": {
        "seq-cifar100": (0.001, 3, "adamw", 0.2, 0.001),
        "seq-imagenet-r": (0.001, 3, "adamw", 0.2, 0.001),
        "seq-cub200": (0.001, 10, "adamw", 0.1, 0.1),
    },
}


@pytest.mark.parametrize("method", TABLE_9)
@pytest.mark.parametrize(("preset", "dataset"), BY_SET)
def test_the_presets_are_the_appendix_and_the_released_code(method: str, preset: str, dataset: str) -> None:
    args = resolve(["--model", method, "--dataset", dataset, "--model_config", preset]).args
    trained = dict(
        zip(("lr", "n_epochs", "optimizer", "lambda_tkd", "lambda_tft"), TABLE_9[method][dataset], strict=False)
    )
    wanted = {**EVERYWHERE, **(PAPER if preset == "paper" else CODE), **BY_SET[preset, dataset], **trained}
    assert {name: getattr(args, name) for name in wanted} == wanted


def test_a_class_of_one_image_is_replayed_from_its_mean() -> None:
    training, model = before_second_task("pmi_vpt", train_per_class=1, batch_size=2)
    model.current_task = 1
    assert 0 not in model.bank
    assert torch.equal(model.sample_targets(torch.tensor([0, 1]))[0], model.gaussians.mean)
    model.prepare()
    assert model.buffer.images.shape == (6, 32, 4, 4) and training.dataset.train.labels.bincount().tolist() == [1] * 6


def test_maps_are_in_a_state_within_a_task_and_not_between_tasks() -> None:
    training, model = before_second_task("pmi_vpt")
    assert model.state()["buffer"] is None
    begin(training, 1)
    kept = model.state()
    fresh: Any = start("pmi_vpt").model
    fresh.load_state(kept)
    assert differences(kept, fresh.state()) == []
    assert fresh.buffer.images.shape == (6, 32, 4, 4)
