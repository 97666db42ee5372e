"""The table of runs: grouped by what they were told, seeds averaged, nothing that is not in the records."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from pmi_cl.utils.comparison import read_runs, table


def record(folder: Path, seed: int, last: float, *, lr: float = 0.1, status: str = "finished", **preset: object) -> None:
    folder.mkdir(parents=True)
    values = {"model": "sgd", "dataset": "seq-digits", "model_config": "digits", "seed": seed, "lr": lr, **preset}
    sources = {"lr": "flag" if lr != 0.1 else "default", **dict.fromkeys(preset, "preset digits")}
    args = {name: {"value": value, "source": sources.get(name, "flag")} for name, value in values.items()}
    figures = {"last": last, "average": last + 1, "forgetting": 2.0}
    results = {"status": status, "class_il": figures, "task_il": figures, "seconds": {"training": 30.0, "evaluation": 30.0}}
    (folder / "args.json").write_text(json.dumps({"args": args}))
    (folder / "results.json").write_text(json.dumps(results))


def test_runs_that_differ_in_their_seed_alone_share_a_row(tmp_path: Path) -> None:
    for seed, last in enumerate((80.0, 84.0, 88.0)):
        record(tmp_path / f"s{seed}", seed, last)
    record(tmp_path / "other", 0, 50.0, lr=0.3)
    record(tmp_path / "stopped", 5, 1.0, status="interrupted")
    rows = table(read_runs([tmp_path])).splitlines()[2:]
    assert len(rows) == 2
    cells = [cell.strip() for cell in rows[0].strip("|").split("|")]
    assert cells[:4] == ["seq-digits", "`sgd`", "digits", "0 1 2"]
    assert cells[4] == f"84.00 ± {statistics.stdev([80, 84, 88]):.2f}"
    assert cells[-1] == "1.0"
    assert "lr=0.3" in rows[1] and "50.00" in rows[1]


def test_values_that_a_changed_preset_hides_are_named(tmp_path: Path) -> None:
    for seed in (0, 1):
        record(tmp_path / f"few{seed}", seed, 60.0, generator_steps=100, wd=1)
        record(tmp_path / f"many{seed}", seed, 50.0, generator_steps=400, wd=1)
    settings = [row.split("|")[3].strip() for row in table(read_runs([tmp_path])).splitlines()[2:]]
    assert settings == ["digits generator_steps=100", "digits generator_steps=400"]


def test_a_record_older_than_an_option_has_its_default(tmp_path: Path) -> None:
    record(tmp_path / "old", 0, 60.0)
    record(tmp_path / "new", 1, 62.0, spectrum=0)
    recorded = tmp_path / "new" / "args.json"
    recorded.write_text(recorded.read_text().replace('"preset digits"', '"default"'))
    record(tmp_path / "other", 2, 70.0, spectrum=0.5)
    rows = [[cell.strip() for cell in row.split("|")[3:5]] for row in table(read_runs([tmp_path])).splitlines()[2:]]
    assert rows == [["digits spectrum=0", "0 1"], ["digits spectrum=0.5", "2"]]


@pytest.mark.parametrize("folders", [[], ["missing"]])
def test_no_runs_give_an_empty_table(tmp_path: Path, folders: list[str]) -> None:
    assert len(table(read_runs([tmp_path / name for name in folders])).splitlines()) == 2
