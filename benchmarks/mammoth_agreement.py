"""Compare PMI + CFS inside Mammoth and in our own runner: the same settings, images, orders and
seeds.

    python benchmarks/mammoth_agreement.py --mammoth_path DIR --data FOLDER \\
        [--seeds 0 1 2] [--json FILE]

Both run five tasks, much shortened. ``seq-digits`` is our data set in both: the bridge hands the
method our own batches, so the accuracies have to be the same to the last digit. ``seq-cifar100`` is
Mammoth's own data set inside Mammoth (its loader, its crops, its order of the batches) and ours in
our runner: 10 classes of CIFAR-100 (--data holds cifar-100-python/) with 300 training and 100 test
images each. There the two can agree only as well as two seeds do.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CLASSES, KEPT = 10, 300  # of CIFAR-100: the first classes, the first training images of each
REPLAY = "--joint_batches 1 --lambda_all 1 --lambda_ce 0 --lambda_ft 0 --lambda_rkd 0.5"  # as best has it on digits
SETTINGS = {
    "seq-digits": "--model pmi_rdfcil --dataset seq-digits --model_config best"
    " --buffer_images 100 --inv_batch 100 --inv_steps 40 --cont_epochs 10 --n_epochs 10",
    "seq-cifar100": "--model pmi_rdfcil --dataset seq-cifar100 --backbone resnet20 --model_config best"
    f" --buffer_images 200 --inv_batch 200 --inv_steps 150 --cont_epochs 20 --n_epochs 20"
    f" --batch_size 32 --lr 0.1 {REPLAY}",
}
OURS = {  # what cuts CIFAR-100 down in our runner; Mammoth gets files that are cut down already
    "seq-digits": "",
    "seq-cifar100": f"--n_tasks 5 --n_classes {CLASSES} --train_per_class {KEPT} --class_order natural",
}
RAW = re.compile(r"^\tRaw accuracy values: Class-IL (\[[^]]*\])", re.MULTILINE)


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--mammoth_path", default=os.environ.get("MAMMOTH_PATH"), help="a checkout of aimagelab/mammoth"
    )
    parser.add_argument("--data", type=Path, help="holds cifar-100-python/")
    parser.add_argument("--datasets", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.json is not None and not args.json.parent.is_dir():
        parser.error(f"--json {args.json}: there is no folder {args.json.parent}, make it first")
    if not args.mammoth_path or (args.data is None and "seq-cifar100" in args.datasets):
        parser.error(
            "--mammoth_path and --data are needed: a Mammoth checkout, and the folder that holds cifar-100-python/"
        )
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from pmi_cl.utils.records.surroundings import surroundings

    report: dict[str, Any] = {
        **surroundings(),
        "threads": args.threads,
        "mammoth": mammoth_commit(args.mammoth_path),
        "runs": [],
    }
    for dataset in args.datasets:
        report["runs"].append(compare(args, dataset))
    print(json.dumps(report, indent=1))
    if args.json:
        from pmi_cl.utils.records.atomic import write_json

        write_json(args.json, report)
    return 0


def compare(args: argparse.Namespace, dataset: str) -> dict[str, Any]:
    """Run both sides for every seed. Return accuracy matrices and the mean of their last rows.

    All classes have equally many test images, except for the digits.
    """
    rows: dict[str, Any] = {"dataset": dataset, "settings": SETTINGS[dataset], "ours only": OURS[dataset], "seeds": {}}
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as folder:
            found = {
                "ours": ours(args, dataset, seed, Path(folder)),
                "in mammoth": in_mammoth(args, dataset, seed, Path(folder)),
            }
        last = {side: round(statistics.mean(matrix[-1]), 2) for side, matrix in found.items()}
        rows["seeds"][seed] = {"last": last, "matrix": found}
        print(dataset, seed, last, file=sys.stderr, flush=True)
    lasts = {side: [row["last"][side] for row in rows["seeds"].values()] for side in ("ours", "in mammoth")}
    rows["identical"] = all(same(row["matrix"]["ours"], row["matrix"]["in mammoth"]) for row in rows["seeds"].values())
    rows["mean of last"] = {side: round(statistics.mean(values), 2) for side, values in lasts.items()}
    if len(args.seeds) > 1:
        rows["deviation of last"] = {side: round(statistics.stdev(values), 2) for side, values in lasts.items()}
    return rows


def same(ours: list[list[float]], mammoth: list[list[float]]) -> bool:
    """Return whether two matrices are equal but for rounding: the last bit depends on what is
    multiplied first.
    """
    pairs = zip(itertools.chain(*ours), itertools.chain(*mammoth), strict=True)
    return all(math.isclose(one, other, abs_tol=1e-9) for one, other in pairs)


def ours(args: argparse.Namespace, dataset: str, seed: int, folder: Path) -> list[list[float]]:
    """Return the class-IL matrix of our own runner."""
    words = [
        *SETTINGS[dataset].split(),
        *OURS[dataset].split(),
        "--seed",
        str(seed),
        "--num_threads",
        str(args.threads),
    ]
    data = ["--base_path", str(args.data), "--offline", "1"] if args.data else []
    process(
        args, folder, ["-m", "pmi_cl", *words, *data, "--run_name", "own", "--savecheck", "none", "--tensorboard", "0"]
    )
    (record,) = folder.glob("runs/*/*/own/results.json")
    return json.loads(record.read_text())["class_il"]["matrix"]


def in_mammoth(args: argparse.Namespace, dataset: str, seed: int, folder: Path) -> list[list[float]]:
    """Return the class-IL matrix of Mammoth's runner."""
    if dataset == "seq-cifar100":
        cut_down(args.data, folder)
    folders = {"base_path": "data", "results_path": "results", "checkpoint_path": "checkpoints"}
    words = [*SETTINGS[dataset].split(), "--seed", str(seed), "--num_workers", "0", "--non_verbose", "1"]
    words += [word for flag, name in folders.items() for word in (f"--{flag}", str(folder / name))]
    text = process(
        args, folder, [str(Path(__file__).resolve()), "--child", args.mammoth_path, dataset, str(args.threads), *words]
    )
    return [ast.literal_eval(row) for row in RAW.findall(text)]


def process(args: argparse.Namespace, folder: Path, words: list[str]) -> str:
    """Run a Python process and return what it prints. It must succeed."""
    root = str(Path(__file__).resolve().parent.parent)
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout + done.stderr


def cut_down(data: Path, folder: Path) -> None:
    """Write the first classes and images of CIFAR-100 as files that torchvision reads."""
    from pmi_cl.benchmarks.mammoth_training import write_cifar
    from pmi_cl.datasets.files.cifar100_files import read_file

    splits = {}
    for name, kept in (("train", KEPT), ("test", KEPT)):
        content = read_file(data, name)
        labels = content[b"fine_labels"]
        places = [[row for row, label in enumerate(labels) if label == wanted][:kept] for wanted in range(CLASSES)]
        rows = sorted(row for part in places for row in part)
        splits[name] = content[b"data"][rows], [labels[row] for row in rows]
    write_cifar(folder, splits)


def mammoth_commit(path: str) -> str:
    """Return the commit of the checkout."""
    command = ["git", "-C", path, "log", "-1", "--format=%h"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def run_child(argv: list[str]) -> int:
    """Run Mammoth's ``main.py`` with fewer classes of CIFAR-100."""
    path, dataset, threads, *words = argv
    import torch

    from pmi_cl.benchmarks.mammoth_training import take_any_cifar
    from pmi_cl.mammoth import register
    from pmi_cl.mammoth.launch import launch

    torch.set_num_threads(int(threads))
    torch.set_num_threads = lambda nthreads: None  # Mammoth's main.py sets two
    register(path)
    if dataset == "seq-cifar100":
        take_any_cifar()
        theirs = sys.modules["datasets.seq_cifar100"].SequentialCIFAR100
        theirs.N_CLASSES, theirs.N_TASKS, theirs.N_CLASSES_PER_TASK = CLASSES, 5, CLASSES // 5
    return launch(["--mammoth_path", path, *words])


if __name__ == "__main__":
    raise SystemExit(run_child(sys.argv[2:]) if sys.argv[1:2] == ["--child"] else main())
