"""Our SGD against torch's, bit for bit, step by step and across a change of hands."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from pmi_cl.models.training.momentum_sgd import MomentumSGD
from pmi_cl.seeding import seeded

SETTINGS = [{"momentum": 0.9, "weight_decay": 5e-4}, {"momentum": 0.9}, {"weight_decay": 0.1}, {}]


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3), nn.Linear(3, 2))
    return network, copy.deepcopy(network)


def push(network: nn.Module, step: int) -> None:
    """Set the gradients of a step.

    The second layer has none in step 0, so that its momentum begins later.
    """
    for place, parameter in enumerate(network.parameters()):
        parameter.grad = (
            None if step == 0 and place in (2, 3) else torch.randn(parameter.shape, generator=seeded(step, place))
        )


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_every_step_is_torchs(settings: dict[str, float]) -> None:
    mine, theirs = networks()
    ours, reference = (
        MomentumSGD(mine.parameters(), 0.1, **settings),
        torch.optim.SGD(theirs.parameters(), 0.1, **settings),
    )
    for step in range(5):
        for optimiser, network in ((ours, mine), (reference, theirs)):
            optimiser.param_groups[0]["lr"] = 0.1 / (step + 1)
            push(network, step)
            optimiser.step()
        assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))


def test_a_state_of_torchs_goes_on_in_ours() -> None:
    """Checkpoints of older runs hold such a state."""
    mine, theirs = networks()
    first, second = (
        MomentumSGD(mine.parameters(), 0.1, 0.9, 1e-3),
        torch.optim.SGD(theirs.parameters(), 0.1, 0.9, weight_decay=1e-3),
    )
    for step in range(4):
        if step == 3:
            mine.load_state_dict(theirs.state_dict())
            first.load_state_dict(copy.deepcopy(second.state_dict()))  # torch would share the tensors
            push(mine, step)
            first.step()
        push(theirs, step)
        second.step()
    assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))


def test_a_run_trains_without_torchs_compiler() -> None:
    """Its import takes as long as torch's."""
    code = """
import sys, tempfile
from pmi_cl.cli import main
with tempfile.TemporaryDirectory() as folder:
    words = ["--model", "sgd", "--dataset", "seq-digits", "--n_epochs", "1", "--train_per_class", "4"]
    words += ["--batch_size", "4", "--results_path", folder]
    code = main([*words, "--stop_after", "1", "--tensorboard", "0", "--num_threads", "1"])
print(code, "torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 False"
