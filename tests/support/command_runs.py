"""Runs by the real command, in this process or in one of their own, and what they leave."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pmi_cl.cli import main
from tests.support.forked_python import Process, start_python
from tests.support.small_runs import BACKBONE, words_of

ROOT = Path(__file__).resolve().parents[2]
DIGITS = {"n_classes": 4, "n_tasks": 2, "backbone": "resnet20"}
# Few images in many steps, so that a signal sent at the first step of a phase finds the run in
# the midst of it.
SLOW = {
    **DIGITS,
    "train_per_class": 60,
    "batch_size": 4,
    "n_epochs": 2,
    "classifier_part": 0.5,
    "inv_steps": 40,
    "pmi_steps": 4,
    "generator_steps": 30,
    "generator_batch": 4,
    "generator_critic_width": 2,
}
QUICK = {**DIGITS, "train_per_class": 16, "n_epochs": 1, "tensorboard": 0, "progress": 0}


def folder_of(results: Path, method: str, name: str) -> Path:
    """Return the folder of a run on ``seq-digits``."""
    return results / method / "seq-digits" / name


def results_in(folder: Path) -> dict[str, Any]:
    """Return the record of a run."""
    results: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return results


def headline_of(results: dict[str, Any]) -> str:
    """Return the last line that a run of two tasks with the preset ``smoke`` prints."""
    last, average, forgetting = (results["class_il"][name] for name in ("last", "average", "forgetting"))
    figures = (
        f"A_2 = {last:.2f} % (last class-IL accuracy), average incremental {average:.2f} %, forgetting {forgetting:.2f}"
    )
    no_result = "a test of the machinery, no result (--model_config smoke)"
    return f"{results['model']} on seq-digits, seed {results['seed']}: {figures}; {no_result}\n"


def launch(words: list[str], stdout: int = subprocess.PIPE) -> Process:
    """Start ``python main.py`` as a process of its own."""
    return start_python(["main.py", *words], stdout=stdout)


def complete(words: list[str]) -> tuple[str, str]:
    """Run the command to its end. Return what it printed to stdout and to stderr."""
    with launch(words) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode(), err.decode()


def wait_for(happened: Callable[[], Any], process: Process) -> None:
    """Wait until something has happened, as long as the process lives."""
    while not happened():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def wait_for_phase(process: Process, phase: str) -> None:
    """Read stderr until the progress bar of a phase appears. Its first step has then been taken."""
    assert process.stderr is not None
    seen = b""
    while phase.encode() not in seen:
        block = process.stderr.read1(4096)  # type: ignore[attr-defined]
        assert block, seen.decode()
        seen += block


@contextlib.contextmanager
def clogged(process_stdout: Callable[[int], Process]) -> Any:
    """Start a process with a full pipe for stdout: its second line blocks it until the body has
    ended.
    """
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    process = process_stdout(write)
    filler = os.open(f"/proc/self/fd/{write}", os.O_WRONLY | os.O_NONBLOCK)  # the process's own end must go on blocking
    os.close(write)
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(read, 1)
    for size in (4096, 64, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(filler, bytes(size))
    yield process
    os.close(filler)
    while os.read(read, 4096):
        pass
    os.close(read)


def place_in(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the position of the checkpoint in a folder, and the state of the method in it."""
    training = torch.load(folder / "checkpoint.pt", weights_only=True)["training"]
    return training["position"], training["method"]


# checkpoints that are kept, and started from


def quick(method: str, results: Path, name: str, *words: str, **flags: Any) -> tuple[int, Path]:
    """Make a short run in this process. Return its exit code and its folder."""
    code = main(
        [
            *words_of(method, **{**QUICK, "backbone": BACKBONE[method], **flags}),
            "--results_path",
            str(results),
            "--run_name",
            name,
            *words,
        ]
    )
    return code, folder_of(results, method, name)
