"""Test what the presets of the methods on ResNets mean: how a run trains, weighs losses and
inverts.

The numbers are those of PMI's appendices C and I.1 (``paper``), of the released code (``code``) and
of R-DFCIL's (``rdfcil``); ``best`` is ours. Learning rates, epoch by epoch, are in
``test_schedules.py``.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pmi_cl.inversion.features.contrastive import ContrastiveConfig
from pmi_cl.inversion.features.gaussians import ClassGaussians
from pmi_cl.inversion.objectives import FeatureMatch, StatisticsMatch, TotalVariation
from pmi_cl.inversion.transforms import Transforms
from pmi_cl.inversion.ways.generator import GeneratorWeights, generator_loss
from pmi_cl.utils.arguments.command_line import resolve
from tests.support.preset_runs import built, different_options, digits, method, options, small_run
from tests.support.recorded_calls import Enough, recorded, recorded_inversions
from tests.support.slow_references import hooked_kls
from tests.support.small_networks import randomise_norms
from tests.support.small_runs import begin

# In which items the released code differs from the appendix: one line for each row of the
# decision register.
RELEASED = {
    *("lr_milestones", "lr_gamma", "unfreezing", "classifier_lr", "train_old_heads", "train_stem", "first_count"),
    "lambda_ft",
    *("buffer_images", "buffer_per_task"),
    *("cont_optimizer", "cont_keep_best", "feature_augment"),
    *("inv_steps", "inv_lr", "inv_schedule", "inv_alpha", "inv_boost"),
    *("pmi_steps", "pmi_alpha", "pmi_prior", "pmi_boost"),
}


def test_presets_differ_where_their_sources_do() -> None:
    assert different_options("pmi_rdfcil", "paper", "code") == RELEASED
    assert different_options("pmi_rdfcil", "paper", "rdfcil") == {
        "lr_milestones",
        "lr_gamma",
        "classifier_lr",
        "first_task_part",
    }
    assert {"inv_keep_best", "inv_alpha"} <= different_options("pmi_rdfcil", "paper", "best")


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        *(("pmi_rdfcil", preset) for preset in ("paper", "code", "rdfcil")),
        *(("rdfcil", "paper"), ("sgd", "code"), ("joint", "code")),
    ],
)
def test_what_is_ours_is_off_in_the_presets_of_others(name: str, preset: str) -> None:
    """``stem_steps`` has no effect under these presets: none has the start "stem"."""
    found, specs = options(name, preset), resolve(["--model", name, "--dataset", "seq-cifar100"]).model.options
    ours = {spec.name for spec in specs if "ours" in spec.source} - {"stem_steps"}
    assert {option: found[option] for option in ours if found[option]} == {}


def test_the_network_and_the_data_are_the_papers() -> None:
    args = resolve(["--model", "pmi_rdfcil", "--dataset", "seq-cifar100"]).args
    assert (args.model_config, args.backbone, args.n_tasks, args.class_order) == ("paper", "resnet32", 10, "rdfcil0")


# Training.


@pytest.mark.parametrize(
    ("name", "preset", "dataset", "epochs", "weight_decay"),
    [
        ("pmi_rdfcil", "paper", "seq-cifar100", 200, 5e-4),
        ("pmi_rdfcil", "code", "seq-cifar100", 200, 5e-4),
        ("rdfcil", "paper", "seq-cifar100", 160, 5e-4),
        ("rdfcil", "paper", "seq-tinyimg", 160, 2e-4),
        ("sgd", "code", "seq-cifar100", 160, 5e-4),
        ("joint", "code", "seq-cifar100", 160, 5e-4),
    ],
)
def test_the_first_task_is_trained_by_sgd_at_a_tenth(
    name: str, preset: str, dataset: str, epochs: int, weight_decay: float
) -> None:
    """Batches of 128, momentum 0.9, weight decay 5e-4; R-DFCIL has 2e-4 for Tiny-ImageNet."""
    training = small_run(name, preset, dataset)
    model: Any = begin(training, 0)
    model.begin_epoch(0, training.shown)
    (group,) = model.opt.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.1, 0.9, weight_decay)
    assert (model.n_epochs(), model.options.batch_size) == (epochs, 128)


@pytest.mark.parametrize(
    ("name", "preset", "factors"),
    [  # of the cross-entropy, of hard and relational distillation, of the classifier on features that are detached
        ("pmi_rdfcil", "paper", (1.5, 0.15, 0.5, 2.0)),
        ("pmi_rdfcil", "code", (1.5, 0.15, 0.5, 3.0)),
        ("rdfcil", "paper", (1.0, 0.15, 0.5, 0.0)),
    ],
)
def test_the_weights_of_the_losses(name: str, preset: str, factors: tuple[float, ...]) -> None:
    """With two old and two new classes the factors are a = b = 1 (appendix C.1).

    Cross-entropies are doubled, and distillations are as they are.
    """
    model = method(name, preset)
    model.current_task = 1
    found = model.factors()
    assert (found.ce, found.hkd, found.rkd, found.ft) == pytest.approx(factors)


@pytest.mark.parametrize(("preset", "images"), [("code", (5000, 7000, 11000)), ("paper", (20000, 20000, 20000))])
def test_the_released_buffer_grows_with_the_tasks(
    preset: str, images: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has 3000 + 2000 t images before new task t (from 1) in ten tasks.

    The appendix has 20,000 before each.
    """
    inversions = recorded_inversions(monkeypatch)
    for task in (1, 2, 4):
        model = method("pmi_rdfcil", preset)
        old = digits().N_CLASSES_PER_TASK * task
        model.current_task, model.teacher = task, model.net
        model.gaussians = ClassGaussians(torch.zeros(old, 64), torch.ones(old, 64))
        with pytest.raises(Enough):
            model.begin_task(digits())
    assert tuple(len(made["targets"]) for made in inversions) == images
    assert tuple(len(made["labels"]) for made in inversions) == images


# Inversion.


@pytest.mark.parametrize(
    ("preset", "steps", "alpha", "prior", "boost"),
    [
        ("paper", 100, 1.6, "measured", False),
        ("rdfcil", 100, 1.6, "measured", False),
        ("code", 50, 80.0, "bn_affine", True),  # 0.25 times 16 blocks times 20
    ],
)
def test_layers_are_inverted_from_the_top_at_four_fifths(
    preset: str, steps: int, alpha: float, prior: str, boost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MSE has the weight 1, the statistics alpha.

    Each layer hands down its best iterate, for 4000 targets at a time.
    """
    (made,) = built(monkeypatch, "pmi_rdfcil", preset, "seq-cifar100").inversions
    config, pmi = made["config"], made["config"].pmi
    assert (config.start, config.batch, pmi.lr, pmi.beta) == ("pmi", 4000, 0.8, 1.0)
    assert (pmi.steps, pmi.alpha, pmi.prior, pmi.boost) == (steps, alpha, prior, boost)
    assert not pmi.last_at_lowest and {pmi.steps_of(layer) for layer in range(16)} == {steps}
    network = made["network"]
    assert len(network.input_moments) == len(network.pieces)
    assert all(moments.count > 0 for moments in network.input_moments)


@pytest.mark.parametrize(
    ("preset", "steps", "alpha", "keeps_best", "rates"),
    [
        ("paper", 280, 1.6, True, {0: 0.15, 140: 0.15, 279: 0.15}),
        ("rdfcil", 280, 1.6, True, {0: 0.15, 140: 0.15, 279: 0.15}),
        ("code", 160, 0.25, True, {0: 0.08, 1: 0.08, 5: 0.4, 84: 0.4, 85: 0.2, 124: 0.2, 125: 0.1, 159: 0.1}),
        ("best", 280, 0.5, False, {0: 0.15, 140: 0.075, 279: 5e-6}),
    ],
)
def test_the_whole_network_is_inverted_by_features_and_statistics(
    preset: str,
    steps: int,
    alpha: float,
    keeps_best: bool,
    rates: dict[int, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The released rate rises over 5 steps, the first of which counts twice, and is halved at 85
    and 125.

    The appendix's is constant. The released code doubles the weight of a term above its first value
    here, too.
    """
    (made,) = built(monkeypatch, "pmi_rdfcil", preset, "seq-cifar100").inversions
    config = made["config"]
    assert config.steps == steps and config.terms[:2] == (FeatureMatch(1.0), StatisticsMatch(alpha))
    found = {step: config.full_rate(step) for step in rates}
    assert found == pytest.approx(rates, abs=1e-6)
    assert (config.beta2, config.keep_best, config.direction) == (0.999, keeps_best, "synthetic_to_real")
    assert config.boost == (preset == "code")
    if preset != "best":  # no smoothness, and nothing else that the sources do not know
        assert len(config.terms) == 2 and config.transforms == Transforms(0, False, 0.0)
        assert config.pruning is None and config.spectrum == 0 and made["colour"] is None


def test_the_released_batches_of_tiny_imagenet(monkeypatch: pytest.MonkeyPatch) -> None:
    """PMI takes 4,000 targets at once, the full-model stage 1,000 images."""
    (made,) = built(monkeypatch, "pmi_rdfcil", "code", "seq-tinyimg").inversions
    assert (made["config"].pmi.batch, made["config"].batch) == (4000, 1000)


@pytest.mark.parametrize(
    ("dataset", "images", "smoothness", "transforms"),
    [
        ("seq-cifar100", 20000, 0.2, Transforms(4, True, 0.0)),
        ("seq-digits", 400, 0.05, Transforms(0, False, 0.0)),  # digits are neither mirrored nor moved
    ],
)
def test_best_starts_from_low_frequencies_and_looks_at_moved_images(
    dataset: str, images: int, smoothness: float, transforms: Transforms, monkeypatch: pytest.MonkeyPatch
) -> None:
    (made,) = built(monkeypatch, "pmi_rdfcil", "best", dataset).inversions
    config = made["config"]
    assert (config.start, config.schedule) == ("lowfreq", "cosine")
    assert config.terms[2:] == (TotalVariation(smoothness),) and config.transforms == transforms
    assert made["labels"].bincount().tolist() == [images // 2] * 2  # of each class as many
    assert (made["colour"] is not None) == (dataset == "seq-digits")


@pytest.mark.parametrize("preset", ["paper", "code", "rdfcil"])
def test_the_presets_of_others_draw_the_classes_of_the_buffer(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = built(monkeypatch, "pmi_rdfcil", preset, "seq-cifar100").inversions[0]["labels"].bincount().tolist()
    assert one != other and one + other == (5000 if preset == "code" else 20000)


@pytest.mark.parametrize(
    ("preset", "dataset", "optimizer", "epochs"),
    [
        ("paper", "seq-cifar100", "sgd", 200),
        ("rdfcil", "seq-cifar100", "sgd", 200),
        ("code", "seq-cifar100", "adam", 200),
        ("best", "seq-digits", "sgd", 50),
    ],
)
def test_half_of_the_features_are_selected_in_forty_rounds(
    preset: str, dataset: str, optimizer: Any, epochs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round selects at least two features. f_cont is trained at rate 0.01.

    The released code trains it by Adam and keeps its best state.
    """
    heard = built(monkeypatch, "pmi_rdfcil", preset, dataset)
    (selected,), (trained,) = heard.targets, heard.contrastive
    chosen = selected["config"]
    assert (chosen.ratio, chosen.steps, chosen.smallest) == (0.5, 40, 2) and selected["bank"] is heard.model.bank
    assert trained["config"] == ContrastiveConfig(
        epochs=epochs, lr=0.01, optimizer=optimizer, keep_best=optimizer == "adam", batch=64, temperature=1.0
    )


def test_the_generator_of_rdfcil(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights 1000, 1e-3 and 50, KL(real || synthetic), 5000 batches of 128, Adam at 1e-3."""
    training = small_run("rdfcil", "paper", "seq-cifar100")
    begin(training, 0).end_task(training.shown)
    teacher = randomise_norms(training.model.teacher)  # the KLs of an untrained network are nearly symmetrical

    def stop(*_: Any) -> None:
        raise Enough

    calls = recorded(monkeypatch, generator_loss, instead=stop)
    with pytest.raises(Enough):
        begin(training, 1)
    (call,) = calls
    assert call["weights"] == GeneratorWeights(temperature=1000.0, smoothness=1e-3, statistics=50.0)
    assert call["images"].shape == (128, 3, 16, 16) and training.model.options.generator_steps == 5000
    with torch.no_grad():
        found = call["network"](call["images"])[1]
        expected = hooked_kls(teacher, call["images"], "real_to_synthetic")[1]
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=1e-3, atol=1e-4)
    (group,) = training.model.generator_opt.param_groups
    assert isinstance(training.model.generator_opt, torch.optim.Adam) and group["lr"] == 1e-3
