"""Test that what version 0.1 wrote is read.

Its records lack the newer options, its checkpoints the sizes of tasks.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import pmi_cl
from pmi_cl.cli import main
from pmi_cl.errors import UserError
from pmi_cl.utils.records import checkpoints
from tests.support.command_runs import quick, results_in
from tests.support.run_figures import same_figures

NEWER = ("augment", "base_classes", "classes_per_task", "evaluate_unseen", "classifier", "flip", "savemodel")
OF_SOME_METHODS = ("replay", "replay_images")


def as_of_version_0_1(folder: Path) -> None:
    """Take out of a run what version 0.1 did not write."""
    path = folder / "args.json"
    written = json.loads(path.read_text())
    for name in (*NEWER, *(name for name in OF_SOME_METHODS if name in written["args"])):
        del written["args"][name]
    path.write_text(json.dumps(written))
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    del state["training"]["figures"], state["classifier"]
    state.pop("replay", None)
    del state["classes_per_task"], state["training"]["everywhere"], state["training"]["confusion"], state["values"]
    torch.save(state, folder / "checkpoint.pt")
    results = json.loads((folder / "results.json").read_text())
    del results["classes_per_task"], results["headline_over"], results["class_il"]["micro"], results["task_il"]["micro"]
    del results["by_class"], results["stored"]
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("method", ["sgd", "pmi_rdfcil", "pmi_moe"])
def test_an_older_run_goes_on_to_the_same_figures(method: str, tmp_path: Path) -> None:
    whole = quick(method, tmp_path, "whole")[1]
    part = quick(method, tmp_path, "part", stop_after=1)[1]
    as_of_version_0_1(part)
    assert main(["--resume", str(part), "--stop_after", "2"]) == 0
    found, expected = results_in(part), results_in(whole)
    by_class, of_whole = found.pop("by_class"), expected.pop("by_class")
    stored, of_all = found.pop("stored"), expected.pop("stored")
    assert stored == {when: [None, tasks[1]] for when, tasks in of_all.items()}
    assert "classifiers" not in found and ("classifiers" in expected) == method.startswith("pmi")
    expected.pop("classifiers", None)
    assert same_figures(found, expected)
    # What version 0.1 did not count is not known.
    for name in ("accuracy", "confusion"):
        assert by_class.pop(name) == [None, of_whole.pop(name)[1]]
    assert by_class == of_whole


def test_an_older_run_is_used_by_its_checkpoint(tmp_path: Path) -> None:
    run = quick("sgd", tmp_path, "run")[1]
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    expected = pmi_cl.load(run).logits(pixels)
    as_of_version_0_1(run)
    assert torch.equal(pmi_cl.load(run).logits(pixels), expected)
    (run / "checkpoint.pt").unlink()
    with pytest.raises(UserError, match="has no network: it is older than"):
        pmi_cl.load(run)


def test_older_and_newer_runs_share_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        folder = quick("sgd", tmp_path, f"seed{seed}", seed=seed)[1]
        if seed:
            as_of_version_0_1(folder)
    capsys.readouterr()
    assert main(["compare", str(tmp_path)]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| `sgd`")]
    assert len(rows) == 1 and "| 0 1 " in rows[0]


def test_a_checkpoint_of_other_sizes_is_refused_though_it_does_not_name_them(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoints.save(path, {"n_tasks": 2, "class_order": [0, 1, 2, 3]})
    expected = {"n_tasks": 2, "classes_per_task": [3, 1], "class_order": [0, 1, 2, 3]}
    with pytest.raises(Exception, match=r"was written with classes_per_task \[2, 2\], this run has"):
        checkpoints.load(path, expected)
    assert checkpoints.load(path, {**expected, "classes_per_task": [2, 2]})["n_tasks"] == 2
