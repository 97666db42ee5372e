"""Learning rates and stages, epoch by epoch, as the presets give them through the command line."""

from __future__ import annotations

from typing import Any

import pytest

from pmi_cl.models.resnet.replay_training import ReplayTraining
from pmi_cl.models.resnet.stages import one_schedule, stage_at, unfreezing_schedule
from pmi_cl.registry import catalogue
from pmi_cl.utils.arguments.presets import presets_of
from tests.support.preset_runs import digits, method


def rates(model: Any, task: int) -> list[float]:
    """Return the learning rate of every epoch of a task."""
    model.current_task = task
    stages = model.plan()
    return [stage_at(stages, epoch).rate(epoch) for epoch in range(model.n_epochs())]


def trains(model: Any, task: int) -> list[str]:
    """Return what every epoch of a task trains."""
    model.current_task = task
    stages = model.plan()
    return [stage_at(stages, epoch).trains for epoch in range(model.n_epochs())]


def trace(*parts: tuple[float, int]) -> list[float]:
    """Return the rates of all epochs of these (rate, epochs) in turn."""
    return [rate for rate, epochs in parts for _ in range(epochs)]


RDFCIL_FIRST = trace((0.1, 80), (0.01, 40), (0.001, 40))
RDFCIL_LATER = [*RDFCIL_FIRST, *trace((0.005, 40))]
APPENDIX = trace((0.1, 40), (0.05, 40), (0.025, 40), (0.0125, 40), (0.00625, 40))
RELEASED_FIRST = trace((0.1, 80), (0.01, 40), (0.001, 80))
RELEASED_LATER = trace(
    (0.1, 20),  # no scheduler reaches the stage of the head
    *((0.05, 10), (0.005, 5), (0.0005, 5)),
    *((0.01, 60), (0.001, 30), (0.0001, 30)),
    (0.005, 40),
)

RELEASED_LATER_40 = trace(
    (0.1, 4),
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
def test_the_rate_of_every_epoch(name: str, preset: str, first: list[float], later: list[float]) -> None:
    model = method(name, preset)
    assert rates(model, 0) == pytest.approx(first)
    assert rates(model, 1) == pytest.approx(later)
    assert rates(model, 9) == pytest.approx(later)


@pytest.mark.parametrize("name", ["sgd", "joint"])
def test_the_rate_of_plain_training(name: str) -> None:
    model = method(name, "code")
    model.grow()
    model.begin_task(digits())
    found = []
    for epoch in range(model.n_epochs()):
        model.begin_epoch(epoch, digits())
        found += [group["lr"] for group in model.opt.param_groups]
    assert found == pytest.approx(RDFCIL_FIRST)


@pytest.mark.parametrize(
    ("epochs", "expected"), [(1, [0.1]), (2, [0.1, 0.0125]), (5, [0.1, 0.05, 0.025, 0.0125, 0.00625])]
)
def test_a_task_begins_at_the_rate_that_was_asked_for_however_few_its_epochs(
    epochs: int, expected: list[float]
) -> None:
    """The appendix's milestones are at 0.2, 0.4, 0.6 and 0.8.

    Two epochs would put the first two before epoch 0.
    """
    flags = ("--n_epochs", str(epochs), "--classifier_part", "0")
    for task in (0, 1):
        assert rates(method("pmi_rdfcil", "paper", *flags), task) == pytest.approx(expected)
    plain = method("sgd", "none", *flags[:2], "--lr", "0.1", "--lr_gamma", "0.5", "--lr_milestones", "0.2,0.4,0.6,0.8")
    plain.grow()
    plain.begin_task(digits())
    found = []
    for epoch in range(epochs):
        plain.begin_epoch(epoch, digits())
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
def test_what_every_epoch_trains(name: str, preset: str, stages: list[tuple[str, int]]) -> None:
    model = method(name, preset)
    assert set(trains(model, 0)) == {"all"}
    assert trains(model, 1) == [part for part, epochs in stages for _ in range(epochs)]


def test_hard_distillation_is_weak_while_the_head_alone_trains() -> None:
    model = method("pmi_rdfcil", "code")
    model.current_task = 1
    assert [stage.hkd_scale for stage in model.plan()] == [0.01, 1, 1, 1]
    assert [stage.rkd for stage in model.plan()][:3] == [False, True, True]


def test_the_optimiser_starts_anew_where_the_released_code_makes_one() -> None:
    """R-DFCIL trains on with one optimiser; the released code builds one for each stage."""
    fresh = {}
    for name, preset in (("rdfcil", "paper"), ("pmi_rdfcil", "code")):
        model = method(name, preset)
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
def test_a_schedule_scales_with_its_epochs(name: str, preset: str, first: list[float], later: list[float]) -> None:
    model = method(name, preset, "--n_epochs", "40")
    assert rates(model, 0) == pytest.approx(first)
    assert rates(model, 3) == pytest.approx(later)


@pytest.mark.parametrize("preset", presets_of("pmi_rdfcil", catalogue.INSTALLED).presets)
def test_any_number_of_epochs_is_parted_without_a_gap(preset: str) -> None:
    for n_epochs in range(1, 31):
        model = method("pmi_rdfcil", preset, "--n_epochs", str(n_epochs))
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


def test_replay_methods_share_one_loop() -> None:
    assert all(issubclass(catalogue.load("model", name), ReplayTraining) for name in ("rdfcil", "pmi_rdfcil"))
