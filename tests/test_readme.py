"""Test that what the README shows runs as it stands there.

That is the engine alone on a network of one's own, and a method of one's own.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.seeding import seeded
from tests.support.forked_python import run_python

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PARTS = ("pmi_cl", "models", "datasets", "backbones", "inversion", "utils", "main.py", "setup.cfg")


def block(mark: str) -> str:
    """Return the one block of Python in the README that holds ``mark``."""
    (found,) = [text for text in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if mark in text]
    return str(found)


# The engine alone.


def digits_at_32() -> tuple[Tensor, Tensor]:
    """Return scikit-learn's digits as a user might have them.

    They are normalised images (1797, 3, 32, 32) and labels 0 to 9.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    grey = torch.from_numpy(data.images).float()[:, None] / 16
    images = F.interpolate(grey, size=32, mode="bilinear").expand(-1, 3, -1, -1)
    return ((images - images.mean()) / images.std()).contiguous(), torch.from_numpy(data.target).long()


def trained_network() -> nn.Module:
    """Return a small convolutional network with BatchNorm that knows the digits."""
    torch.manual_seed(0)
    widths = (3, 16, 32, 32)
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [
            nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
        ]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    images, labels = digits_at_32()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for epoch in range(4):
        for rows in torch.randperm(len(images), generator=seeded(0, epoch)).split(64):
            loss = F.cross_entropy(network(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()


def test_the_engine_alone() -> None:
    """The block runs as it stands, but for the line that leaves the network to the reader."""
    text = block("from pmi_cl.inversion.invert import invert")
    theirs = "my_network = ...  # yours, trained, with BatchNorm; it is not changed\n"
    assert text.count(theirs) == 1
    network = trained_network()
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    names: dict[str, Any] = {"my_network": network}
    exec(compile(text.replace(theirs, ""), "README.md", "exec"), names)
    result = names["result"]
    assert result.images.shape == (200, 3, 32, 32)
    with torch.no_grad():
        recognised = (network(result.images).argmax(1) == torch.arange(200) % 10).float().mean()
    assert recognised > 0.95
    assert result.judged.keys() == {"CrossEntropy", "StatisticsMatch", "TotalVariation", "total"}
    assert (result.report.images, result.report.steps) == (200, 200) and result.report.peak_memory_mib > 0
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


# A method of one's own.


def test_a_method_of_ones_own(tmp_path: Path) -> None:
    """The block lies in a copy of the checkout, in the file that the README says.

    The command is the one that it says, on fewer images.
    """
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for part in PARTS:
        source = ROOT / part
        (shutil.copytree if source.is_dir() else shutil.copy)(source, checkout / part)
    (place,) = re.findall(r"Put a file into `models/`, say `(models/\w+\.py)`", README)
    text = block('NAME = "cautious"')
    (checkout / place).write_text(text, encoding="utf-8")

    def run(words: list[str]) -> str:
        done = run_python(words, checkout)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert re.search(r"cautious +Fine-tuning that slows down task by task\.", run(["main.py", "--list"]))
    assert "--lr FLOAT" in run(["main.py", "--help", "--model", "cautious"])
    (command,) = re.findall(r"`python (main\.py --model cautious [^`]*)`", README)
    small = "--n_classes 4 --n_tasks 2 --train_per_class 12 --num_threads 1 --run_name mine"
    small += " --lr 0.02 --lr_milestones 0.5 --lr_gamma 0.5"
    out = run([*shlex.split(command), *small.split()])
    assert "cautious on seq-digits, seed 0: A_2 = " in out
    folder = checkout / "runs" / "cautious" / "seq-digits" / "mine"
    assert json.loads((folder / "results.json").read_text())["status"] == "finished"
    assert rates(folder) == {0.02, 0.01, 0.005}  # the second task at half the rate of the first


def rates(folder: Path) -> set[float]:
    """Return the learning rates of a run, from its TensorBoard events."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {round(event.value, 6) for event in events.Scalars("learning rate")}
