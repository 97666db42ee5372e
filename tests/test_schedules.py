"""Learning rates and stages, epoch by epoch, as the presets give them through the command line; and every value of the presets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from pmi_cl.backbones.resnet_cifar import ResNetCifar
from pmi_cl.datasets.seq_digits import SeqDigits
from pmi_cl.inversion.features.gaussians import ClassGaussians
from pmi_cl.models.resnet.replay_training import ReplayTraining
from pmi_cl.models.resnet.stages import one_schedule, stage_at, unfreezing_schedule
from pmi_cl.registry import catalogue
from pmi_cl.utils.arguments.command_line import resolve
from pmi_cl.utils.arguments.presets import presets_of
from tests.support.recorded_calls import Enough, recorded_inversions


@pytest.fixture(scope="module")
def digits() -> SeqDigits:
    """Any data set will do to build a method: what is looked at here depends on the arguments alone."""
    return SeqDigits(resolve(["--model", "sgd", "--dataset", "seq-digits"]).args, torch.device("cpu"))


def method(name: str, preset: str, digits: SeqDigits, *flags: str) -> Any:
    """The method as ``--dataset seq-cifar100 --n_tasks 10 --model_config PRESET`` sets it up."""
    argv = ["--model", name, "--dataset", "seq-cifar100", "--n_tasks", "10", "--model_config", preset, *flags]
    return catalogue.load("model", name)(
        ResNetCifar((1, 0, 0, 0)), F.cross_entropy, resolve(argv).args, digits.augment, digits
    )


def rates(model: Any, task: int) -> list[float]:
    """The learning rate of every epoch of a task."""
    model.current_task = task
    stages = model.plan()
    return [stage_at(stages, epoch).rate(epoch) for epoch in range(model.n_epochs())]


def trains(model: Any, task: int) -> list[str]:
    """What every epoch of a task trains."""
    model.current_task = task
    stages = model.plan()
    return [stage_at(stages, epoch).trains for epoch in range(model.n_epochs())]


def trace(*parts: tuple[float, int]) -> list[float]:
    """(rate, epochs) one after the other."""
    return [rate for rate, epochs in parts for _ in range(epochs)]


RDFCIL_FIRST = trace((0.1, 80), (0.01, 40), (0.001, 40))
RDFCIL_LATER = [*RDFCIL_FIRST, *trace((0.005, 40))]
APPENDIX = trace((0.1, 40), (0.05, 40), (0.025, 40), (0.0125, 40), (0.00625, 40))
RELEASED_FIRST = trace((0.1, 80), (0.01, 40), (0.001, 80))
RELEASED_LATER = trace(
    *((0.1, 10), (0.01, 5), (0.001, 5)),
    *((0.05, 10), (0.005, 5), (0.0005, 5)),
    *((0.01, 60), (0.001, 30), (0.0001, 30)),
    (0.005, 40),
)

RELEASED_LATER_40 = trace(
    *((0.1, 2), (0.01, 1), (0.001, 1)),
    *((0.05, 2), (0.005, 1), (0.0005, 1)),
    *((0.01, 12), (0.001, 6), (0.0001, 6)),
    (0.005, 8),
)


@pytest.mark.parametrize(
    ("name", "preset", "first", "later"),
    [
        ("rdfcil", "paper", RDFCIL_FIRST, RDFCIL_LATER),
        ("pmi_rdfcil", "rdfcil", RDFCIL_FIRST, RDFCIL_LATER),
        ("pmi_rdfcil", "paper", APPENDIX, APPENDIX),
        ("pmi_rdfcil", "code", RELEASED_FIRST, RELEASED_LATER),
    ],
)
def test_the_rate_of_every_epoch(
    name: str, preset: str, first: list[float], later: list[float], digits: SeqDigits
) -> None:
    model = method(name, preset, digits)
    assert rates(model, 0) == pytest.approx(first)
    assert rates(model, 1) == pytest.approx(later)
    assert rates(model, 9) == pytest.approx(later)


@pytest.mark.parametrize("name", ["sgd", "joint"])
def test_the_rate_of_plain_training(name: str, digits: SeqDigits) -> None:
    model = method(name, "code", digits)
    model.grow()
    model.begin_task(digits)
    found = []
    for epoch in range(model.n_epochs()):
        model.begin_epoch(epoch, digits)
        found += [group["lr"] for group in model.opt.param_groups]
    assert found == pytest.approx(RDFCIL_FIRST)


@pytest.mark.parametrize(
    ("epochs", "expected"), [(1, [0.1]), (2, [0.1, 0.0125]), (5, [0.1, 0.05, 0.025, 0.0125, 0.00625])]
)
def test_a_task_begins_at_the_rate_that_was_asked_for_however_few_its_epochs(
    epochs: int, expected: list[float], digits: SeqDigits
) -> None:
    """The appendix's milestones at 0.2, 0.4, 0.6 and 0.8: two epochs would put the first two before epoch 0."""
    flags = ("--n_epochs", str(epochs), "--classifier_part", "0")
    for task in (0, 1):
        assert rates(method("pmi_rdfcil", "paper", digits, *flags), task) == pytest.approx(expected)
    plain = method(
        "sgd", "none", digits, *flags[:2], "--lr", "0.1", "--lr_gamma", "0.5", "--lr_milestones", "0.2,0.4,0.6,0.8"
    )
    plain.grow()
    plain.begin_task(digits)
    found = []
    for epoch in range(epochs):
        plain.begin_epoch(epoch, digits)
        found.append(plain.opt.param_groups[0]["lr"])
    assert found == pytest.approx(expected)


def test_short_stages_of_the_unfreezing_schedule_begin_at_their_rates() -> None:
    stages = unfreezing_schedule(4, (0.25, 0.25), (0.1, 0.05), 0.01, 0.25, 0.005)
    assert [stage_at(stages, epoch).rate(epoch) for epoch in range(4)] == pytest.approx([0.1, 0.05, 0.01, 0.005])


@pytest.mark.parametrize(
    ("name", "preset", "stages"),
    [
        ("rdfcil", "paper", [("all", 160), ("classifier", 40)]),
        ("pmi_rdfcil", "rdfcil", [("all", 160), ("classifier", 40)]),
        ("pmi_rdfcil", "paper", [("all", 160), ("classifier", 40)]),
        ("pmi_rdfcil", "code", [("head", 20), ("last block and head", 20), ("all", 120), ("classifier", 40)]),
    ],
)
def test_what_every_epoch_trains(name: str, preset: str, stages: list[tuple[str, int]], digits: SeqDigits) -> None:
    model = method(name, preset, digits)
    assert set(trains(model, 0)) == {"all"}
    assert trains(model, 1) == [part for part, epochs in stages for _ in range(epochs)]


def test_hard_distillation_is_weak_while_the_head_alone_trains(digits: SeqDigits) -> None:
    model = method("pmi_rdfcil", "code", digits)
    model.current_task = 1
    assert [stage.hkd_scale for stage in model.plan()] == [0.01, 1, 1, 1]


def test_the_optimiser_starts_anew_where_the_released_code_makes_one(digits: SeqDigits) -> None:
    """R-DFCIL trains on with one optimiser; the released code builds one for each stage."""
    fresh = {}
    for name, preset in (("rdfcil", "paper"), ("pmi_rdfcil", "code")):
        model = method(name, preset, digits)
        model.current_task = 1
        fresh[name] = [stage.fresh for stage in model.plan()]
    assert fresh == {"rdfcil": [True, False], "pmi_rdfcil": [True, True, True, True]}


@pytest.mark.parametrize(
    ("name", "preset", "first", "later"),
    [
        (
            "rdfcil",
            "paper",
            trace((0.1, 16), (0.01, 8), (0.001, 8)),
            trace((0.1, 16), (0.01, 8), (0.001, 8), (0.005, 8)),
        ),
        (
            "pmi_rdfcil",
            "paper",
            trace(*((0.1 / 2**k, 8) for k in range(5))),
            trace(*((0.1 / 2**k, 8) for k in range(5))),
        ),
        ("pmi_rdfcil", "code", trace((0.1, 16), (0.01, 8), (0.001, 16)), RELEASED_LATER_40),
    ],
)
def test_a_schedule_scales_with_its_epochs(
    name: str, preset: str, first: list[float], later: list[float], digits: SeqDigits
) -> None:
    model = method(name, preset, digits, "--n_epochs", "40")
    assert rates(model, 0) == pytest.approx(first)
    assert rates(model, 3) == pytest.approx(later)


@pytest.mark.parametrize("preset", presets_of("pmi_rdfcil", catalogue.INSTALLED).presets)
def test_any_number_of_epochs_is_parted_without_a_gap(preset: str, digits: SeqDigits) -> None:
    for n_epochs in range(1, 31):
        model = method("pmi_rdfcil", preset, digits, "--n_epochs", str(n_epochs))
        for task in (0, 1):
            model.current_task = task
            stages = model.plan()
            assert sum(stage.epochs for stage in stages) == model.n_epochs()
            assert model.n_epochs() == (n_epochs if task else max(round(n_epochs * model.options.first_task_part), 1))
            assert [stage.first for stage in stages] == [
                sum(stage.epochs for stage in stages[:k]) for k in range(len(stages))
            ]
            assert all(stage.epochs >= 1 for stage in stages) and stages[0].fresh


def test_a_schedule_of_the_classifier_alone() -> None:
    (stage,) = one_schedule(1, 0.1, [0.5], 0.1, classifier=0.9, classifier_lr=0.02)
    assert (stage.trains, stage.fresh, stage.rate(0)) == ("classifier", True, 0.02)


def test_a_warm_up_of_no_epochs_is_left_out() -> None:
    stages = unfreezing_schedule(10, (0.0, 0.2), (0.1, 0.05), 0.01, 0.0, 0.005)
    assert [(stage.trains, stage.first, stage.epochs) for stage in stages] == [
        ("last block and head", 0, 2),
        ("all", 2, 8),
    ]


# Every value of the presets. Sources: PMI's appendix I (paper), the released code (code), R-DFCIL's code (rdfcil).

SHARED = {"n_epochs": 200, "batch_size": 128, "lr": 0.1, "optim_mom": 0.9, "optim_wd": 5e-4, "rkd_dim": 128}
LAMBDAS = {"lambda_hkd": 0.15, "lambda_rkd": 0.5}
PAPER = {
    **SHARED,
    **LAMBDAS,
    "lr_milestones": (0.2, 0.4, 0.6, 0.8),  # every 40 of 200 epochs
    "lr_gamma": 0.5,
    "lambda_ce": 0.75,
    "lambda_ft": 1.0,
    "first_task_part": 1.0,
    "classifier_part": 0.2,
    "classifier_lr": None,
    "unfreezing": False,
    "warmup_parts": (0.1, 0.1),
    "warmup_lrs": (0.1, 0.05),
    "unfrozen_lr": 0.01,
    "train_old_heads": True,
    "joint_batches": False,
    "buffer_images": 20000,
    "buffer_per_task": 0,
    "balanced": False,
    "cfs": True,
    "cfs_ratio": 0.5,
    "cfs_steps": 40,
    "cont_epochs": 200,
    "cont_lr": 0.01,
    "cont_optimizer": "sgd",
    "cont_keep_best": False,
    "inv_start": "pmi",
    "inv_batch": 4000,
    "inv_steps": 280,
    "inv_lr": 0.15,
    "inv_schedule": "constant",
    "inv_beta2": 0.999,
    "inv_feature": 1.0,
    "inv_alpha": 0.1,
    "inv_ce": 0.0,
    "inv_tv": 0.0,
    "inv_keep_best": False,
    "pmi_steps": 100,
    "pmi_lr": 0.8,
    "pmi_alpha": 1.6,
    "pmi_prior": "measured",
    "pmi_boost": False,
}
CODE = {
    **PAPER,
    "lr_milestones": (0.4, 0.6),
    "lr_gamma": 0.1,
    "lambda_ft": 1.5,
    "classifier_lr": 0.005,
    "unfreezing": True,
    "train_old_heads": False,
    "buffer_images": 3000,
    "buffer_per_task": 2000,
    "cont_optimizer": "adam",
    "cont_keep_best": True,
    "inv_steps": 160,
    "inv_lr": 0.4,
    "inv_schedule": "released",
    "inv_alpha": 0.25,
    "pmi_steps": 50,
    "pmi_alpha": 80.0,  # 0.25 x 16 blocks x 20
    "pmi_prior": "bn_affine",
    "pmi_boost": True,
}
PMI_UNDER_RDFCIL = {
    **PAPER,
    "lr_milestones": (0.4, 0.6),
    "lr_gamma": 0.1,
    "classifier_lr": 0.005,
    "first_task_part": 0.8,
}
RDFCIL = {
    **{
        name: value
        for name, value in PMI_UNDER_RDFCIL.items()
        if not name.startswith(("buffer", "balanced", "cfs", "cont", "inv", "pmi"))
    },
    "lambda_ce": 0.5,
    "lambda_ft": 0.0,
    "generator_steps": 5000,
    "generator_lr": 1e-3,
    "generator_batch": 128,
    "generator_temperature": 1000.0,
    "generator_smoothness": 1e-3,
    "generator_statistics": 50.0,
}
PLAIN = {name: value for name, value in SHARED.items() if name != "rkd_dim"} | {
    "lr_milestones": (0.5, 0.75),
    "lr_gamma": 0.1,
    "n_epochs": 160,
}
PRESETS: list[tuple[str, str, dict[str, Any]]] = [
    ("pmi_rdfcil", "paper", PAPER),
    ("pmi_rdfcil", "code", CODE),
    ("pmi_rdfcil", "rdfcil", PMI_UNDER_RDFCIL),
    ("rdfcil", "paper", RDFCIL),
    ("sgd", "code", PLAIN),
    ("joint", "code", PLAIN),
]
UNUSED = {"stem_steps"}  # ours, and without effect under these presets: no start "stem"


@pytest.mark.parametrize(
    ("name", "preset", "expected"), PRESETS, ids=[f"{name}-{preset}" for name, preset, _ in PRESETS]
)
def test_every_value_of_a_preset_is_its_sources(name: str, preset: str, expected: dict[str, Any]) -> None:
    """An option that no source knows, being ours, must be off."""
    argv = ["--model", name, "--dataset", "seq-cifar100", "--n_tasks", "10", "--model_config", preset]
    resolved = resolve(argv)
    found = {spec.name: getattr(resolved.args, spec.name) for spec in resolved.model.options}
    ours = {spec.name for spec in resolved.model.options if "ours" in spec.source} - UNUSED
    assert not any(found[option] for option in ours)
    assert {option: value for option, value in found.items() if option not in ours | UNUSED} == expected


def test_the_network_and_the_data_are_the_papers() -> None:
    args = resolve(["--model", "pmi_rdfcil", "--dataset", "seq-cifar100"]).args
    assert (args.model_config, args.backbone, args.n_tasks, args.class_order) == ("paper", "resnet32", 10, "rdfcil0")


@pytest.mark.parametrize(("preset", "images"), [("code", (5000, 7000, 21000)), ("paper", (20000, 20000, 20000))])
def test_the_released_buffer_grows_with_the_tasks(
    preset: str, images: tuple[int, ...], digits: SeqDigits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Register 2.1: 3000 + 2000 t images before new task t (from 1), of ten; the appendix has 20,000 before each."""
    inversions = recorded_inversions(monkeypatch)
    for task in (1, 2, 9):
        model = method("pmi_rdfcil", preset, digits)
        old = task * digits.N_CLASSES_PER_TASK
        model.current_task, model.teacher = task, model.net
        model.gaussians = ClassGaussians(torch.zeros(old, 64), torch.ones(old, 64))
        with pytest.raises(Enough):
            model.begin_task(digits)
    assert (
        tuple(len(made["targets"]) for made in inversions)
        == tuple(len(made["labels"]) for made in inversions)
        == images
    )


def test_replay_methods_share_one_loop() -> None:
    assert all(issubclass(catalogue.load("model", name), ReplayTraining) for name in ("rdfcil", "pmi_rdfcil"))
