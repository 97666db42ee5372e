"""Compare the speed of fine-tuning, and the time to the first step, in our runner and in Mammoth's.

    python benchmarks/mammoth_training.py --mammoth_path DIR [--threads 1] [--json FILE]

MAMMOTH_PATH in the environment names the checkout, too. Both sides train the same network on images
of CIFAR-100's shape (random pixels: no download), task 1 of 10, with the batches that each makes
for itself: crops, mirror images, normalisation. The network is ours in both (Mammoth's through
``pmi-cl mammoth``); the row "its own" is Mammoth's network of that name. A step lasts from the end
of one ``observe`` to the end of the next, so it includes the data path. The runs of a round take
turns in processes of their own; a ratio is one of medians over the rounds. CPU seconds are those of
all threads: with one thread they hardly depend on other work on the machine, and wall seconds do.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WARM = 5  # steps that are not counted
NETWORKS = ("resnet32", "resnet18")
SIDES = ("mammoth", "mammoth, its own", "ours", "ours, bf16")
MAMMOTH_FLAGS = ("--num_workers", "0", "--non_verbose", "1", "--optim_mom", "0.9", "--optim_wd", "5e-4")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--mammoth_path", default=os.environ.get("MAMMOTH_PATH"), help="a checkout of aimagelab/mammoth"
    )
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--batches", nargs="+", type=int, default=(32, 128))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of training in each run")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.json is not None and not args.json.parent.is_dir():
        parser.error(f"--json {args.json}: there is no folder {args.json.parent}, make it first")
    if not args.mammoth_path:
        parser.error("--mammoth_path is missing: give the folder of a Mammoth checkout")
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from pmi_cl.utils.records.surroundings import surroundings

    with tempfile.TemporaryDirectory() as folder:
        fabricate(Path(folder))
        report = {
            **surroundings(),
            "threads": args.threads,
            "training": training(args, folder),
            "start": start(args, folder),
        }
    print(json.dumps(report, indent=1))
    if args.json:
        from pmi_cl.utils.records.atomic import write_json

        write_json(args.json, report)
    return 0


def training(args: argparse.Namespace, folder: str) -> list[dict[str, Any]]:
    """Return a row for each network and batch.

    It has the milliseconds of a step on each side, and our images per second over Mammoth's.
    """
    rows = []
    for network in args.networks:
        for batch in args.batches:
            found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
            for turn in range(args.rounds):
                for side in SIDES[turn % len(SIDES) :] + SIDES[: turn % len(SIDES)]:
                    found[side].append(child(args, folder, side, network, batch))
            row: dict[str, Any] = {"network": network, "batch": batch}
            for clock in ("cpu", "wall"):
                steps = {side: statistics.median(run[clock] for run in runs) for side, runs in found.items()}
                row[f"{clock}_ms_a_step"] = {side: round(1000 * value, 2) for side, value in steps.items()}
                row[f"{clock}_ratio"] = {
                    side: round(steps["mammoth"] / value, 3) for side, value in steps.items() if side in SIDES[2:]
                }
            row["images_per_second"] = {
                side: round(1000 * batch / value, 1) for side, value in row["wall_ms_a_step"].items()
            }
            rows.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
    return rows


def start(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Return seconds from the interpreter's start to the end of the first step, and of --help."""
    found: dict[str, list[dict[str, float]]] = {
        f"{what}, {side}": [] for what in ("first step", "help") for side in ("mammoth", "ours")
    }
    for _ in range(args.rounds):
        for side in ("mammoth", "ours"):
            name = "mammoth, its own" if side == "mammoth" else side
            found[f"first step, {side}"].append(child(args, folder, name, "resnet32", 32, what="first"))
            found[f"help, {side}"].append(child(args, folder, name, "resnet32", 32, what="help"))
    return {
        name: {clock: round(statistics.median(run[clock] for run in runs), 2) for clock in ("cpu", "wall")}
        for name, runs in found.items()
    }


def child(
    args: argparse.Namespace, folder: str, side: str, network: str, batch: int, what: str = "train"
) -> dict[str, float]:
    """Run one process. Return the facts about itself that its last line has."""
    flags = ["--mammoth_path", args.mammoth_path, "--threads", str(args.threads), "--seconds", str(args.seconds)]
    words = [side, network, str(batch), what, str(time.time())]
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, str(Path(__file__).resolve()), *flags, "--child", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    said = [line for line in done.stdout.splitlines() if line.startswith('{"cpu"')]
    if not said:
        raise SystemExit(f"{side}, {network}: {done.stdout[-2000:]}{done.stderr[-4000:]}")
    return json.loads(said[-1])


def fabricate(folder: Path) -> None:
    """Write CIFAR-100's files with random pixels."""
    import numpy

    counts = {"train": 50_000, "test": 10_000}
    pixels = {
        name: numpy.random.default_rng(0).integers(0, 256, (count, 3072), dtype=numpy.uint8)
        for name, count in counts.items()
    }
    write_cifar(folder, {name: (pixels[name], [row % 100 for row in range(count)]) for name, count in counts.items()})


def write_cifar(folder: Path, splits: dict[str, tuple[Any, list[int]]]) -> None:
    """Write pixels (n, 3072) and labels of both splits as the files of CIFAR-100.

    They lie below ``folder``/data, where Mammoth looks for them.
    """
    target = folder / "data" / "CIFAR100" / "cifar-100-python"
    target.mkdir(parents=True)
    for name, (pixels, labels) in splits.items():
        content = {"data": pixels, "fine_labels": labels, "coarse_labels": labels, "filenames": [""] * len(labels)}
        (target / name).write_bytes(pickle.dumps(content, protocol=4))
    meta = {
        "fine_label_names": [str(label) for label in range(100)],
        "coarse_label_names": [str(label) for label in range(100)],
    }
    (target / "meta").write_bytes(pickle.dumps(meta, protocol=4))


def take_any_cifar() -> None:
    """Let torchvision read files that are not the official ones."""
    from torchvision.datasets import CIFAR100

    CIFAR100.train_list, CIFAR100.test_list = [["train", None]], [["test", None]]
    CIFAR100.meta = {**CIFAR100.meta, "md5": None}


class Enough(BaseException):
    """The run has been timed and ends here."""


class Watch:
    """The clocks at the end of every step."""

    def __init__(self, what: str, seconds: float, began: float, threads: int) -> None:
        self.what, self.seconds, self.began, self.threads = what, seconds, began, threads
        self.marks: list[tuple[float, float]] = []

    def around(self, observe: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``observe`` with the clocks read after it."""

        def watched(*args: Any, **kwargs: Any) -> Any:
            if not self.marks:
                import torch

                torch.set_num_threads(self.threads)  # Mammoth's main.py sets two
            found = observe(*args, **kwargs)
            self.marks.append((time.process_time(), time.time()))
            if self.what == "first":
                self.say(time.process_time(), time.time() - self.began)
            if len(self.marks) > WARM + 3 and self.marks[-1][1] - self.marks[WARM - 1][1] > self.seconds:
                self.say(*(median_difference([mark[clock] for mark in self.marks[WARM - 1 :]]) for clock in (0, 1)))
            return found

        return watched

    def say(self, cpu: float, wall: float) -> None:
        """Print the answer and end the process."""
        print(json.dumps({"cpu": cpu, "wall": wall}), flush=True)
        raise Enough


def median_difference(marks: list[float]) -> float:
    """Return the median difference between neighbours."""
    return statistics.median(after - before for before, after in itertools.pairwise(marks))


def run_child(argv: list[str]) -> int:
    """Run the part of a process that :func:`child` has started."""
    flags = dict(zip(argv[0:6:2], argv[1:6:2], strict=True))
    side, network, batch, what, began = argv[7:]
    watch = Watch(what, float(flags["--seconds"]), float(began), int(flags["--threads"]))
    help_only = ["--help"] if what == "help" else []
    common = ["--dataset", "seq-cifar100", "--seed", "0", "--batch_size", batch, "--lr", "0.1"]
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    try:
        if side.startswith("ours"):
            precision = "bf16" if side.endswith("bf16") else "fp32"
            ours(
                watch,
                [
                    "--model",
                    "sgd",
                    "--backbone",
                    network,
                    "--num_threads",
                    flags["--threads"],
                    *common,
                    "--precision",
                    precision,
                    *help_only,
                ],
            )
        else:
            backbone = network if side.endswith("own") else f"pmi-{network}"
            own = what != "train"
            mammoths(
                watch,
                flags["--mammoth_path"],
                ["--model", "sgd", "--backbone", backbone, *common, *MAMMOTH_FLAGS, *help_only],
                own,
            )
    except Enough:
        return 0
    except SystemExit:
        if what != "help":
            raise
    if what == "help":
        print(json.dumps({"cpu": time.process_time(), "wall": time.time() - watch.began}))
    return 0


def ours(watch: Watch, words: list[str]) -> None:
    """Run our command on the fabricated images. ``--help`` needs nothing of that."""
    from pmi_cl.cli import main as command

    if "--help" not in words:
        from pmi_cl.datasets.seq_cifar100 import SeqCifar100
        from pmi_cl.models.resnet.sgd import Sgd

        SeqCifar100.check_data = classmethod(lambda cls, args: None)  # type: ignore[method-assign, assignment]
        SeqCifar100.load = fabricated_load  # type: ignore[method-assign, assignment]
        Sgd.observe = watch.around(Sgd.observe)  # type: ignore[method-assign]
    command([*words, "--n_epochs", "50", "--savecheck", "none", "--non_verbose", "1", "--model_config", "none"])


def fabricated_load(dataset: Any, args: Any, progress: Any) -> Any:
    """Read the fabricated files as the loader reads the official ones."""
    import torch

    from pmi_cl.datasets.continual_dataset import RawData
    from pmi_cl.datasets.selection import Split

    folder = Path("data/CIFAR100/cifar-100-python")
    parts = [pickle.loads((folder / name).read_bytes()) for name in ("train", "test")]
    splits = [
        Split(torch.from_numpy(part["data"]).view(-1, 3, 32, 32), torch.tensor(part["fine_labels"])) for part in parts
    ]
    return RawData(splits[0], splits[1], [str(label) for label in range(100)])


def mammoths(watch: Watch, path: str, words: list[str], own: bool) -> None:
    """Run Mammoth's ``main.py`` on the fabricated images.

    With ``own`` nothing of ours is in it but what lets it be imported.
    """
    from pmi_cl.mammoth import register
    from pmi_cl.mammoth.launch import launch

    if own:
        from pmi_cl.mammoth import bridge

        bridge.enter_entries = lambda entered: None
    register(path)
    take_any_cifar()
    base = sys.modules["models.utils.continual_model"].ContinualModel
    base.meta_observe = watch.around(base.meta_observe)
    folders = {"base_path": "data", "results_path": "results", "checkpoint_path": "checkpoints"}
    launch(
        [
            "--mammoth_path",
            path,
            *(word for flag, name in folders.items() for word in (f"--{flag}", name)),
            *words,
        ]
    )


if __name__ == "__main__":
    raise SystemExit(run_child(sys.argv[1:]) if "--child" in sys.argv else main())
