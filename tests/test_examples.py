"""The examples that the README shows, run as it shows them."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.foreign_networks import PUBLISHED_RESNET32, published_resnet32, torchvision_models
from tests.support.forked_python import run_python

ROOT = Path(__file__).resolve().parents[1]


# What the README shows.


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return run_python(command, env=environment)


def test_torchvision_imports_after_the_shim_called_any_number_of_times() -> None:
    torchvision_models()  # skips where it is not installed
    shim = "from pmi_cl.machine.torchvision_shim import ensure_torchvision as e"
    code = f"{shim}; e(); e(); import torchvision; e(); torchvision.models.resnet18()"
    # Not forked: where torchvision has not been imported yet.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_the_example_of_the_readme_makes_a_picture(tmp_path: Path) -> None:
    from PIL import Image

    torchvision_models()
    picture = tmp_path / "grid.png"
    size = ["--size", "32", "--steps", "2", "--per-class", "3", "--classes", "0", "7"]
    done = run("examples/invert_your_network.py", *size, "--out", str(picture))
    assert done.returncode == 0, done.stderr
    assert "2 steps" in done.stdout and str(picture) in done.stdout
    with Image.open(picture) as grid:
        assert grid.size == (3 * 32, 2 * 32) and len(set(grid.convert("L").tobytes())) > 20


def test_the_example_takes_any_network_and_its_published_weights(tmp_path: Path) -> None:
    published_resnet32()  # skips where the weights are not at hand
    options = [
        "--network",
        "tests.support.foreign_networks:cifar_resnet32",
        "--weights",
        str(PUBLISHED_RESNET32),
        "--size",
        "16",
    ]
    done = run(
        "examples/invert_your_network.py",
        *options,
        "--steps",
        "40",
        "--per-class",
        "2",
        "--out",
        str(tmp_path / "grid.png"),
    )
    assert done.returncode == 0, done.stderr
    recognised = re.search(r"20 images, 40 steps, .* recognises (\d+) %", done.stdout)
    assert recognised and int(recognised[1]) >= 80


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("my_package.networks:resnet32", "there is no module my_package: give MODULE:FUNCTION of a network of yours"),
        ("tests.support.foreign_networks:resnet99", "write MODULE:FUNCTION, such as"),
        ("tests.support.foreign_networks", "write MODULE:FUNCTION, such as"),
        (":resnet32", "write MODULE:FUNCTION, such as"),
    ],
)
def test_the_example_says_what_is_wrong_with_a_network(network: str, message: str) -> None:
    done = run("examples/invert_your_network.py", "--network", network)
    assert done.returncode == 2 and done.stderr.startswith(f"--network {network}: ") and message in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_example_refuses_a_network_that_cannot_be_taken_apart_in_one_line() -> None:
    done = run("examples/invert_your_network.py", "--network", "tests.support.foreign_networks:PoolsOtherwise")
    assert done.returncode == 2 and "pass pieces=[...] and head=..." in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--weights", "gone.pt"], "--weights gone.pt: not the weights of this network (no file of weights at gone.pt"),
        (["--weights", "README.md"], "--weights README.md: not the weights of this network ("),
        (["--classes", "0", "10"], "--classes 10: the network has 10 outputs, give numbers from 0 to 9"),
        (["--out", "nowhere/x.png"], "--out nowhere/x.png: give a file in a folder that exists"),
        (["--out", "x.pgn"], "--out x.pgn: end it with .png"),
        (["--steps", "0"], "give 1 or more"),
    ],
)
def test_the_example_refuses_before_the_work(words: list[str], message: str) -> None:
    done = run(
        "examples/invert_your_network.py",
        "--network",
        "tests.support.foreign_networks:cifar_resnet32",
        "--size",
        "16",
        *words,
    )
    assert done.returncode == 2 and message in done.stderr
    assert done.stderr.count("\n") == 1 and "inverted.png" not in {path.name for path in ROOT.iterdir()}


def test_the_example_of_invert_runs() -> None:
    from pmi_cl.inversion import invert as module

    outcome = doctest.testmod(module)
    assert outcome.attempted == 5 and outcome.failed == 0
