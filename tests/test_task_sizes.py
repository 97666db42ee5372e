"""Test every method on tasks of different sizes: it learns, and resumes bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pmi_cl.cli import main
from pmi_cl.models.training.losses import loss_factors
from pmi_cl.utils.records.metrics import headline
from tests.support.command_runs import quick, results_in
from tests.support.small_runs import METHODS, differences, finished, finished_in_pieces, start

SIZES = {"n_classes": 6, "n_tasks": 3, "classes_per_task": "3,2,1"}
BASE = {"n_classes": 6, "n_tasks": 3, "base_classes": 4}
EQUAL = {"n_classes": 6, "n_tasks": 3}


@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_run_goes_on_bit_for_bit(method: str, tmp_path: Path) -> None:
    stops = {((1, "prepare", 0), 2), ((1, "train", 1), 1), ((2, "train", 0), 1), ((2, "end", 4), 1)}
    whole = finished(method, **SIZES)
    pieces, stopped = finished_in_pieces(method, tmp_path, stops, **SIZES)
    assert stopped > 0 or method in ("joint", "zsclip")
    assert differences(whole.state(), pieces.state()) == []


@pytest.mark.parametrize("method", METHODS)
def test_the_rows_cover_the_tasks_and_the_images(method: str) -> None:
    training = finished(method, **BASE)
    tasks = training.dataset.tasks
    assert tasks.sizes == (4, 1, 1)
    assert [len(row) for row in training.class_il] == ([3] if training.model.JOINT else [1, 2, 3])
    images = [len(training.dataset.test_indices(task)) for task in range(3)]
    right = sum(round(accuracy * n / 100) for accuracy, n in zip(training.class_il[-1], images, strict=True))
    assert training.micro["class_il"][-1] == pytest.approx(100 * right / sum(images))


@pytest.mark.parametrize("method", METHODS)
def test_counters_follow_the_tasks(method: str) -> None:
    model = start(method, **SIZES).model
    found = []
    for task in range(1 if model.JOINT else 3):
        model.current_task = task
        found.append((model.n_past_classes, model.cpt, model.n_seen_classes))
    assert found == ([(0, 6, 6)] if model.JOINT else [(0, 3, 3), (3, 2, 5), (5, 1, 6)])


def test_the_weights_of_the_losses_take_the_classes_of_the_task_and_of_all_before() -> None:
    training = start("rdfcil", **SIZES)
    model = training.model
    model.current_task = 2
    o = model.options
    assert model.factors() == loss_factors(1, 5, o.lambda_ce, o.lambda_hkd, o.lambda_rkd, o.lambda_ft)  # type: ignore[operator]


def test_heads_are_as_wide_as_their_tasks() -> None:
    training = finished("sgd", **SIZES)
    assert training.model.net.head.sizes == [3, 2, 1]
    state = training.state()
    other = start("sgd", classes_per_task="2,2,2")
    with pytest.raises(ValueError, match="heads are not those"):
        other.load_state(state)
    assert torch.equal(
        finished("sgd", **SIZES).model.net.head(torch.ones(1, 64)), training.model.net.head(torch.ones(1, 64))
    )


@pytest.mark.parametrize("flags", [SIZES, BASE], ids=str)
def test_a_whole_run_says_its_sizes_and_weighs_images(
    flags: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, folder = quick("sgd", tmp_path, "sizes", **flags)
    said = capsys.readouterr().out
    results = results_in(folder)
    sizes = [3, 2, 1] if flags is SIZES else [4, 1, 1]
    assert code == 0 and results["classes_per_task"] == sizes
    assert f"3 tasks of {', '.join(map(str, sizes))} classes" in said
    assert f"A_3 = {results['class_il']['micro_last']:.2f} % (last class-IL accuracy over all images; " in said
    assert f"{results['class_il']['last']:.2f} % as a mean over tasks)" in said


def test_compare_keeps_other_sizes_apart_and_takes_figures_over_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unequal = results_in(quick("sgd", tmp_path, "unequal", **SIZES)[1])
    equal = results_in(quick("sgd", tmp_path, "equal", **EQUAL)[1])
    capsys.readouterr()
    assert main(["compare", str(tmp_path)]) == 0
    tables = capsys.readouterr().out.split("### ")[1:]
    assert len(tables) == 2
    (table,) = (text for text in tables if "3 tasks of 3, 2, 1 classes (accuracies over all images)" in text)
    assert f" {unequal['class_il']['micro_last']:.2f} " in table
    (other,) = (text for text in tables if text is not table)
    assert f" {equal['class_il']['last']:.2f} " in other and "of 2, 2, 2" not in other


def test_a_checkpoint_of_other_tasks_is_no_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, folder = quick("sgd", tmp_path, "first", savecheck="task", **SIZES)
    capsys.readouterr()
    assert quick("sgd", tmp_path, "second", **EQUAL, loadcheck=folder / "checkpoint-task1.pt")[0] == 2
    assert "classes_per_task" in capsys.readouterr().err


def test_a_presets_number_of_tasks_gives_way_to_sizes_that_are_typed(capsys: pytest.CaptureFixture[str]) -> None:
    typed = ["--model", "zsclip", "--dataset", "seq-digits", "--model_config", "smoke", "--check"]
    assert main([*typed, "--classes_per_task", "2,1,1"]) == 0
    assert "n_tasks             3" in capsys.readouterr().out
    assert main([*typed, "--classes_per_task", "2,1,1", "--n_tasks", "2"]) == 2
    assert "--n_tasks 2: --classes_per_task lists 3 tasks; leave --n_tasks out" in capsys.readouterr().err


def test_a_resumed_run_keeps_its_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = quick("sgd", tmp_path, "first", **SIZES)[1]
    capsys.readouterr()
    for words, recorded in ((["--classes_per_task", "2,2,2"], "3,2,1"), (["--base_classes", "4"], "no --base_classes")):
        assert main(["--resume", str(folder), *words]) == 2
        assert f"the run is finished, with {recorded};" in capsys.readouterr().err


def test_titles_scalars_and_lines_have_the_same_figure() -> None:
    assert headline([[50.0], [20.0, 80.0]], [50.0, 30.0], over_images=True) == (30.0, 40.0)
    assert headline([[50.0], [20.0, 80.0]], [50.0, 30.0], over_images=False) == (50.0, 50.0)
