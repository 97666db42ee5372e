"""The benchmark of inversion on a CLIP: it runs, reports and refuses."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.forked_python import run_python

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "benchmarks" / "clip_inversion.py"


def run(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return run_python([str(SCRIPT), *words], folder, environment)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--backbone", "resnet32"], "is no CLIP"),
        (["--backbone", "clip-tinny"], "clip-tiny"),
        (["--images", "0"], "at least 1"),
        (["--json", "missing/b.json"], "missing"),
    ],
)
def test_a_mistake_is_answered_in_one_line(words: list[str], said: str, tmp_path: Path) -> None:
    done = run(*words, folder=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_the_command_measures_everything(tmp_path: Path) -> None:
    done = run("--quick", "--rounds", "1", "--images", "2", "--whole", "--json", "b.json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "b.json").read_text())
    assert {"bare fp32", "open_clip bf16", "full bf16", "pmi sweep bf16", "smi 4 patches bf16"} <= set(record["loops"])
    assert all(row["seconds"] > 0 for row in record["loops"].values())
    equivalents = {name: row["step_equivalents"] for name, row in record["recipes"].items()}
    assert (equivalents["pmi"], equivalents["full"]) == (800, 3400) and 700 < equivalents["smi"] < 2000
    assert record["memory"]["images"] == 20 and 100 < record["memory"]["peak_mib"] < 2000
    assert record["whole"]["pmi"]["step_equivalents"] == pytest.approx(8, rel=0.01)
    assert record["whole"]["full"]["step_equivalents"] == 34 and record["whole"]["smi"]["forward_passes"] == 44
    assert "GiB" in done.stdout and "full-model step over bare" in done.stdout
