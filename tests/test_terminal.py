"""Test output that cannot be written: one line or none, never a traceback or the end of a run."""

from __future__ import annotations

import io
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pmi_cl.machine.terminal import size_text
from pmi_cl.utils.run.progress import Progress
from tests.support.command_runs import QUICK, ROOT, SLOW, folder_of, launch, results_in, wait_for_phase
from tests.support.small_runs import words_of


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Return a line for bash in which PMI stands for the command."""
    script = command.replace("PMI", f"{sys.executable} -m pmi_cl")
    return subprocess.run(["bash", "-c", script], capture_output=True, cwd=ROOT, env={**os.environ, **environment})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is Linux's")
def test_a_full_disk_behind_stdout_is_one_line() -> None:
    done = shell("PMI --list >/dev/full")
    assert done.returncode == 2
    assert (
        done.stderr
        == b"pmi-cl: error: cannot write to the standard output (No space left on device): send it elsewhere\n"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is Linux's")
def test_a_run_whose_lines_nobody_can_read_is_finished(tmp_path: Path) -> None:
    """A full disk is behind stdout, there is no stderr, and a name is beyond ASCII.

    The record is what counts.
    """
    words = [
        *words_of("sgd", **{**QUICK, "train_per_class": 8}),
        "--results_path",
        str(tmp_path),
        "--run_name",
        "Läufe",
    ]
    done = shell(f"PMI {' '.join(words)} >/dev/full 2>&-", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert results_in(folder_of(tmp_path, "sgd", "Läufe"))["status"] == "finished"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_behind_the_last_line_does_not_change_the_exit_code(tmp_path: Path, number: signal.Signals) -> None:
    """Python takes a while to end. The run is finished and recorded by then."""
    words = [*words_of("sgd", **{**QUICK, "train_per_class": 8}), "--results_path", str(tmp_path), "--run_name", "run"]
    # Not forked: this is about what an interpreter does when it ends.
    command = [sys.executable, "main.py", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        while b"last class-IL accuracy" not in process.stdout.readline():
            assert process.poll() is None
        while process.poll() is None:
            process.send_signal(number)
            time.sleep(0.01)
        assert process.stderr is not None and process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="the limit of another process is Linux's to change")
def test_a_disk_that_fills_up_in_mid_run_is_one_line_each_for_events_and_record(tmp_path: Path) -> None:
    words = [
        *words_of("sgd", **{**SLOW, "n_epochs": 20}),
        "--results_path",
        str(tmp_path),
        "--run_name",
        "run",
        "--progress",
        "1",
    ]
    with launch([*words, "--tensorboard", "1"]) as process:
        wait_for_phase(process, "training")
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (2000, 2000))  # no file grows beyond it
        said = process.communicate()[1].decode().split("\r")[-1].splitlines()
    assert process.returncode == 2
    told = [line for line in said if line.startswith(("cannot write", "pmi-cl: error"))]
    assert (
        len(told) <= 2
        and told[-1].startswith("pmi-cl: error: cannot write ")
        and not any("Traceback" in line for line in said)
    )


def test_ascii_is_enough_for_a_name_beyond_it(tmp_path: Path) -> None:
    words = [
        *words_of("sgd", **{**QUICK, "train_per_class": 8}),
        "--results_path",
        str(tmp_path),
        "--run_name",
        "Läufe",
    ]
    done = shell(f"PMI {' '.join(words)}", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, b"") and b"L\\xe4ufe" in done.stdout


def test_without_stderr_a_mistake_still_has_its_code() -> None:
    assert shell("PMI --model sgdd 2>&-").returncode == 2


def test_progress_goes_on_when_its_terminal_has_gone() -> None:
    class Gone(io.StringIO):
        tried = 0

        def write(self, text: str) -> int:
            self.tried += 1
            raise OSError(5, "Input/output error")

    for mode in ("auto", "1"):
        terminal = Gone()
        progress = Progress(mode, terminal, line_seconds=0)
        for done in range(1, 4):
            progress.update("training", done, 3)
        progress.close()
        # Lines give up; tqdm tries again at the phase's end.
        assert terminal.tried == 1 if mode == "auto" else terminal.tried > 0


@pytest.mark.parametrize(("size", "text"), [(1, "1 kB"), (12_600, "13 kB"), (1_110_000, "1.1 MB")])
def test_a_size_is_told_in_the_unit_that_fits(size: int, text: str) -> None:
    assert size_text(size) == text
