"""Test what the presets of PMI on a CLIP mean: how a run of each trains, inverts and selects.

The numbers are those of PMI's appendices C and I.2 and of its Table 9 (``paper``), and of the
released code (``code``).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pmi_cl.datasets.task_split import split_classes
from pmi_cl.inversion.features.contrastive import ContrastiveConfig
from pmi_cl.inversion.features.selection import SelectionConfig
from pmi_cl.inversion.networks.token_network import TokenNetwork
from pmi_cl.inversion.objectives import DirectionalTV, FeatureMatch, StatisticsMatch
from pmi_cl.inversion.transforms import Transforms
from pmi_cl.utils.arguments.command_line import resolve
from tests.support.preset_runs import PMI_CLIP_METHODS, built, different_options, small_run
from tests.support.small_runs import begin

# In which items the released code differs from the appendix: one line for each row of the
# decision register.
RELEASED = {
    "inv_axis",
    *("inv_lr", "inv_schedule", "inv_schedule_steps"),
    *("pmi_alpha", "pmi_lowest_steps", "pmi_grids"),
    *("cont_optimizer", "cont_keep_best"),
}
# The weight of the statistics in a layer and in the whole tower, and the rate at which the whole
# is inverted.
STATISTICS = {
    ("paper", "seq-cifar100"): (0.002, 0.002, 0.1),
    ("paper", "seq-imagenet-r"): (0.002, 0.002, 0.1),
    ("paper", "seq-cub200"): (0.2, 0.2, 0.1),
    ("code", "seq-cifar100"): (0.03, 0.002, 0.01),
    ("code", "seq-imagenet-r"): (0.03, 0.002, 0.01),
    ("code", "seq-cub200"): (3.0, 0.2, 0.02),
}


@pytest.mark.parametrize("method", PMI_CLIP_METHODS)
@pytest.mark.parametrize(
    ("dataset", "more"),
    [("seq-cifar100", set()), ("seq-cub200", set()), ("seq-imagenet-r", {"cfs_ratio", "cfs_boost"})],
)
def test_presets_differ_where_their_sources_do(method: str, dataset: str, more: set[str]) -> None:
    assert different_options(method, "paper", "code", dataset) == RELEASED | more


@pytest.mark.parametrize("preset", ["paper", "code"])
def test_classes_come_in_the_order_of_numpys_seed_1993(preset: str) -> None:
    args = resolve(["--model", "pmi_vpt", "--dataset", "seq-cifar100", "--model_config", preset]).args
    assert (args.class_order, args.n_tasks, args.batch_size) == ("np1993", 10, 64)


# Training.

TABLE_9 = {  # the rate, the epochs; for the mixture of adapters the weights of text distillation and text tuning, too
    ("pmi_vpt", "seq-cifar100"): (0.02, 5),
    ("pmi_vpt", "seq-imagenet-r"): (0.01, 5),
    ("pmi_vpt", "seq-cub200"): (0.02, 5),
    ("pmi_codap", "seq-cifar100"): (0.1, 5),
    ("pmi_codap", "seq-imagenet-r"): (0.1, 5),
    ("pmi_codap", "seq-cub200"): (0.1, 5),
    ("pmi_moe", "seq-cifar100"): (0.001, 3, 0.2, 0.001),
    ("pmi_moe", "seq-imagenet-r"): (0.001, 3, 0.2, 0.001),
    ("pmi_moe", "seq-cub200"): (0.001, 10, 0.1, 0.1),
}


@pytest.mark.parametrize("preset", ["paper", "code"])
@pytest.mark.parametrize(("method", "dataset"), TABLE_9)
def test_a_task_is_trained_as_table_9_says(method: str, dataset: str, preset: str) -> None:
    """Prompts are trained by SGD with momentum 0.9, adapters by AdamW, without weight decay.

    Adapters warm up for 30 steps.
    """
    lr, epochs, *text = TABLE_9[method, dataset]
    model: Any = begin(small_run(method, preset, dataset), 0)
    (group,) = model.opt.param_groups
    assert isinstance(model.opt, torch.optim.AdamW) == (method == "pmi_moe")
    assert method == "pmi_moe" or group["momentum"] == 0.9
    assert (group["lr"], group["weight_decay"], model.n_epochs()) == (lr, 0.0, epochs)
    assert (model.options.warmup_steps, model.options.lr_schedule) == (30 if method == "pmi_moe" else 0, "cosine")
    assert (model.options.lambda_ce, model.options.lambda_hkd) == (1.0, 0.1)
    assert method != "pmi_moe" or [model.options.lambda_tkd, model.options.lambda_tft] == text


@pytest.mark.parametrize(
    ("method", "preset", "dataset", "lr", "weight_decay"),
    [
        ("vpt", "paper", "seq-cifar100", 0.02, 0.0),
        ("coda_prompt", "paper", "seq-cifar100", 0.1, 0.0),
        ("moe_adapters", "paper", "seq-cub200", 0.001, 0.0),
        ("vpt", "original", "seq-cifar100", 0.25, 0.0001),
    ],
)
def test_methods_without_replay_are_trained_alike(
    method: str, preset: str, dataset: str, lr: float, weight_decay: float
) -> None:
    model: Any = begin(small_run(method, preset, dataset), 0)
    (group,) = model.opt.param_groups
    assert isinstance(model.opt, torch.optim.AdamW) == (method == "moe_adapters")
    assert (group["lr"], group["weight_decay"]) == (lr, weight_decay)


def test_the_authors_tasks_of_moe_adapters_on_tiny_imagenet() -> None:
    """They have 100 classes first, then 5, 10 or 20 equal tasks (``--n_tasks 6``, 11 or 21)."""
    words = ["--model", "moe_adapters", "--dataset", "seq-tinyimg", "--model_config", "original"]
    for flags, tasks in ((["--n_tasks", "6"], 5), ([], 10), (["--n_tasks", "21"], 20)):
        args = resolve([*words, *flags]).args
        sizes = split_classes(200, args.n_tasks, args.base_classes, args.classes_per_task).sizes
        assert sizes == (100, *[100 // tasks] * tasks)


# Inversion.


@pytest.mark.parametrize("method", PMI_CLIP_METHODS)
@pytest.mark.parametrize(("preset", "dataset"), STATISTICS)
def test_layers_are_inverted_from_the_top_at_a_tenth(
    method: str, preset: str, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer takes 200 steps. The lowest one hands down its last iterate.

    In the released code the lowest takes 1200 steps from coarse to fine.
    """
    (made,) = built(monkeypatch, method, preset, dataset).inversions
    config, pmi = made["config"], made["config"].pmi
    assert (config.start, pmi.lr, pmi.alpha, pmi.beta) == ("pmi", 0.1, STATISTICS[preset, dataset][0], 1.0)
    released = preset == "code"
    assert [pmi.steps_of(layer) for layer in range(4)] == [1200 if released else 200, 200, 200, 200]
    seen = [pmi.grid_at(0, step) for step in (0, 299, 300, 599, 600, 899, 900)]
    assert seen == ([2, 2, 4, 4, 8, 8, 14] if released else [None] * 7)
    assert pmi.last_at_lowest and pmi.prior == "measured" and not pmi.boost
    axis = "token" if released else "channel"
    network = made["network"]
    assert isinstance(network, TokenNetwork) and network.direction == "synthetic_to_real"
    assert [moments.axis for moments in network.input_moments] == ["channel", axis, axis, axis]  # the first gets a map


@pytest.mark.parametrize("method", PMI_CLIP_METHODS)
@pytest.mark.parametrize(("preset", "dataset"), STATISTICS)
def test_the_whole_tower_is_inverted_by_features_statistics_and_smoothness(
    method: str, preset: str, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are 600 steps in batches of 20 at a constant rate.

    The released rate follows the beginning of a cosine of 2000 steps.
    """
    (made,) = built(monkeypatch, method, preset, dataset).inversions
    _, alpha, lr = STATISTICS[preset, dataset]
    config = made["config"]
    assert (config.steps, config.batch, config.beta2, config.keep_best) == (600, 20, 0.999, False)
    assert config.terms == (FeatureMatch(1.0), StatisticsMatch(alpha), DirectionalTV(0.005))
    assert [config.full_rate(0), config.full_rate(500)] == pytest.approx(
        [lr, lr * (0.853553 if preset == "code" else 1)]
    )
    assert config.transforms == Transforms(0, False, 0.0) and config.pruning is None and config.spectrum == 0
    assert made["labels"].bincount().tolist() == [5, 5]  # samples of each old class
    assert not made["network"].unit_features


@pytest.mark.parametrize("preset", ["paper", "code"])
@pytest.mark.parametrize(("inversion", "steps", "dropped"), [("full", 3400, False), ("smi", 4000, True)])
def test_the_inversions_it_is_compared_with(
    inversion: str, steps: int, dropped: bool, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole tower takes 3400 steps from noise, SMI 4000 with patches dropped on the way
    (appendix F).

    The released cosine of 2000 steps is that of PMI alone.
    """
    (made,) = built(monkeypatch, "pmi_vpt", preset, "seq-cifar100", inversion=inversion, inv_axis="channel").inversions
    config = made["config"]
    assert (config.start, config.steps, config.schedule_steps) == ("noise", steps, None)
    assert (config.pruning is not None) == dropped


@pytest.mark.parametrize(("dataset", "samples", "epochs"), [("seq-cifar100", 20, 1), ("seq-imagenet-r", 10, 5)])
@pytest.mark.parametrize(("preset", "alpha"), [("paper", 0.02), ("code", 0.3)])  # 0.3 is 0.02 times 15 pieces
def test_a_task_without_images_is_inverted_from_unit_features(
    preset: str, alpha: float, dataset: str, samples: int, epochs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statistics have the weight 0.02, there is no smoothness, and the rate is 0.1 (appendix I.3).

    Old classes that no loss needs are not inverted.
    """
    flags = {"synthetic_last_task": 1, "projection_hkd": 0}
    heard = built(monkeypatch, "pmi_vpt", preset, dataset, **flags)
    (made,) = heard.inversions
    config = made["config"]
    assert config.terms == (FeatureMatch(1.0), StatisticsMatch(0.02)) and config.pmi.alpha == alpha
    assert config.full_rate(0) == 0.1 and (config.steps, config.batch, config.start) == (600, 20, "pmi")
    assert made["network"].unit_features and made["labels"].bincount().tolist()[2:] == [samples, samples]
    torch.testing.assert_close(made["targets"].norm(dim=1), torch.ones(2 * samples))
    assert heard.model.n_epochs() == epochs


def test_an_unseen_class_is_projected_from_the_five_nearest() -> None:
    """With a tenth of its text's direction (appendix I.3)."""
    options: Any = small_run("pmi_vpt", "paper", "seq-cifar100").model.options
    assert (options.projection_top, options.projection_mix) == (5, 0.1)


# Selection.


@pytest.mark.parametrize("method", PMI_CLIP_METHODS)
@pytest.mark.parametrize(
    ("preset", "dataset", "ratio", "pool"),
    [
        ("paper", "seq-cifar100", 0.5, 100),
        ("paper", "seq-imagenet-r", 0.5, 100),
        ("code", "seq-cub200", 0.5, 100),
        ("code", "seq-imagenet-r", 0.2, 250),
    ],
)
def test_features_are_selected_from_a_pool_in_five_rounds(
    method: str, preset: str, dataset: str, ratio: float, pool: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round selects at least one feature. The pool is 20 (50) times the five that are kept.

    f_cont is trained as on ResNets.
    """
    heard = built(monkeypatch, method, preset, dataset)
    selected, (trained,) = heard.targets[0], heard.contrastive
    assert selected["config"] == SelectionConfig(ratio=ratio, steps=5, smallest=1)
    assert selected["labels"].bincount().tolist() == [pool, pool] and selected["bank"] is heard.model.replay.bank
    released = preset == "code"
    assert trained["config"] == ContrastiveConfig(
        epochs=200, lr=0.01, optimizer="adam" if released else "sgd", keep_best=released, batch=64, temperature=1.0
    )
