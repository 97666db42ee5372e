"""Test the script of the paper's protocol.

Its pieces stop in time, go on where they stopped, and leave one file for each finished part.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pmi_cl.benchmarks import paper_protocol


class SlowRun:
    """Stands in for a run of ours.

    It saves and ends with 143 when it is stopped, and finishes when resumed.
    """

    commands: ClassVar[list[list[str]]] = []

    def __init__(self, command: list[str]) -> None:
        self.words = dict(zip(command[3::2], command[4::2], strict=True))
        self.commands.append(command[3:])
        self.stopped = False

    @property
    def folder(self) -> Path:
        if "--resume" in self.words:
            return Path(self.words["--resume"])
        return Path(
            self.words["--results_path"], self.words["--model"], self.words["--dataset"], self.words["--run_name"]
        )

    def wait(self, timeout: float) -> int:
        self.folder.mkdir(parents=True, exist_ok=True)
        if "--resume" in self.words:
            (self.folder / "results.json").write_text('{"status": "finished"}')
            return 0
        if not self.stopped:
            raise subprocess.TimeoutExpired("run", timeout)
        (self.folder / "checkpoint.pt").touch()
        return 143

    def terminate(self) -> None:
        self.stopped = True


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(paper_protocol.subprocess, "Popen", SlowRun)
    monkeypatch.setattr(SlowRun, "commands", [])
    return ["--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]


def test_a_method_stops_in_time_and_the_next_call_resumes_it(tmp_path: Path, words: list[str]) -> None:
    part = [*words, "--parts", "pmi_rdfcil", "--seed", "3"]
    assert [paper_protocol.main(part), list((tmp_path / "out").iterdir())] == [75, []]
    assert paper_protocol.main(part) == 0
    fresh, resumed = SlowRun.commands
    assert fresh[:8] == [
        "--model",
        "pmi_rdfcil",
        "--dataset",
        "seq-cifar100",
        "--n_tasks",
        "10",
        "--model_config",
        "paper",
    ]
    assert resumed[:2] == ["--resume", str(tmp_path / "runs" / "pmi_rdfcil" / "seq-cifar100" / "seed3")]
    assert json.loads((tmp_path / "out" / "pmi_rdfcil.json").read_text()) == {"status": "finished"}
    assert paper_protocol.main(part) == 0 and len(SlowRun.commands) == 2  # what is done is not done again


def test_the_methods_follow_each_other(tmp_path: Path, words: list[str]) -> None:
    codes = [paper_protocol.main([*words, "--parts", *paper_protocol.METHODS]) for _ in range(3)]
    assert codes == [75, 75, 0]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["pmi_rdfcil.json", "rdfcil.json"]


def test_a_run_that_fails_ends_the_script(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(run: Any, timeout: float) -> int:
        return 2

    monkeypatch.setattr(SlowRun, "wait", fails)
    with pytest.raises(SystemExit, match="rdfcil ended with exit code 2"):
        paper_protocol.main([*words, "--parts", "rdfcil"])
