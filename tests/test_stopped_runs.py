"""A run that is stopped at any place, by any signal, goes on as if nothing had happened."""

from __future__ import annotations

import fcntl
import signal
from pathlib import Path

import pytest

from tests.support.command_runs import (
    SLOW,
    clogged,
    complete,
    folder_of,
    launch,
    place_in,
    results_in,
    wait_for,
    wait_for_phase,
)
from tests.support.run_figures import same_figures
from tests.support.small_runs import words_of


def stop(words: list[str], phase: str, number: signal.Signals) -> tuple[int, str]:
    """Start the command and send it a signal in the midst of a phase.

    Return its exit code and its last line.
    """
    with launch([*words, "--progress", "1"]) as process:
        wait_for_phase(process, phase)
        process.send_signal(number)
        _, err = process.communicate()
    return process.returncode, err.decode().splitlines()[-1]


def stop_between_tasks(words: list[str], folder: Path) -> int:
    """Send SIGTERM while the command is about to report the first task. Return its exit code."""
    with clogged(lambda stdout: launch(words, stdout)) as process:
        wait_for((folder / "pictures" / "accuracy-class-il.png").exists, process)
        process.send_signal(signal.SIGTERM)
    process.communicate()
    return int(process.returncode)


def kill(words: list[str], phase: str, folder: Path) -> None:
    """Start the command with a checkpoint at every step, and kill it in the midst of a phase."""
    path = folder / "checkpoint.pt"
    with launch([*words, "--progress", "1", "--checkpoint_minutes", "1e-9"]) as process:
        wait_for_phase(process, phase)
        written = {path.stat().st_mtime_ns}
        wait_for(lambda: written.add(path.stat().st_mtime_ns) or len(written) > 3, process)
        process.kill()
        process.communicate()


@pytest.mark.skipif(not hasattr(fcntl, "F_SETPIPE_SZ"), reason="only Linux can make a pipe small enough to fill")
def test_pmi_stopped_anywhere_goes_on_bit_for_bit(finished_run: tuple[Path, str, str], tmp_path: Path) -> None:
    """SIGTERM comes in mid-epoch, between tasks and in mid-inversion, then SIGKILL.

    The figures are those of the uninterrupted run.
    """
    folder = folder_of(tmp_path, "pmi_rdfcil", "pieces")
    again = ["--results_path", str(tmp_path), "--resume", "pmi_rdfcil/seq-digits/pieces"]
    said = f"stopped by SIGTERM; go on with: --resume {folder}"

    first = [*words_of("pmi_rdfcil", **SLOW), "--results_path", str(tmp_path), "--run_name", "pieces"]
    assert stop(first, "task 1 training", signal.SIGTERM) == (143, said)
    position, _ = place_in(folder)
    assert (position["task"], position["phase"]) == (0, "train") and 0 < position["step"] < 30
    assert results_in(folder)["status"] == "interrupted" and results_in(folder)["class_il"]["matrix"] == []
    arguments = (folder / "args.json").read_bytes()

    assert stop_between_tasks(again, folder) == 143
    position, method = place_in(folder)
    assert position == {"task": 1, "phase": "begin", "epoch": 0, "step": 0} and method["inversion"] is None
    assert results_in(folder)["status"] == "interrupted" and len(results_in(folder)["class_il"]["matrix"]) == 1

    assert stop(again, "task 2 inversion", signal.SIGTERM) == (143, said)
    position, method = place_in(folder)
    assert position["phase"] == "prepare" and method["inversion"]["descent"] is not None
    assert 0 < results_in(folder)["inversion"]["steps"] < 160

    kill(again, "task 2 training", folder)
    position, _ = place_in(folder)
    assert (position["task"], position["phase"]) == (1, "train") and 0 < position["step"] < 30

    complete(again)
    assert same_figures(results_in(folder), results_in(finished_run[0]))
    assert results_in(folder)["seconds"].keys() == results_in(finished_run[0])["seconds"].keys()
    assert (folder / "args.json").read_bytes() == arguments and not list(folder.glob("*.tmp"))


def test_rdfcil_stopped_while_its_generator_trains_goes_on_bit_for_bit(tmp_path: Path) -> None:
    words = [*words_of("rdfcil", **SLOW), "--results_path", str(tmp_path)]
    complete([*words, "--run_name", "whole", "--progress", "0"])
    folder = folder_of(tmp_path, "rdfcil", "pieces")
    assert stop([*words, "--run_name", "pieces"], "task 2 generator", signal.SIGTERM)[0] == 143
    position, method = place_in(folder)
    assert (position["task"], position["phase"]) == (1, "prepare") and 0 < method["generator"]["step"] < 30

    again = ["--results_path", str(tmp_path), "--resume", str(folder)]
    assert stop(again, "task 2 training", signal.SIGINT) == (130, f"stopped by SIGINT; go on with: --resume {folder}")
    position, _ = place_in(folder)
    assert (position["task"], position["phase"]) == (1, "train") and 0 < position["step"] < 30

    complete(again)
    assert same_figures(results_in(folder), results_in(folder_of(tmp_path, "rdfcil", "whole")))
