"""Runs of every method by the command in this process: how they end, and what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmi_cl.cli import main
from tests.support.command_runs import QUICK, quick, results_in
from tests.support.small_runs import METHODS, words_of


def test_a_results_path_that_cannot_be_written_is_found_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("precious")
    for place in ("file", "file/below"):
        assert quick("sgd", tmp_path / place, "run")[0] == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and "is or goes through a file: give a folder" in err
    assert (tmp_path / "file").read_text() == "precious"


def test_a_run_that_diverges_says_so_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, folder = quick("sgd", tmp_path, "run", lr=1e30, n_epochs=3)
    err = capsys.readouterr().err
    assert code == 1 and results_in(folder)["status"] == "failed"
    assert (
        err.count("\n") == 1 and err.startswith("pmi-cl: error: the loss is not finite") and "try a smaller --lr" in err
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_quick_pass_says_its_last_line_alone(method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, folder = quick(method, tmp_path, "run", "--debug_mode", "1", "--non_verbose", "1", "--savecheck", "none")
    assert code == 0
    out, err = capsys.readouterr()
    results = results_in(folder)
    assert (
        err == ""
        and out.count("\n") == 1
        and out.startswith(f"{method} on seq-digits, seed 0: A_2 = {results['class_il']['last']:.2f} %")
    )
    assert [len(row) for row in results["class_il"]["matrix"]] == ([2] if method == "joint" else [1, 2])


def test_real_photographs_pass_through_every_phase(cifar100_dir: Path, tmp_path: Path) -> None:
    words = words_of("pmi_rdfcil", "seq-cifar100", **{**QUICK, "train_per_class": 8, "base_path": cifar100_dir})
    assert main([*words, "--results_path", str(tmp_path), "--run_name", "run"]) == 0
    results = results_in(tmp_path / "pmi_rdfcil" / "seq-cifar100" / "run")
    assert results["seconds"].keys() == {"training", "selection", "inversion", "statistics", "evaluation"}
    assert results["status"] == "finished" and results["inversion"]["images"] == 24
