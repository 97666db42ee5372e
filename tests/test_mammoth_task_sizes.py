"""Test tasks of different sizes inside Mammoth."""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from pmi_cl.cli import main
from pmi_cl.mammoth.equal_tasks import place_of_one_size
from tests.support.mammoth_runs import ACCURACY, FEW, REAL, ROOT, STAND_IN, mammoth, python, raw, run

INVERTED = ["--buffer_images", "40", "--inv_batch", "40", "--inv_steps", "5", "--cont_epochs", "5"]
TRAINED = ["--n_epochs", "2", "--train_per_class", "20", "--batch_size", "16", "--seed", "0", "--lr", "0.05"]
LISTED = ["--classes_per_task", "4,3,2,1"]
BASE = ["--base_classes", "4", "--n_tasks", "4"]
# What the snapshot of Mammoth that the bridge was tried with has: all that docs/mammoth.md names.
OF_ONE_SIZE = {
    *("bic", "ccic", "derpp_cscct", "er_ace_cscct", "hal", "icarl", "icarl_casper", "icarl_cscct"),
    *("lucir", "lwf_mc", "rpc", "twf", "xder", "xder_ce", "xder_rpc", "xder_rpc_casper", "xder_rpc_cscct"),
    "xder_rpc_star",
}


@pytest.mark.parametrize(
    ("model", "sizes"),
    [(["pmi_rdfcil", *INVERTED], BASE), (["vpt", "--backbone", "clip-tiny"], LISTED)],
    ids=["pmi_rdfcil-base", "vpt-listed"],
)
def test_a_run_ends_as_in_our_own_runner(
    model: list[str], sizes: list[str], mammoth_host: Path, tmp_path: Path
) -> None:
    words = ["--model", *model, "--dataset", "seq-digits", *TRAINED, *sizes]
    own = ["--results_path", str(tmp_path / "runs"), "--run_name", "own", "--num_threads"]
    if mammoth_host == STAND_IN:
        assert main([*words, *own, "1"]) == 0
    else:  # as many threads as Mammoth's main.py sets
        assert run(tmp_path, *words, *own, "2").returncode == 0
    (record,) = tmp_path.glob("runs/*/seq-digits/own/results.json")
    expected = json.loads(record.read_text())["class_il"]["matrix"]
    assert max(expected[-1]) > 15
    found = raw(mammoth(tmp_path, mammoth_host, *words, "--num_workers", "0"))
    # Mammoth divides first and then multiplies by 100, which rounds otherwise.
    assert found == [pytest.approx(row, rel=1e-12) for row in expected]


def test_a_checkpoint_brings_the_sizes(mammoth_host: Path, tmp_path: Path) -> None:
    """Mammoth keeps them as a text. The next task ends as if the run had not been stopped."""
    words = ["--model", "pmi_rdfcil", *INVERTED, "--dataset", "seq-digits", *TRAINED, *LISTED, "--num_workers", "0"]
    whole = raw(mammoth(tmp_path, mammoth_host, *words, "--stop_after", "3", "--savecheck", "task"))
    (second,) = (tmp_path / "checkpoints").glob("*_1.pt")
    again = mammoth(tmp_path, mammoth_host, "--loadcheck", str(second), "--start_from", "2", "--stop_after", "3")
    assert raw(again) == whole[-1:]


@pytest.mark.parametrize(
    "model", [["pmi_rdfcil", *INVERTED, "--pmi_steps", "2"], ["zsclip", "--backbone", "clip-tiny"]]
)
def test_a_data_set_of_mammoths_with_a_list_of_sizes(model: list[str], tmp_path: Path) -> None:
    trained = TRAINED if model[0] == "pmi_rdfcil" else ["--seed", "0"]
    words = [word for word in trained if word not in ("--train_per_class", "20")]
    text = mammoth(tmp_path, STAND_IN, "--model", *model, "--dataset", "seq-uneven", *words)
    assert [len(row) for row in raw(text)] == [1, 2, 3, 4]


def test_a_method_of_mammoths_that_takes_any_sizes(mammoth_host: Path, tmp_path: Path) -> None:
    rehearsal = ["--model", "derpp", "--buffer_size", "50", "--alpha", "0.3", "--beta", "0.5"]
    text = mammoth(tmp_path, mammoth_host, *rehearsal, "--dataset", "seq-digits", *FEW, *LISTED)
    assert [int(task) for task, _ in ACCURACY.findall(text)] == [1, 2, 3, 4]


def test_a_method_that_needs_one_size_has_it_in_joint_training_and_in_equal_tasks(tmp_path: Path) -> None:
    for more in ([*LISTED, "--joint", "1"], ["--n_tasks", "2"]):
        words = ["--model", "lwf_mc", "--dataset", "seq-digits", *FEW, "--lr", "0.05", *more]
        assert ACCURACY.findall(mammoth(tmp_path, STAND_IN, *words))


METHODS = {
    "torch.eye(dataset.N_CLASSES_PER_TASK * n)": 1,
    "n = 0\nresp[: (self.current_task + 1) * self.cpt]": 2,
    "numpy.zeros((self.n_tasks, 500, self.cpt), numpy.float32)": 1,
    "Head(features, cpt=self.classes_per_task)": 1,
    "tasks = torch.div(labels, self.n_classes_current_task)": 1,
    "labels[j] % self.n_classes_current_task": 1,
    "buffer.get_data(10, cpt=self.n_classes_current_task)": 1,
    "n = self.cpt * t if isinstance(self.cpt, int) else sum(self.cpt[:t])": 0,
    "sizes = dataset.N_CLASSES_PER_TASK": 0,
    "numpy.cumsum(dataset.N_CLASSES_PER_TASK)": 0,
    "scale.repeat_interleave(self.n_classes_current_task)": 0,
    "images // self.n_classes_current_task": 0,
}


@pytest.mark.parametrize("source", METHODS)
def test_it_is_found_in_the_source(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line 0 means that the method takes tasks of any size."""
    file = tmp_path / "some.py"
    lines = "\n".join(f"        {line}" for line in source.splitlines())
    file.write_text(f"class Some:\n    def f(self):\n{lines}\n")
    spec = importlib.util.spec_from_file_location("models.some", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "models.some", module)
    spec.loader.exec_module(module)
    line = METHODS[source]
    assert place_of_one_size(module.Some) == (f"models/some.py, line {line + 2}" if line else "")


SCAN = """
import sys
from pmi_cl.mammoth import register
from pmi_cl.mammoth.equal_tasks import place_of_one_size
register(sys.argv[1])
import models
found, absent = [], []  # absent: a package is missing
for name, kind in models.get_model_names().items():
    if not isinstance(kind, type):
        absent.append(name.replace("-", "_"))
    elif place_of_one_size(kind):
        found.append(name.replace("-", "_"))
print((found, absent))
"""


@pytest.mark.skipif(REAL is None, reason="needs MAMMOTH_PATH")
def test_the_methods_that_need_one_size_are_those_of_the_documentation(tmp_path: Path) -> None:
    found, absent = ast.literal_eval(python(tmp_path, SCAN, str(REAL)))
    assert set(found) == OF_ONE_SIZE - set(absent)


def test_the_documentation_names_them_and_installs_what_loads_pretrained_vits() -> None:
    text = (ROOT / "docs/mammoth.md").read_text()
    (install,) = [line for line in text.splitlines() if line.startswith("pip install")]
    assert install == 'pip install ./pmi-cl -r mammoth/requirements.txt pandas six "huggingface_hub<1"'
    assert [name for name in sorted(OF_ONE_SIZE) if f"`{name}`" not in text] == []
