"""Measure a user's waits, against ``import torch`` in the same minute.

    python benchmarks/startup.py --data ./data [--json FILE]

The waits are ``--help`` and the first training step on CIFAR-100.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HELP = ("--help",)
LIST = ("--list",)


def main() -> int:
    """Print the medians and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="./data", help="holds cifar-100-python")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.json is not None and not args.json.parent.is_dir():
        parser.error(f"--json {args.json}: there is no folder {args.json.parent}, make it first")
    waits: dict[str, list[float]] = {"import torch": [], "--help": [], "--list": [], "first step": []}
    for _ in range(args.rounds):  # interleaved, so that a busy moment hits all alike
        waits["import torch"].append(seconds([sys.executable, "-c", "import torch"]))
        waits["--help"].append(seconds([sys.executable, "-m", "pmi_cl", *HELP]))
        waits["--list"].append(seconds([sys.executable, "-m", "pmi_cl", *LIST]))
        waits["first step"].append(first_step(args.data))
    medians = {name: statistics.median(times) for name, times in waits.items()}
    report = {"medians": medians, "first_step_over_import_torch": medians["first step"] / medians["import torch"]}
    print(json.dumps(report, indent=1))
    if args.json:
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
        from pmi_cl.utils.records.atomic import write_json

        write_json(args.json, report)
    return 0


def seconds(command: list[str]) -> float:
    """Return the wall time of a command."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def first_step(data: str) -> float:
    """Time the first training step of ``sgd`` on CIFAR-100 (batch 32), from the interpreter's
    start.
    """
    flags = [
        "--model",
        "sgd",
        "--dataset",
        "seq-cifar100",
        "--base_path",
        data,
        "--batch_size",
        "32",
        "--progress",
        "1",
        "--savecheck",
        "none",
    ]
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        run = subprocess.Popen(
            [sys.executable, "-m", "pmi_cl", *flags, "--results_path", folder],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert run.stderr is not None
        seen = b""
        while b"loss" not in seen:  # the progress bar shows a loss once a step is done
            chunk = run.stderr.read1(200)  # type: ignore[attr-defined]
            if not chunk:
                raise SystemExit(seen.decode(errors="replace"))
            seen += chunk
        waited = time.perf_counter() - began
        run.kill()
        run.wait()
    return waited


if __name__ == "__main__":
    raise SystemExit(main())
