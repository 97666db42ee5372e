"""Test runs side by side.

There is the table of hand-made records, words that cannot be, and real runs that are made once.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pmi_cl.benchmarks import side_by_side


def results(last: float, images: int = 40) -> dict[str, Any]:
    """Return a record with what is compared."""
    class_il = {"last": last, "average": last + 5, "forgetting": 1.0, "matrix": [[99.0], [90.0, last - 3]]}
    inversion = {"images": images, "seconds_per_image": 0.5 if images else 0.0, "step_equivalents": 100.0}
    return {"class_il": class_il, "seconds": {"training": 30.0, "inversion": 60.0}, "inversion": inversion}


def test_the_table_has_means_deviations_and_paired_differences() -> None:
    found = {
        "vpt": side_by_side.figures([results(80, 0), results(84, 0)]),
        "pmi_vpt": side_by_side.figures([results(83), results(85)]),
    }
    for figures in found.values():
        figures["protocol"] = "seq-digits, 5 tasks"
    text = side_by_side.report({"flag": "model", "figures": found, "pairs": [("pmi_vpt", "vpt")]})
    assert "| `vpt` | 82.00 ± 2.83 | 87.00 ± 2.83 | 1.00 ± 0.00 | 79.00 ± 2.83 | 1.5 |  |" in text
    assert "| `pmi_vpt` | 84.00 ± 1.41 | 89.00 ± 1.41 | 1.00 ± 0.00 | 81.00 ± 1.41 | 1.5 | 0.50 |" in text
    assert "| `pmi_vpt` - `vpt` | +2.00 ± 1.41 | +2.00 ± 1.41 |" in text


def test_runs_of_different_protocols_have_no_difference() -> None:
    found = {
        "sgd": {**side_by_side.figures([results(80)]), "protocol": "seq-digits, 5 tasks"},
        "zsclip": {**side_by_side.figures([results(90)]), "protocol": "seq-digits, 2 tasks, n_classes 4"},
    }
    text = side_by_side.report({"flag": "model", "figures": found, "pairs": [("zsclip", "sgd")]})
    assert "| `zsclip` - `sgd` | not comparable: seq-digits, 2 tasks, n_classes 4 / seq-digits, 5 tasks |  |" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--vary inversion", "--vary inversion: give the values, too"),
        ("--vary inversion pmi full --pairs pmi", "--pairs pmi: write two of pmi, full with a colon between"),
        ("--vary inversion pmi full --pairs pmi:smi", "--pairs pmi:smi: write two of"),
        ("--vary inversion pmi --json no/such/x.json", "there is no folder no/such"),
    ],
)
def test_words_that_cannot_be(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert side_by_side.main(words.split()) == 2
    assert said in capsys.readouterr().err


def test_runs_are_made_once(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]))
    words = [
        "--vary",
        "inversion",
        "pmi",
        "smi",
        "--seeds",
        "3",
        "--runs",
        str(tmp_path / "runs"),
        "--json",
        str(tmp_path / "x.json"),
    ]
    rest = [
        "--model",
        "pmi_vpt",
        "--dataset",
        "seq-digits",
        "--model_config",
        "smoke",
        "--tensorboard",
        "0",
        "--num_threads",
        "1",
    ]
    assert side_by_side.main([*words, "--", *rest]) == 0
    first = json.loads((tmp_path / "x.json").read_text())
    assert first["flag"] == "inversion" and first["words"] == rest and first["seeds"] == [3]
    assert [row["synthetic"] for row in first["figures"].values()] == [4, 4]
    made = sorted(path.name for path in (tmp_path / "runs/pmi_vpt/seq-digits").iterdir())
    assert len(made) == 2 and all(name.endswith("-seed3") for name in made)
    capfd.readouterr()
    assert side_by_side.main([*words, "--", *rest]) == 0
    said = capfd.readouterr().out
    assert "after task" not in said and "| `smi` - `pmi` |" in said
    assert json.loads((tmp_path / "x.json").read_text()) == first


def test_a_run_that_was_killed_before_its_first_checkpoint_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    )
    words = [
        "--model",
        "sgd",
        "--dataset",
        "seq-digits",
        "--model_config",
        "smoke",
        "--backbone",
        "resnet20",
        "--n_classes",
        "4",
        "--n_tasks",
        "2",
        "--train_per_class",
        "4",
        "--batch_size",
        "4",
        "--tensorboard",
        "0",
        "--num_threads",
        "1",
    ]
    record = side_by_side.one_run(words, tmp_path, 0)
    for name in ("results.json", "checkpoint.pt"):
        (record.folder / name).unlink()
    again = side_by_side.one_run(words, tmp_path, 0)
    assert again.folder == record.folder and again.read_results()["status"] == "finished"
    assert [path.name.startswith(f"{record.folder.name}-stopped-") for path in record.folder.parent.iterdir()].count(
        True
    ) == 1


def test_a_run_that_is_refused_ends_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--vary", "model", "pmi_vtp", "--seeds", "0", "--runs", str(tmp_path)]
    assert side_by_side.main([*words, "--", "--dataset", "seq-digits"]) == 2
    assert "a run ended with exit code 2: --model pmi_vtp" in capfd.readouterr().err
