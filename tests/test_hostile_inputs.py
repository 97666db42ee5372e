"""Give wrong command lines, paths, presets, records and modules to the command.

None may end in a traceback. The exit code is 0, or 2 with one line of error. A short run of the
generator stands here; all 1,000: ``python -m tests.support.hostile_inputs --count 1000``.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from pmi_cl.cli import main
from tests.support.hostile_inputs import KINDS, ROOT, HostileInput, fault_of, faults, hostile_input
from tests.support.hostile_values import hostile_json

pytestmark = pytest.mark.usefixtures("letters")

FEW = 40
FIRST_IN_C = 100  # other inputs than those of this process


def test_no_input_ends_in_a_traceback() -> None:
    assert faults(seed=0, numbers=range(FEW)) == {}


def test_none_does_under_a_locale_without_utf_8() -> None:
    """One process for several inputs: the locale is that of a process."""
    locale = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = ["-m", "tests.support.hostile_inputs", "--first", str(FIRST_IN_C), "--count", "10"]
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, cwd=ROOT, env={**os.environ, **locale}, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"10 inputs (seed 0), 0 answered wrongly\n", b"")


def test_the_generator_finds_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that raises, exits, prints two lines or hides the rest is told from a good one."""

    def answering(code: int, err: str, out: str = "") -> str:
        def command(words: object, catalogue: object) -> int:
            print(err, end="", file=sys.stderr)
            print(out)
            return code

        monkeypatch.setattr("tests.support.hostile_inputs.main", command)
        return fault_of(HostileInput("path", [], shows="the rest"), tmp_path)

    assert answering(0, "", "the rest") == answering(2, "pmi-cl: error: one line\n") == ""
    assert answering(0, "") == "the rest is gone"
    assert answering(1, "").startswith("exit code 1")
    assert answering(2, "").startswith(answering(2, "pmi-cl: error: a\nb\n").partition("\n")[0])
    monkeypatch.setattr("tests.support.hostile_inputs.main", lambda words, catalogue: sys.exit(2))
    assert fault_of(HostileInput("path", []), tmp_path).startswith("ends with SystemExit")


def test_an_error_is_a_line_that_a_terminal_can_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "sgd", "--dataset", "seq-digits", "x" * 100_000]) == 2
    err = capsys.readouterr().err
    assert err.startswith("pmi-cl: error: 'xxx") and err.endswith("xxx ...\n") and len(err) < 1000


def test_the_inputs_of_a_seed_are_the_same_each_time(tmp_path: Path) -> None:
    for number in range(len(KINDS)):
        first, again = tmp_path / f"{number}-1", tmp_path / f"{number}-2"
        for folder in (first, again):
            folder.mkdir()
        words = [
            [word.replace(str(folder), "") for word in hostile_input(3, number, folder).words]
            for folder in (first, again)
        ]
        assert words[0] == words[1]
    assert hostile_json(random.Random(1), {"a": [1]}) == hostile_json(random.Random(1), {"a": [1]})
