"""Test how soon the command answers.

Help and lists need no torch. A run's first training step comes shortly after torch is there.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.child_processes import half_a_torch, processor_seconds

ROOT = Path(__file__).resolve().parent.parent
WAYS = {"main.py": ["main.py"], "module": ["-m", "pmi_cl"]}
ANSWERS = [
    ["--help"],
    ["--list"],
    ["--version"],
    ["--help", "--model", "pmi_rdfcil"],
    ["--help", "--model", "rdfcil", "--dataset", "seq-cifar100"],
]
TORCH_TIMES = 4  # 3 is the aim, in wall time on a machine at rest; this is processor time on one that may be busy
ATTEMPTS = 3


def python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("words", ANSWERS, ids=" ".join)
def test_answers_at_once_and_without_torch(way: str, words: list[str]) -> None:
    started = processor_seconds()
    done = python("-X", "importtime", *WAYS[way], *words)
    spent = processor_seconds() - started
    assert done.returncode == 0 and done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "pmi_cl.cli" in imported  # the list of imports is really there
    assert imported.isdisjoint({"torch", "numpy", "torchvision", "matplotlib", "PIL", "tensorboard", "tqdm"})
    assert spent < half_a_torch()


@pytest.mark.parametrize("way", WAYS)
def test_both_ways_are_the_same_program(way: str) -> None:
    assert python(*WAYS[way], "--list").stdout == python("main.py", "--list").stdout
    wrong = python(*WAYS[way], "--model", "sgdd")
    assert wrong.returncode == 2 and wrong.stderr == "pmi-cl: error: unknown model 'sgdd': did you mean sgd?\n"


def seconds_of(pid: int) -> float:
    """Return user and system time of a process that runs (man 5 proc)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def times_torch(argv: list[str]) -> float:
    """Return the processor time of a run up to its first training step, in times of ``import
    torch``.
    """
    torch_alone = float(python("-c", "import torch, time; print(time.process_time())").stdout)
    with subprocess.Popen([sys.executable, *argv], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT) as run:
        assert run.stderr is not None
        shown = b""
        while b"task 1 training" not in shown:  # the bar is drawn when the first step has been taken
            block = run.stderr.read1(4096)  # type: ignore[attr-defined]
            assert block, shown.decode()
            shown += block
        spent = seconds_of(run.pid)
        run.kill()
    return spent / torch_alone


def least(code: str, enough: float) -> float:
    """Return the least figure that a program prints in a few attempts.

    One below ``enough`` is the last.
    """
    found = math.inf
    for _ in range(ATTEMPTS):
        found = min(found, float(python("-c", code).stdout))
        if found < enough:
            break
    return found


def test_the_engine_is_imported_in_little_more_than_torch() -> None:
    """``pmi_cl`` alone imports nothing.

    The engine with all its parts takes less than half a torch more.
    """
    engine = [f"pmi_cl.inversion.{path.stem}" for path in sorted((ROOT / "inversion").glob("[!_]*.py"))]
    seconds = "import time, pmi_cl, pmi_cl.inversion; print(time.process_time())"
    assert least(seconds, 0.2) < 0.2
    times_torch = "import time, torch; torch_alone = time.process_time(); "
    times_torch += f"import {', '.join(engine)}; print(time.process_time() / torch_alone)"
    assert least(times_torch, 1.5) < 1.5


@pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="only Linux tells the processor time of another process"
)
def test_the_first_step_comes_soon_after_torch(cifar100_dir: Path, tmp_path: Path) -> None:
    places = ["--base_path", str(cifar100_dir), "--results_path", str(tmp_path)]
    argv = [
        "main.py",
        "--model",
        "pmi_rdfcil",
        "--dataset",
        "seq-cifar100",
        *places,
        "--progress",
        "1",
        "--num_threads",
        "1",
    ]
    found: list[float] = []
    # Other jobs on the machine only make it slower.
    while len(found) < ATTEMPTS and min(found, default=math.inf) >= TORCH_TIMES:
        found.append(times_torch(argv))
    assert min(found) < TORCH_TIMES, found


@pytest.mark.parametrize(("model", "backbone", "needs"), [("sgd", "resnet20", False), ("vpt", "clip-tiny", True)])
def test_open_clip_is_imported_by_runs_on_a_clip_alone(model: str, backbone: str, needs: bool, tmp_path: Path) -> None:
    """It costs more than torch itself."""
    code = "import sys; from pmi_cl.cli import main; code = main(sys.argv[1:]); "
    code += "print('open_clip' in sys.modules); sys.exit(code)"
    small = [
        "--train_per_class",
        "2",
        "--n_classes",
        "2",
        "--n_tasks",
        "1",
        "--n_epochs",
        "1",
        "--batch_size",
        "4",
        "--num_threads",
        "1",
    ]
    words = [
        "--model",
        model,
        "--backbone",
        backbone,
        "--dataset",
        "seq-digits",
        "--results_path",
        str(tmp_path),
        "--model_config",
        "none",
    ]
    done = python("-c", code, *words, *small)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(needs)
