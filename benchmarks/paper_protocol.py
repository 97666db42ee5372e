"""The paper's protocol on a GPU, in pieces.

    python benchmarks/paper_protocol.py --minutes 9

20,000 images are inverted, then ``rdfcil`` and ``pmi_rdfcil`` learn CIFAR-100 in ten tasks. Run it
from a checkout in which the package is installed. Each call works for at most so many minutes,
stops cleanly (SIGTERM: the run saves), and says whether to call again; the next call resumes. Every
finished part is one JSON file in ``--out``: the cost of the inversion, or a copy of the run's
``results.json``.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

METHODS = ("rdfcil", "pmi_rdfcil")
EXTRA_SECONDS = 45  # for the run to finish its step and save


def main(argv: Sequence[str] | None = None) -> int:
    """Work for the time given.

    Return 0 when everything is done, 75 (try again) when something is left.
    """
    args = arguments(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * args.minutes
    if "inversion" in args.parts and not (args.out / "inversion.json").exists():
        from pmi_cl.utils.records.atomic import write_json

        write_json(args.out / "inversion.json", inversion_speed(args))
    for method in METHODS:
        if (
            method in args.parts
            and not (args.out / f"{method}.json").exists()
            and not continue_run(method, args, deadline)
        ):
            print("time is up: call again with the same arguments to go on")
            return 75
    print("everything is done:", *sorted(path.name for path in args.out.glob("*.json")))
    return 0


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/paper_protocol"), help="where the JSON files go")
    parser.add_argument("--runs", type=Path, default=Path("runs/paper_protocol"), help="where the runs go")
    parser.add_argument("--base_path", default="./data", help="folder of CIFAR-100")
    parser.add_argument("--minutes", type=float, default=9.0, help="most minutes of one call")
    parser.add_argument("--preset", default="paper", help="preset of both methods")
    parser.add_argument("--images", type=int, default=20000, help="images of the inversion part")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--parts", nargs="+", default=["inversion", *METHODS], choices=["inversion", *METHODS])
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def inversion_speed(args: argparse.Namespace) -> dict[str, object]:
    """Invert random features of an untrained ResNet-32: 100 PMI steps a layer, 280 full-model
    steps.

    The time is measured, not the images.
    """
    import torch

    from pmi_cl.backbones.resnet_cifar import resnet32
    from pmi_cl.inversion.config import InversionConfig, inversion_dtype
    from pmi_cl.inversion.engine.engine import Inversion
    from pmi_cl.inversion.engine.problem import Problem, frozen_network
    from pmi_cl.inversion.networks.pieces import measure_input_moments
    from pmi_cl.machine.device import pick_device
    from pmi_cl.seeding import global_seed, seeded
    from pmi_cl.utils.records.surroundings import surroundings

    device = pick_device(args.device)
    with global_seed(args.seed, "protocol"):
        network = resnet32().to(device).eval()
    moments = measure_input_moments(
        network.pieces(), [torch.randn(512, 3, 32, 32, generator=seeded(args.seed)).to(device)]
    )
    targets = torch.randn(args.images, network.feature_dim, generator=seeded(args.seed, "targets"))
    precision, compiled = inversion_dtype("auto", device), device.type == "cuda"
    config = InversionConfig(start="pmi", keep_best=True, precision=precision, compiled=compiled)
    frozen = frozen_network(network.pieces(), None, config, moments)
    inversion = Inversion(Problem(frozen, config, image_shape=(3, 32, 32), targets=targets))
    started = time.perf_counter()
    for step in inversion.run():
        if step.done % 100 == 0:
            print(f"inversion: {step.done}/{step.total} steps", flush=True)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - started
    cost = {**inversion.report.summary(), "wall_seconds": seconds, "images_per_second": args.images / seconds}
    return {"device": str(device), "precision": str(config.precision), **cost, **surroundings()}


def continue_run(method: str, args: argparse.Namespace, deadline: float) -> bool:
    """Start or resume a method's run until the deadline. Return whether it has finished.

    The results of a finished run are in ``--out``.
    """
    folder = args.runs / method / "seq-cifar100" / f"seed{args.seed}"
    shared = ["--results_path", str(args.runs), "--base_path", args.base_path, "--device", args.device]
    if (folder / "checkpoint.pt").exists():
        command = ["--resume", str(folder), *shared]
    else:
        shutil.rmtree(folder, ignore_errors=True)  # a run that stopped before its first checkpoint
        named = ["--model", method, "--dataset", "seq-cifar100", "--n_tasks", "10", "--model_config", args.preset]
        command = [
            *named,
            "--seed",
            str(args.seed),
            "--run_name",
            f"seed{args.seed}",
            "--checkpoint_minutes",
            "3",
            *shared,
        ]
    run = subprocess.Popen([sys.executable, "-m", "pmi_cl", *command])
    try:
        code = run.wait(timeout=max(deadline - time.monotonic(), 1))
    except subprocess.TimeoutExpired:
        run.terminate()
        try:
            code = run.wait(timeout=EXTRA_SECONDS)
        except subprocess.TimeoutExpired:  # far from a safe point: it goes on from its last checkpoint next time
            run.kill()
            run.wait()
            code = 143
    if code not in (0, 143):
        raise SystemExit(f"{method} ended with exit code {code}")
    if code == 0:
        part = args.out / f"{method}.part"
        shutil.copy(folder / "results.json", part)
        part.replace(args.out / f"{method}.json")  # whole or not at all: its being there says that the method is done
    return code == 0


if __name__ == "__main__":
    raise SystemExit(main())
