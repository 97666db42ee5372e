"""What the presets come to: every setting that a method hands to the engine, to CFS and to its optimiser, with the specification's numbers.

Options are compared with their sources in ``test_schedules.py`` and ``test_pmi_clip.py``; here is what becomes of them. Every field is
written out, also where the number is a default: a default may change, and a field may be left unset where it should not be.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from pmi_cl.inversion.features.contrastive import ContrastiveBank, ContrastiveConfig, train_contrastive
from pmi_cl.inversion.features.selection import SelectionConfig, sample_targets
from pmi_cl.inversion.networks.token_network import TokenNetwork
from pmi_cl.inversion.objectives import DirectionalTV, FeatureMatch, StatisticsMatch, TotalVariation
from pmi_cl.inversion.transforms import Transforms
from pmi_cl.inversion.ways.generator import GeneratorWeights, generator_loss
from pmi_cl.inversion.ways.pmi import PmiConfig
from pmi_cl.registry import catalogue
from pmi_cl.utils.arguments.command_line import resolve
from pmi_cl.utils.run.training import Training
from tests.support.recorded_calls import Call, Enough, recorded, recorded_inversions
from tests.support.slow_references import hooked_kls
from tests.support.small_networks import randomise_norms
from tests.support.small_runs import begin, new_network, start

CLIP_METHODS = ("pmi_vpt", "pmi_codap", "pmi_moe")
TOO_LONG = {"prompt_template": "a {}.", "pool_size": "6"}  # for the small CLIP: its texts and its directions
NOT_OF_PRESETS = {"precision": "bf16", "compile": "1"}


@dataclass
class Built:
    """A method that stands before the inversion of its second task, and what it has handed to its parts on the way."""

    model: Any
    inversions: list[Call] = field(default_factory=list)
    contrastive: list[Call] = field(default_factory=list)
    targets: list[Call] = field(default_factory=list)


def small(name: str, preset: str, dataset: str, **flags: Any) -> Training:
    """The method as the preset sets it up for the data set, with the smallest network, on four digits in two tasks."""
    training = start(name, n_classes=4, n_tasks=2, train_per_class=8)
    known = vars(training.args)
    flags = {**NOT_OF_PRESETS, **{flag: value for flag, value in TOO_LONG.items() if flag in known}, **flags}
    words = ["--model", name, "--dataset", dataset, "--model_config", preset]
    args = resolve([*words, *(word for flag, value in flags.items() for word in (f"--{flag}", str(value)))]).args
    training.dataset.FLIP = dataset != "seq-digits"
    network = new_network(name, training.dataset)
    training.model = catalogue.load("model", name)(
        network, F.cross_entropy, args, training.dataset.augment, training.dataset
    )
    return training


def built(monkeypatch: pytest.MonkeyPatch, name: str, preset: str, dataset: str, **flags: Any) -> Built:
    """The first task ends as it began, untrained; the second begins, up to its inversion. f_cont is not trained."""
    training = small(name, preset, dataset, **flags)
    heard = Built(training.model, recorded_inversions(monkeypatch))
    heard.contrastive = recorded(monkeypatch, train_contrastive, instead=lambda *args, **named: ContrastiveBank())
    heard.targets = recorded(monkeypatch, sample_targets)
    begin(training, 0).end_task(training.shown)
    with pytest.raises(Enough):
        begin(training, 1)
    return heard


def settings(config: Any) -> dict[str, Any]:
    """Every field of a configuration."""
    return {part.name: getattr(config, part.name) for part in fields(config)}


# The CLIP track (PMI's appendices C and I.2, the released code). Rows: statistics weight in PMI and through the whole model, its rate.

CLIP = {
    ("paper", "seq-cifar100"): (0.002, 0.002, 0.1),
    ("paper", "seq-imagenet-r"): (0.002, 0.002, 0.1),
    ("paper", "seq-cub200"): (0.2, 0.2, 0.1),
    ("code", "seq-cifar100"): (0.03, 0.002, 0.01),
    ("code", "seq-imagenet-r"): (0.03, 0.002, 0.01),
    ("code", "seq-cub200"): (3.0, 0.2, 0.02),
}


def clip_pmi(preset: str, alpha: float) -> PmiConfig:
    """200 steps of 0.1 a layer; the lowest gives its last iterate, and has 1200 steps from coarse to fine in the released code."""
    released = preset == "code"
    return PmiConfig(
        steps=200,
        lr=0.1,
        alpha=alpha,
        beta=1.0,
        prior="measured",
        boost=False,
        last_at_lowest=True,
        lowest_steps=1200 if released else None,
        grids=(2, 4, 8, 14) if released else (),
    )


def clip_inversion(preset: str, alpha: float, lr: float, terms: tuple[Any, ...]) -> dict[str, Any]:
    """600 steps in batches of 20; constant, or along a cosine of 2000 steps in the released code."""
    released = preset == "code"
    return {
        "start": "pmi",
        "steps": 600,
        "lr": lr,
        "schedule": "cosine" if released else "constant",
        "schedule_steps": 2000 if released else None,
        "beta2": 0.999,
        "terms": terms,
        "transforms": Transforms(0, False, 0.0),
        "pruning": None,
        "spectrum": 0.0,
        "batch": 20,
        "keep_best": False,
        "pmi": clip_pmi(preset, alpha),
        "stem_steps": 10,
        "direction": "synthetic_to_real",
        "precision": torch.bfloat16,
        "compiled": True,
    }


@pytest.mark.parametrize("method", CLIP_METHODS)
@pytest.mark.parametrize(("preset", "dataset"), CLIP)
def test_the_inversion_of_a_clip(method: str, preset: str, dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alpha, whole, lr = CLIP[preset, dataset]
    (made,) = built(monkeypatch, method, preset, dataset).inversions
    terms = (FeatureMatch(1.0), StatisticsMatch(whole), DirectionalTV(0.005))
    assert settings(made["config"]) == clip_inversion(preset, alpha, lr, terms)
    network = made["network"]
    assert isinstance(network, TokenNetwork) and network.direction == "synthetic_to_real" and not network.unit_features
    axis = "token" if preset == "code" else "channel"
    assert [moments.axis for moments in network.input_moments] == [
        "channel",
        axis,
        axis,
        axis,
    ]  # a map's are of channels in any case
    assert made["labels"].bincount().tolist() == [5, 5]  # samples of each old class


@pytest.mark.parametrize("preset", ["paper", "code"])
@pytest.mark.parametrize(("inversion", "steps", "dropped"), [("full", 3400, False), ("smi", 4000, True)])
def test_the_inversions_it_is_compared_with(
    inversion: str, steps: int, dropped: bool, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """App. F: the whole model from noise, 3400 steps; SMI 4000, with patches dropped on the way. The cosine is PMI's 2000 steps alone."""
    (made,) = built(monkeypatch, "pmi_vpt", preset, "seq-cifar100", inversion=inversion, inv_axis="channel").inversions
    found = made["config"]
    assert (found.start, found.steps, found.schedule_steps, found.pruning is not None) == (
        "noise",
        steps,
        None,
        dropped,
    )


@pytest.mark.parametrize(
    ("preset", "samples", "epochs", "dataset"),
    [
        ("paper", 20, 1, "seq-cifar100"),
        ("code", 20, 1, "seq-cifar100"),
        ("paper", 10, 5, "seq-imagenet-r"),
        ("code", 10, 5, "seq-imagenet-r"),
    ],
)
def test_the_inversion_of_a_task_without_images(
    preset: str, samples: int, epochs: int, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spec 3.11: statistics 0.02 (in PMI times the 15 pieces in the released code), no smoothness, rate 0.1, unit features."""
    flags = {"synthetic_last_task": 1, "projection_hkd": 0}  # no loss looks at old classes: they are not inverted
    heard = built(monkeypatch, "pmi_vpt", preset, dataset, **flags)
    (made,) = heard.inversions
    alpha = {"paper": 0.02, "code": 0.3}[preset]
    assert settings(made["config"]) == clip_inversion(preset, alpha, 0.1, (FeatureMatch(1.0), StatisticsMatch(0.02)))
    assert made["network"].unit_features and made["labels"].bincount().tolist()[2:] == [samples, samples]
    torch.testing.assert_close(made["targets"].norm(dim=1), torch.ones(2 * samples))
    assert heard.model.n_epochs() == epochs


@pytest.mark.parametrize("method", CLIP_METHODS)
@pytest.mark.parametrize(
    ("preset", "dataset", "ratio", "pool"),
    [
        ("paper", "seq-cifar100", 0.5, 100),
        ("paper", "seq-imagenet-r", 0.5, 100),
        ("code", "seq-cub200", 0.5, 100),
        ("code", "seq-imagenet-r", 0.2, 250),
    ],
)
def test_the_selection_for_a_clip(
    method: str, preset: str, dataset: str, ratio: float, pool: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five rounds of at least one feature, of a pool of 20 (50) times the five that are kept."""
    heard = built(monkeypatch, method, preset, dataset)
    selected = heard.targets[0]
    assert selected["config"] == SelectionConfig(ratio=ratio, steps=5, smallest=1)
    assert selected["labels"].bincount().tolist() == [pool, pool] and selected["bank"] is heard.model.bank


# The ResNet track (PMI's appendices C and I.1, the released code). `best` is ours, and is what its file says.

MEASURED, RELEASED = (
    PmiConfig(steps, 0.8, alpha, 1.0, prior, boost, last_at_lowest=False, lowest_steps=None, grids=())  # type: ignore[arg-type]
    for steps, alpha, prior, boost in ((100, 1.6, "measured", False), (50, 80.0, "bn_affine", True))
)
RESNET_PAPER: dict[str, Any] = {
    "start": "pmi",
    "steps": 280,
    "lr": 0.15,
    "schedule": "constant",
    "schedule_steps": None,
    "beta2": 0.999,
    "terms": (FeatureMatch(1.0), StatisticsMatch(0.1)),
    "transforms": Transforms(0, False, 0.0),
    "pruning": None,
    "spectrum": 0.0,
    "batch": 4000,
    "keep_best": False,
    "pmi": MEASURED,
    "stem_steps": 10,
    "direction": "synthetic_to_real",
    "precision": torch.bfloat16,
    "compiled": True,
}
RESNET_CODE = {
    **RESNET_PAPER,
    "steps": 160,
    "lr": 0.4,
    "schedule": "released",
    "terms": (FeatureMatch(1.0), StatisticsMatch(0.25)),
    "pmi": RELEASED,
}
BEST = {
    **RESNET_PAPER,
    "start": "lowfreq",
    "schedule": "cosine",
    "terms": (FeatureMatch(1.0), StatisticsMatch(0.5), TotalVariation(0.2)),
    "transforms": Transforms(4, True, 0.0),
}
BEST_ON_DIGITS = {
    **BEST,
    "steps": 300,
    "lr": 0.3,
    "beta2": 0.95,
    "terms": (FeatureMatch(1.0), StatisticsMatch(1.0), TotalVariation(0.05)),
    "transforms": Transforms(0, False, 0.0),  # digits are not mirrored
    "batch": 400,
}
RESNET = [  # and how many images the second task is replayed from
    ("paper", "seq-cifar100", RESNET_PAPER, 20000),
    ("code", "seq-cifar100", RESNET_CODE, 5000),
    ("rdfcil", "seq-cifar100", RESNET_PAPER, 20000),
    ("best", "seq-cifar100", BEST, 20000),
    ("best", "seq-digits", BEST_ON_DIGITS, 400),
]


@pytest.mark.parametrize(
    ("preset", "dataset", "expected", "images"), RESNET, ids=[f"{row[0]}-{row[1]}" for row in RESNET]
)
def test_the_inversion_of_a_resnet(
    preset: str, dataset: str, expected: dict[str, Any], images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = built(monkeypatch, "pmi_rdfcil", preset, dataset)
    (made,) = heard.inversions
    assert settings(made["config"]) == expected
    assert len(made["targets"]) == images and (made["colour"] is not None) == (dataset == "seq-digits")
    shares = made["labels"].bincount()
    assert (shares.tolist() == [images // 2] * 2) == (preset == "best")  # the others draw the classes
    assert len(made["network"].input_moments) == len(made["network"].pieces) and all(
        moments.count > 0 for moments in made["network"].input_moments
    )
    (selected,) = heard.targets
    assert (
        selected["config"] == SelectionConfig(ratio=0.5, steps=40, smallest=2) and selected["bank"] is heard.model.bank
    )


# Both tracks.


def of_f_cont(epochs: int, optimizer: Any, keep_best: bool) -> ContrastiveConfig:
    """Spec 3.5: rate 0.01, batches of 64, temperature 1."""
    return ContrastiveConfig(
        epochs=epochs, lr=0.01, optimizer=optimizer, keep_best=keep_best, batch=64, temperature=1.0
    )


@pytest.mark.parametrize(
    ("method", "preset", "dataset", "expected"),
    [
        *((method, "paper", "seq-cifar100", of_f_cont(200, "sgd", False)) for method in ("pmi_rdfcil", *CLIP_METHODS)),
        *((method, "code", "seq-cifar100", of_f_cont(200, "adam", True)) for method in ("pmi_rdfcil", *CLIP_METHODS)),
        ("pmi_rdfcil", "rdfcil", "seq-cifar100", of_f_cont(200, "sgd", False)),
        ("pmi_rdfcil", "best", "seq-cifar100", of_f_cont(200, "sgd", False)),
        ("pmi_rdfcil", "best", "seq-digits", of_f_cont(50, "sgd", False)),
    ],
)
def test_how_the_contrastive_models_are_trained(
    method: str, preset: str, dataset: str, expected: ContrastiveConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    (trained,) = built(monkeypatch, method, preset, dataset).contrastive
    assert trained["config"] == expected


@pytest.mark.parametrize(
    ("method", "preset", "dataset", "expected"),
    [
        ("vpt", "paper", "seq-cifar100", (0.02, 0.9, 0.0)),
        ("coda_prompt", "paper", "seq-cifar100", (0.1, 0.9, 0.0)),
        ("pmi_vpt", "paper", "seq-cifar100", (0.02, 0.9, 0.0)),
        ("pmi_vpt", "code", "seq-imagenet-r", (0.01, 0.9, 0.0)),
        ("pmi_codap", "paper", "seq-cub200", (0.1, 0.9, 0.0)),
        ("vpt", "original", "seq-cifar100", (0.25, 0.9, 0.0001)),
        ("rdfcil", "paper", "seq-cifar100", (0.1, 0.9, 0.0005)),
        ("pmi_rdfcil", "paper", "seq-cifar100", (0.1, 0.9, 0.0005)),
    ],
)
def test_sgd_has_its_rate_momentum_and_weight_decay(
    method: str, preset: str, dataset: str, expected: tuple[float, ...]
) -> None:
    """Table 9 and the released code; momentum 0.9 is VPT's and R-DFCIL's."""
    training = small(method, preset, dataset)
    model: Any = begin(training, 0)
    model.begin_epoch(0, training.shown)
    (group,) = model.opt.param_groups
    assert not isinstance(model.opt, torch.optim.AdamW)
    assert (group["lr"], group["momentum"], group["weight_decay"]) == expected


@pytest.mark.parametrize("method", ["moe_adapters", "pmi_moe"])
def test_adapters_are_trained_by_adamw(method: str) -> None:
    model: Any = begin(small(method, "paper", "seq-cub200"), 0)
    (group,) = model.opt.param_groups
    assert isinstance(model.opt, torch.optim.AdamW) and (group["lr"], group["weight_decay"]) == (0.001, 0.0)


def test_the_generator_of_rdfcil(monkeypatch: pytest.MonkeyPatch) -> None:
    """Baselines 1.5: weights 1000, 1e-3 and 50, KL(real || synthetic), batches of 128, Adam at 1e-3."""
    training = small("rdfcil", "paper", "seq-cifar100")
    begin(training, 0).end_task(training.shown)
    teacher = randomise_norms(
        training.model.teacher
    )  # the KLs of a network that was never trained are near to symmetrical

    def stop(*_: Any) -> None:
        raise Enough

    calls = recorded(monkeypatch, generator_loss, instead=stop)
    with pytest.raises(Enough):
        begin(training, 1)
    (call,) = calls
    assert call["weights"] == GeneratorWeights(temperature=1000.0, smoothness=1e-3, statistics=50.0)
    assert call["images"].shape == (128, 3, 16, 16)
    with torch.no_grad():
        found, expected = (
            call["network"](call["images"])[1],
            hooked_kls(teacher, call["images"], "real_to_synthetic")[1],
        )
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=1e-3, atol=1e-4)
    (group,) = training.model.generator_opt.param_groups
    assert isinstance(training.model.generator_opt, torch.optim.Adam) and group["lr"] == 1e-3
