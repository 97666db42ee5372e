"""What a method on a CLIP trains, what stays as it is, and that a seed decides."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from pmi_cl.models.clip.clip_model import ClipModel
from pmi_cl.models.clip.map_replay import MapReplay
from pmi_cl.utils.run.training import Training
from tests.support.clip_runs import LONG, TRAINED, model_of, trained
from tests.support.small_runs import CLIP_METHODS, begin, differences, epochs, finished, start, tensors_in, train_task


def place_names(model: ClipModel) -> dict[int, set[str]]:
    """Return every name in ``state_dict`` of each tensor that the method holds.

    What stands in a block has two names.
    """
    names: dict[int, set[str]] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        names.setdefault(id(value), set()).add(name)
    return names


@pytest.mark.parametrize("method", CLIP_METHODS)
@pytest.mark.parametrize("weight_decay", [0, 0.1])
def test_only_what_is_learned_moves(method: str, weight_decay: float) -> None:
    """The optimiser of the first task has seen what is frozen in the second."""
    training = start(method, optim_wd=weight_decay, warmup_steps=0)
    model = model_of(training)
    for task in range(2):
        begin(training, task)
        names = place_names(model)
        wanted = {name for parameter in model.trainable_parameters() for name in names[id(parameter)]}
        before = {name: value.clone() for name, value in model.state_dict().items()}
        for _ in epochs(training, task):
            pass
        assert {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])} == wanted
        model.end_task(training.shown)
    assert bool(wanted) == (method in TRAINED)
    assert {name for name, value in model.net.named_parameters() if value.requires_grad} <= {
        name.removeprefix("net.") for name in wanted
    }


@pytest.mark.parametrize("method", TRAINED)
def test_the_towers_stay_in_evaluation_mode(method: str) -> None:
    training = start(method)
    model: Any = begin(training, 0)
    model.set_modes()
    ours = {id(module) for module in model.learned.modules()}
    assert all(module.training == (id(module) in ours) for module in (*model.net.modules(), *model.learned.modules()))


@pytest.mark.parametrize("method", TRAINED)
def test_it_learns(method: str) -> None:
    training = start(method, **{**LONG, "n_epochs": 12, "head_input": "raw"})
    model: Any = begin(training, 0)
    model.net.logit_scale.data.fill_(math.log(100))  # as trained CLIPs have it
    losses: list[list[float]] = []
    for epoch in range(12):
        model.set_modes()
        batches = enumerate(training.shown.train_batches(0, epoch, model.options.batch_size))
        losses.append([float(model.observe(*batch, epoch=epoch, step=step)["loss"]) for step, batch in batches])
    assert np.mean(losses[-1]) < 0.85 * np.mean(losses[0])


@pytest.mark.parametrize("method", TRAINED)
def test_a_seed_decides_what_is_learned(method: str) -> None:
    one, same, other = (
        finished(method, n_epochs=1, stop_after=1, seed=seed).model.learned.state_dict() for seed in (0, 0, 1)
    )
    assert differences(one, same) == []
    assert not any(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("method", TRAINED)
def test_each_step_has_its_own_random_numbers(method: str) -> None:
    training = trained(method)
    model = model_of(training)
    inputs, labels, raw = next(training.shown.train_batches(1, 0, 16))
    learned = {name: value.clone() for name, value in model.learned.state_dict().items()}

    def loss(step: int) -> float:
        model.learned.load_state_dict(learned)
        model.opt = model.new_optimizer(model.trainable_parameters())
        model.set_modes()
        value = float(model.observe(inputs, labels, raw, epoch=0, step=step)["loss"])
        model.learned.load_state_dict(learned)
        model.net.eval()
        return value

    assert loss(0) == loss(0) and (loss(0) != loss(1)) == (
        method == "moe_adapters" or isinstance(model.replay, MapReplay)
    )


@pytest.mark.parametrize("method", CLIP_METHODS)
def test_a_checkpoint_leaves_the_towers_out(method: str) -> None:
    training = start(method)
    train_or_begin(training)
    model = model_of(training)
    frozen = {id(parameter) for parameter in model.net.parameters() if not parameter.requires_grad} - {
        id(parameter) for parameter in model.learned.parameters()
    }
    towers = {value.data_ptr() for value in model.net.parameters() if id(value) in frozen}
    assert towers and not towers & {tensor.data_ptr() for tensor in tensors_in(model.state())}


def train_or_begin(training: Training) -> None:
    train_task(training, 0) if training.model.n_epochs() else begin(training, 0)
