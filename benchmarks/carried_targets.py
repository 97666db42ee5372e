"""Measure how far down a network per-layer model inversion (PMI) carries its targets.

    python benchmarks/carried_targets.py [--base_path DIR] [--json FILE] [--picture FILE]

A network of ours learns ten classes: those of seq-digits, or with --base_path ten of CIFAR-100's.
Features are drawn from the Gaussian of each class and inverted by PMI. After the sweep of each
layer the iterate goes through the pieces above it. Is it still recognised as its label, and how
near is its feature to the target? The same is asked after a few full-model steps. Run it from a
checkout in which the package is installed. It keeps the trained networks in --work.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pmi_cl.benchmarks.commands import check_folder, check_images, check_threads, exit_code, say


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line. Raises UserError for values that cannot be."""
    parser = argparse.ArgumentParser(prog="benchmarks/carried_targets.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base_path", type=Path, metavar="DIR", help="holds cifar-100-python; without it: digits")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything that was measured to FILE")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also draw it, as a PNG")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="of network, targets and starts (default: 0 1 2)"
    )
    parser.add_argument("--images", type=int, default=100, help="inverted together, a multiple of 10 (default: 100)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/benchmarks"), help="keeps the trained networks (default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="hardly trained, few steps: only to see that it runs")
    args = parser.parse_args(argv)
    check_images(args.images)
    check_threads(args.threads)
    check_folder("--json", args.json)
    check_folder("--picture", args.picture)
    return args


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure every seed. Return plain data.

    Raises:
        UserError: CIFAR-100 is not there.
    """
    from dataclasses import asdict

    import torch

    from pmi_cl.benchmarks import target_decay
    from pmi_cl.benchmarks.cifar_judges import JudgeSettings, load_cifar, load_digits, obtain_judge
    from pmi_cl.utils.records.surroundings import surroundings

    torch.set_num_threads(args.threads)
    cifar = args.base_path is not None
    judges = JudgeSettings("resnet32" if cifar else "resnet20", epochs=25)
    decay = target_decay.DecaySettings(images=args.images)
    if args.quick:
        judges, decay = JudgeSettings("resnet20", epochs=1, images=20), target_decay.quick(args.images)
    data = load_cifar(args.base_path, judges.images, offline=True) if cifar else load_digits(judges.images)
    settings = {"dataset": data.NAME, "seeds": args.seeds, "network": asdict(judges), **asdict(decay)}
    record: dict[str, Any] = {"schema": 1, **surroundings(), "settings": settings, "seeds": []}
    for seed in args.seeds:
        judge = obtain_judge(data, judges, seed, args.work / data.NAME, say)
        say(f"seed {seed}: PMI")
        measured = target_decay.measure(judge.network, data, decay, seed)
        record["seeds"].append({"seed": seed, "test_accuracy": judge.accuracy, **measured})
    return record


def command(args: argparse.Namespace) -> None:
    """Measure, print the tables, and write what was asked for."""
    from pmi_cl.benchmarks.decay_report import draw, report
    from pmi_cl.utils.records.atomic import write_json

    record = run(args)
    print(report(record))
    if args.json is not None:
        write_json(args.json, record, "--json")
    if args.picture is not None:
        draw(record, args.picture)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Return 0, or 2 for a user's mistake."""
    return exit_code(lambda: command(parse(argv)))


if __name__ == "__main__":
    raise SystemExit(main())
