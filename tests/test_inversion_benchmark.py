"""Test the inversion benchmark.

Its naive loop follows the engine's gradient. The command runs, reports and refuses.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from pmi_cl.backbones.resnet_cifar import ResNetCifar, resnet20
from pmi_cl.benchmarks.naive_inversion import NaiveInversion
from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.engine.engine import Inversion
from pmi_cl.inversion.engine.problem import Problem, frozen_network
from pmi_cl.inversion.starts import STARTS
from tests.support.forked_python import run_python
from tests.support.small_networks import randomise_norms

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "benchmarks" / "inversion.py"


def _network() -> ResNetCifar:
    torch.manual_seed(0)
    network = resnet20()
    randomise_norms(network)
    return network


def test_the_naive_loop_and_the_engine_take_the_same_step() -> None:
    network, start, targets = _network(), torch.randn(12, 3, 32, 32), torch.randn(12, 64)
    naive = NaiveInversion(network, start, targets, lr=0.15, alpha=1.6)
    gradient, naive_loss = naive.gradient(), naive.step()
    config = InversionConfig(steps=1)
    frozen = frozen_network(network.pieces(), None, config)
    inversion = Inversion(Problem(frozen, config, image_shape=(3, 32, 32), targets=targets))
    inversion.load({**inversion.state(), "carry": start})
    progress = next(inversion.run())
    assert inversion.descent is not None and inversion.descent.x.grad is not None
    distance = (inversion.descent.x.grad - gradient).norm() / gradient.norm()
    assert distance < 1e-4
    torch.testing.assert_close(progress.loss, naive_loss, rtol=1e-5, atol=1e-6)


def test_the_naive_loop_keeps_what_makes_it_naive() -> None:
    network = _network()
    naive = NaiveInversion(network, torch.randn(4, 3, 32, 32), torch.randn(4, 64), lr=0.15, alpha=0.1)
    naive.step()
    assert all(parameter.grad is not None for piece in naive.network.pieces() for parameter in piece.parameters())
    assert all(parameter.grad is None for parameter in network.parameters()), "the network that was given is left alone"


def _run(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return run_python([str(SCRIPT), *words], folder, environment)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "nowhere", "--offline"], "cifar-100-python"),
        (["--images", "15"], "multiple of 10"),
        (["--parts", "speed"], "choose from per_step, equal_loss, starts"),
        (["--threads", "0"], "at least 1"),
        (["--json", "missing/folder/b.json", "--data", "nowhere", "--offline"], "missing/folder"),
    ],
)
def test_a_mistake_is_answered_in_one_line(words: list[str], said: str, tmp_path: Path) -> None:
    done = _run(*words, folder=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_the_command_measures_everything(cifar100_dir: Path, tmp_path: Path) -> None:
    done = _run("--quick", "--data", str(cifar100_dir), "--offline", "--json", "b.json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "b.json").read_text())
    assert record["per_step_ratio"] > 0
    assert set(STARTS) <= set(record["equal_loss_ratio"])
    assert record["per_step"]["gradients"]["fp32"]["to_naive_median_image"] < 1e-4
    assert record["per_step"]["gradients"]["fp64"]["to_float64"] < 1e-6
    rows = {row["start"]: row for row in record["starts"]}
    pmi = next(row for name, row in rows.items() if name == "pmi")
    equal = rows["control: noise, pmi's step-equivalents"]
    assert equal["step_equivalents"] == pytest.approx(pmi["step_equivalents"], abs=0.5)
    assert all(0 <= row["agreement_b"] <= 1 for row in rows.values())
    assert "B agrees" in done.stdout and "best" in done.stdout
