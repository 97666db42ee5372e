"""Runs inside Mammoth: the checkouts, the command, and what it prints."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.forked_python import run_python

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = ROOT / "tests" / "mammoth_stand_in"
REAL = os.environ.get("MAMMOTH_PATH")
HOSTS = [
    "stand-in",
    pytest.param("real", marks=pytest.mark.skipif(not REAL, reason="MAMMOTH_PATH names no checkout of Mammoth")),
]
FEW = ["--train_per_class", "20", "--batch_size", "16", "--n_epochs", "1", "--seed", "0", "--num_workers", "0"]
SMALL = ["--model_config", "smoke", "--buffer_images", "40", "--inv_batch", "40", "--inv_steps", "2", *FEW]
ACCURACY = re.compile(r"^Accuracy for (\d+) task\(s\): .*\[Class-IL\]: ([\d.]+) %", re.MULTILINE)
RAW = re.compile(r"^\tRaw accuracy values: Class-IL (\[[^]]*\])", re.MULTILINE)


def environment() -> dict[str, str]:
    """Return the environment of a child process: this checkout on the path, one thread."""
    kept = {
        name: value for name, value in os.environ.items() if name not in ("MAMMOTH_PATH", "PYTHONDONTWRITEBYTECODE")
    }
    # CI puts other versions of libraries there.
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**kept, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": path}


def _run_python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder. A real Mammoth says itself what torch is imported with."""
    if REAL is None or REAL not in words:
        return run_python(words, folder, environment())
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``pmi-cl`` in a folder."""
    return _run_python(folder, "-m", "pmi_cl", *words)


def mammoth(folder: Path, host: Path, *words: str) -> str:
    """Run ``pmi-cl mammoth`` and return what it prints. It must succeed."""
    done = run(folder, "mammoth", "--mammoth_path", str(host), *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def python(folder: Path, code: str, *words: str) -> str:
    """Run a program and return its last line. It must succeed."""
    done = _run_python(folder, "-c", code, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Return every file and folder with its size and its time of change."""
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if ".git" not in path.parts
    }


def raw(text: str) -> list[list[float]]:
    """Return the accuracy matrix that Mammoth printed, row by row."""
    return [ast.literal_eval(row) for row in RAW.findall(text)]


def refused(folder: Path, *words: str) -> str:
    """Run ``pmi-cl mammoth`` and return its error, a line. It must end with exit code 2."""
    done = run(folder, "mammoth", *words)
    assert done.returncode == 2, done.stdout + done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("pmi-cl: error: "), done.stderr
    return last
