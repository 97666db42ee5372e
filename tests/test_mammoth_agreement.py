"""Test that methods inside Mammoth and in our own runner agree, and scripts that use both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pmi_cl.cli import main
from pmi_cl.registry import catalogue
from pmi_cl.utils.arguments.command_line import resolve
from pmi_cl.utils.run.building import build_model
from tests.support.mammoth_runs import FEW, STAND_IN, contents, mammoth, python, raw

WEIGHTS = """
import sys
from pmi_cl.mammoth import register
bridge = register(sys.argv.pop())
assert register() is bridge
sys.argv = ["main.py", "--model", "pmi_rdfcil", "--dataset", "seq-digits", "--seed", "5"]
import main
from pmi_cl.models.resnet.pmi_rdfcil import PmiRdfcil
hosted, dataset, args = main.initialize()
assert type(hosted.method) is PmiRdfcil and hosted.method.net is hosted.net
print(sum(float(p.double().abs().sum()) for p in hosted.net.parameters()))
"""


def test_it_is_the_same_class_with_the_same_weights_in_both_worlds(mammoth_host: Path, tmp_path: Path) -> None:
    """There is one implementation and one policy of seeds.

    A network's first weights depend on the seed alone.
    """
    resolved = resolve(["--model", "pmi_rdfcil", "--dataset", "seq-digits", "--seed", "5"])
    model = build_model(resolved, catalogue.load("dataset", "seq-digits")(resolved.args, "cpu"))
    ours = sum(float(p.detach().double().abs().sum()) for p in model.net.parameters())
    assert python(tmp_path, WEIGHTS, str(mammoth_host)) == str(ours)


@pytest.mark.parametrize(
    "more",
    [["--augment", "abd"], ["--model", "vpt", "--backbone", "clip-tiny", "--flip", "1"]],
    ids=["pmi_rdfcil", "vpt"],
)
def test_on_a_data_set_of_ours_a_run_ends_as_in_our_own_runner(more: list[str], tmp_path: Path) -> None:
    """Images, order, crops and random numbers are the same.

    So are the accuracies, to the last digit.
    """
    small = ["--n_epochs", "2", "--train_per_class", "20", "--batch_size", "16", "--seed", "3", "--lr", "0.05"]
    inverted = ["--buffer_images", "40", "--inv_batch", "40", "--inv_steps", "5", "--cont_epochs", "5"]
    model = [] if "--model" in more else ["--model", "pmi_rdfcil", *inverted]
    words = [*model, *more, "--dataset", "seq-digits", *small]
    assert main([*words, "--num_threads", "1", "--results_path", str(tmp_path / "runs"), "--run_name", "own"]) == 0
    (record,) = tmp_path.glob("runs/*/seq-digits/own/results.json")
    expected = json.loads(record.read_text())["class_il"]["matrix"]
    assert max(expected[-1]) > 15 and raw(mammoth(tmp_path, STAND_IN, *words)) == expected


def test_a_script_inside_mammoth_registers_with_one_line(mammoth_host: Path, tmp_path: Path) -> None:
    code = f"""
import os, sys
sys.path.insert(0, {str(mammoth_host)!r})
from pmi_cl.mammoth import register
register()
import models, datasets, backbone
print(sorted({{"pmi-rdfcil", "seq-digits", "pmi-resnet32", "pmi-seq-cifar100", "pmi-sgd"}}
    & {{*models.REGISTERED_MODELS, *datasets.REGISTERED_DATASETS, *backbone.REGISTERED_BACKBONES}}))
"""
    assert python(tmp_path, code) == "['pmi-rdfcil', 'pmi-resnet32', 'pmi-seq-cifar100', 'pmi-sgd', 'seq-digits']"


def test_a_script_leaves_its_results_where_it_is(mammoth_host: Path, tmp_path: Path) -> None:
    """Importing Mammoth makes its checkout the current folder, and registering does not.

    Nothing is written into the checkout, not even bytecode.
    """
    code = """
import os, sys
from pmi_cl.mammoth import register
here = os.getcwd()
register(sys.argv.pop(1))
sys.argv[0] = "main.py"
import main
from utils.training import train
train(*main.initialize())
print(os.getcwd() == here)
"""
    before = contents(mammoth_host)
    words = ["--model", "pmi-sgd", "--dataset", "seq-digits", *FEW, "--stop_after", "1", "--savecheck", "last"]
    assert python(tmp_path, code, str(mammoth_host), *words, "--checkpoint_path", "kept") == "True"
    assert (tmp_path / "data/results/class-il/seq-digits/pmi_sgd/logs.pyd").is_file()
    assert len(list((tmp_path / "kept").glob("*.pt"))) == 1
    assert contents(mammoth_host) == before
