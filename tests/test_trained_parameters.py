"""Which parameters each stage of training moves, and at which rates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pmi_cl.models.continual_model import ContinualModel
from tests.support.method_runs import ONE_BY_ONE, REPLAY_CASES, REPLAYING, WAYS
from tests.support.small_runs import RESNET_METHODS, begin, epochs, options_of, start, train_task


def named(model: ContinualModel) -> dict[str, Tensor]:
    """Return a copy of every parameter and buffer of the method, of whichever network."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def frozen(model: ContinualModel) -> dict[str, Tensor]:
    """Return what no optimiser can reach.

    That is the tensors of every part that holds no parameter with a gradient, such as the teacher.
    """
    parts = [(name, part) for name, part in model.named_children() if name != "net"]
    held = [(name, part) for name, part in parts if not any(parameter.requires_grad for parameter in part.parameters())]
    return {f"{name}.{key}": value.clone() for name, part in held for key, value in part.state_dict().items()}


@pytest.mark.parametrize("method", RESNET_METHODS)
def test_everything_moves_in_the_first_task(method: str) -> None:
    training = start(method, n_epochs=1, first_task_part=1)
    model = begin(training, 0)
    before = named(model)
    for _ in epochs(training, 0):
        everything = {f"net.{name}" for name in model.net.state_dict()}
        assert {name for name in moved(before, named(model)) if name.startswith("net.")} == everything


@pytest.mark.parametrize("method", [method for method in ONE_BY_ONE if method in RESNET_METHODS])
def test_what_is_frozen_stays_while_a_task_is_trained(method: str) -> None:
    training = start(method)
    train_task(training, 0).end_task(training.shown)
    model = begin(training, 1)
    before = frozen(model)
    assert bool(before) == hasattr(model, "teacher")
    for _ in epochs(training, 1):
        assert moved(before, frozen(model)) == set()


def may_move(model: Any) -> set[str]:
    """Return which tensors each stage trains.

    BatchNorm's statistics move with the layers around them, or not at all.
    """
    net, stage, newest = model.net, model.stage.trains, f"net.head.tasks.{model.current_task}."
    every_head = stage == "classifier" or (stage == "all" and model.options.train_old_heads)
    heads = ("net.head.",) if every_head else (newest,)
    stem = ("net.stem.",) if model.options.train_stem else ()
    body = {"all": (*stem, "net.blocks."), "last block and head": (f"net.blocks.{len(net.blocks) - 1}.",)}.get(
        stage, ()
    )
    rest = ("projections.",) if stage in ("all", "last block and head") else ()  # RKD is in these losses alone
    return {name for name in model.state_dict() if name.startswith((*heads, *body, *rest))}


@pytest.mark.parametrize(("method", "way"), [*REPLAY_CASES, *((method, "newest head") for method in REPLAYING)])
def test_each_stage_moves_its_own_parameters_and_no_others(method: str, way: str) -> None:
    """Weight decay and momentum are on, and the optimiser has seen the frozen layers before.

    Neither may move them.
    """
    training = start(method, **WAYS.get(way, {"train_old_heads": 0}))
    train_task(training, 0).end_task(training.shown)
    model: Any = begin(training, 1)
    before, stages = named(model), []
    for _ in epochs(training, 1):
        after = named(model)
        stages.append(model.stage.trains)
        assert moved(before, after) == may_move(model), stages
        before = after
    assert stages[0] == ("head" if way == "unfreezing" else "all") and stages[-1] == "classifier"


@pytest.mark.parametrize("method", [method for method in RESNET_METHODS if "lr_milestones" in options_of(method)])
def test_the_optimiser_has_the_rate_of_the_schedule(method: str) -> None:
    training = start(method, n_epochs=10, lr=0.5, lr_milestones="0.2,0.6", lr_gamma=0.1, first_task_part=1)
    model: Any = begin(training, 0)
    rates = []
    for epoch in range(model.n_epochs()):
        model.begin_epoch(epoch, training.shown)
        rates += [group["lr"] for group in model.opt.param_groups]
    assert rates == pytest.approx([0.5] * 2 + [0.05] * 4 + [0.005] * 4)
