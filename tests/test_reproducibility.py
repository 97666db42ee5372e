"""Test the page of printed and measured figures: it is what its command makes of the records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pmi_cl.benchmarks.reproducibility import PAGE, RUNS, cells_of, main, page, read_printed, section
from pmi_cl.registry.catalogue import INSTALLED
from pmi_cl.utils.reports.comparison import read_runs
from tests.support.run_records import in_results, record


def test_the_committed_page_is_what_the_command_makes() -> None:
    made = page(read_runs([RUNS])[0], read_printed())
    assert PAGE.read_text(encoding="utf-8") == made, "run: python -m benchmarks.reproducibility"


def test_every_table_of_the_two_papers_is_there_with_its_source() -> None:
    tables = read_printed()
    expected = {**dict.fromkeys((5, 6, 7, 8), "PMI"), **dict.fromkeys((1, 2), "GIFT")}
    assert {f"{paper} Table {number}" for number, paper in expected.items()} | {"GIFT Table 7", "GIFT Table 8"} == set(
        tables
    )
    for table in tables.values():
        assert "arXiv" in table["source"] and len({cell.method for cell in cells_of(table)}) == len(table["rows"])
        assert all(cell.printed and (cell.printed == "-" or cell.printed[0].isdigit()) for cell in cells_of(table))


def rdfcil_on_cifar(folder: Path, seed: int, last: float, **changes: object) -> None:
    """Write the record of a run that answers to R-DFCIL's figure of five tasks."""
    record(folder, seed, last, model="rdfcil", lambda_ft=0.0, n_epochs=30, dataset="seq-cifar100", **changes)
    rows = [[90.0] * (task + 1) for task in range(5)]
    figures = {"matrix": rows, "last": last, "average": 90.0, "forgetting": 2.0}
    images = {"train": 4000, "test": 2000}
    hardware, commit = {"processor": "A", "threads": 1, "gpus": []}, {"hash": "0123456789ab", "dirty": False}
    in_results(folder, class_il=figures, images=images, classes_per_task=[4] * 5, hardware=hardware, commit=commit)


def test_a_measured_cell_has_its_figure_seeds_size_hardware_and_commit(tmp_path: Path) -> None:
    for seed, last in ((0, 40.0), (1, 42.0)):
        rdfcil_on_cifar(tmp_path / f"whole-{seed}", seed, last)
    rdfcil_on_cifar(tmp_path / "control", 2, 70.0, replay="real")
    rdfcil_on_cifar(tmp_path / "plus", 3, 71.0, backbone="resnet20")
    args = json.loads((tmp_path / "plus/args.json").read_text())
    args["args"]["lambda_ft"]["value"] = 1.0  # another row's method
    (tmp_path / "plus/args.json").write_text(json.dumps(args))
    runs, passed_over = read_runs([tmp_path])
    assert passed_over == [] and len(runs) == 4
    lines = section("PMI Table 5", read_printed()["PMI Table 5"], runs)
    grid = next(line for line in lines if line.startswith("| R-DFCIL |"))
    assert grid.startswith("| R-DFCIL | 49.87 ± 0.45 (smaller) | 41.80 ± 0.24 |")
    size = "smaller: 20 classes, 4000 training images, resnet20, 30 epochs"
    measured = "| R-DFCIL | CIFAR-100, 5 tasks | 49.87 ± 0.45 | 41.00 ± 1.41 | 0 1 | digits |"
    assert [line for line in lines if line.startswith("| R-DFCIL | CIFAR")] == [
        f"{measured} {size} | A, threads: 1 | 0123456 |"
    ]
    assert not any("70.00" in line or "71.00" in line for line in lines)


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, "**49.87 ± 0.45**"),
        ({"backbone": "resnet20"}, "49.87 ± 0.45 (smaller)"),
        ({"n_classes": 20}, "49.87 ± 0.45 (smaller)"),
        ({"train_per_class": 200}, "49.87 ± 0.45 (smaller)"),
        ({"model_config": "digits"}, "49.87 ± 0.45 (smaller)"),
        ({"lr": 0.2}, "49.87 ± 0.45 (smaller)"),
        ({"base_classes": 60}, "49.87 ± 0.45"),
    ],
)
def test_only_a_run_of_the_papers_size_measures_a_cell(tmp_path: Path, changes: dict[str, Any], shown: str) -> None:
    full = {"backbone": "resnet32", "model_config": "paper"}
    rdfcil_on_cifar(tmp_path / "run", 0, 40.0, **{**full, **changes})
    text = page(read_runs([tmp_path])[0], read_printed())
    assert f"| R-DFCIL | {shown} | 41.80 ± 0.24 |" in text
    measured, smaller = 2 * shown.startswith("**"), 2 * shown.endswith("(smaller)")  # in Tables 5 and 6
    assert f"figures {measured} are measured. For {smaller} others" in text


@pytest.mark.parametrize(("start", "counts"), [("pmi", True), ("noise", False)])
def test_a_control_of_the_start_is_not_pmi(tmp_path: Path, start: str, counts: bool) -> None:
    changes = {"model_config": "paper", "inv_start": start, "cfs": True}
    record(tmp_path / "run", 0, 40.0, model="pmi_rdfcil", dataset="seq-cifar100", **changes)
    in_results(
        tmp_path / "run",
        class_il={"matrix": [[90.0] * n for n in range(1, 6)], "last": 40.0, "average": 90.0, "forgetting": 2.0},
    )
    assert ("(smaller)" in "".join(section("T", read_printed()["PMI Table 5"], read_runs([tmp_path])[0]))) == counts


def test_every_method_that_is_to_answer_is_there() -> None:
    known = {entry.name for entry in INSTALLED.entries("model")}
    for table in read_printed().values():
        wanted = [table.get("run", {}), *(row["run"] for row in table["rows"].values() if "run" in row)]
        assert {values["model"] for values in wanted if "model" in values} <= known


def test_the_command_writes_the_page_of_other_runs(tmp_path: Path) -> None:
    rdfcil_on_cifar(tmp_path / "runs/a", 0, 40.0)
    assert main(["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "page.md")]) == 0
    text = (tmp_path / "page.md").read_text()
    assert text.count("40.00 |") == 2 and "of it: not measured" in text  # a cell of Table 5, and one of Table 6
