"""Test accuracies on tasks not learned yet: the square matrix, Transfer, who can give them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pmi_cl.cli import main
from pmi_cl.registry import catalogue
from pmi_cl.utils.records.metrics import square_summary, transfer
from tests.support.command_runs import quick, results_in
from tests.support.small_runs import METHODS, differences, finished, finished_in_pieces, start, words_of

ABLE = [name for name in METHODS if catalogue.find("model", name).constants.get("NAMES_UNSEEN")]
UNABLE = [name for name in METHODS if name not in ABLE]
ASKED = {"evaluate_unseen": 1}


def test_transfer_is_the_double_sum_of_the_paper() -> None:
    a = np.random.default_rng(0).uniform(0, 100, (4, 4))
    n = len(a)
    # j is from 0: task j + 1 of the paper.
    expected = sum(sum(a[i, j] for i in range(j)) / j for j in range(1, n)) / (n - 1)
    assert transfer(a.tolist()) == pytest.approx(expected)
    figures = square_summary([[1.0] * 4, *a.tolist()])
    assert figures["average"] == pytest.approx(a.mean()) and figures["last"] == pytest.approx(a[-1].mean())
    assert figures["before"] == [1.0] * 4


def test_a_matrix_that_is_not_whole_has_no_figures() -> None:
    figures = square_summary([[1.0, 2.0], [3.0, 4.0]])
    assert figures["matrix"] == [[3.0, 4.0]] and figures["transfer"] is None is figures["last"]
    assert square_summary([])["before"] is None


def test_one_task_transfers_nothing() -> None:
    assert transfer([[50.0]]) == 0.0


@pytest.mark.parametrize("method", ABLE)
def test_the_square_matrix_is_whole_and_its_lower_part_is_that_of_the_run(method: str) -> None:
    training = finished(method, **ASKED, classes_per_task="3,2,1")
    square = training.everywhere["task_il"]
    assert [len(row) for row in square] == [3, 3, 3, 3]  # before the first task, and after each
    for task, row in enumerate(training.task_il):
        assert square[task + 1][: task + 1] == row
    assert training.everywhere["class_il"][-1] == training.class_il[-1]  # every class is seen then
    assert finished(method, classes_per_task="3,2,1").class_il == training.class_il


@pytest.mark.parametrize("method", ABLE)
def test_every_class_agrees_with_a_loop_over_single_classes(method: str) -> None:
    training = start(method, **ASKED)
    model = training.model
    images, _ = next(training.dataset.plain_batches(2, "test", 5))
    with torch.no_grad():
        every = model.every_class(images)
        model.current_task = 2
        assert every.shape == (len(images), 6)
        torch.testing.assert_close(every, model(images))  # of the last task all classes are seen


@pytest.mark.parametrize("method", ["vpt", "moe_adapters"])
def test_a_stopped_run_keeps_its_rows(method: str, tmp_path: Path) -> None:
    whole = finished(method, **ASKED)
    pieces, stopped = finished_in_pieces(method, tmp_path, {((0, "train", 1), 1), ((2, "train", 0), 1)}, **ASKED)
    assert stopped == 2 and differences(whole.state(), pieces.state()) == []


@pytest.mark.parametrize("method", UNABLE)
def test_a_method_that_cannot_name_unseen_classes_is_refused(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words_of(method), "--evaluate_unseen", "1"]) == 2
    line = capsys.readouterr().err
    assert f"{method} cannot tell classes that it has not learned; choose " in line and "zsclip" in line


def test_record_pictures_and_last_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, folder = quick("zsclip", tmp_path, "unseen", **ASKED)
    everywhere = results_in(folder)["everywhere"]
    assert code == 0 and f"transfer {everywhere['task_il']['transfer']:.2f} %" in capsys.readouterr().out
    for setting in ("class_il", "task_il"):
        assert everywhere[setting]["before"] == everywhere[setting]["matrix"][0]  # nothing is trained
        assert (folder / "pictures" / f"accuracy-{setting.replace('_', '-')}-all-tasks.png").exists()


def test_compare_has_a_column_for_transfer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = results_in(quick("zsclip", tmp_path, "unseen", **ASKED)[1])["everywhere"]["task_il"]
    capsys.readouterr()
    assert main(["compare", str(tmp_path)]) == 0
    table = capsys.readouterr().out
    assert "| transfer, % |" in table and f" {figures['transfer']:.2f} " in table
    quick("zsclip", tmp_path / "seen", "alone")
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "seen")]) == 0
    assert "transfer" not in capsys.readouterr().out
