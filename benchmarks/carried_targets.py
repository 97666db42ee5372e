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
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pmi_cl.errors import UserError


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
    if args.images < 10 or args.images % 10:
        raise UserError(f"--images {args.images}: give a multiple of 10, the same number for each class")
    if args.threads < 1:
        raise UserError(f"--threads {args.threads}: give at least 1")
    for flag, file in (("--json", args.json), ("--picture", args.picture)):
        if file is not None and not file.parent.is_dir():
            raise UserError(f"{flag} {file}: there is no folder {file.parent}, make it first")
    return args


def say(line: str) -> None:
    """Print progress to stderr, outside of the report."""
    print(line, file=sys.stderr, flush=True)


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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Return 0, or 2 for a user's mistake."""
    try:
        args = parse(argv)
        record = run(args)
        from pmi_cl.benchmarks.decay_report import draw, report
        from pmi_cl.utils.records.atomic import write_json

        print(report(record))
        if args.json is not None:
            write_json(args.json, record, "--json")
        if args.picture is not None:
            draw(record, args.picture)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
