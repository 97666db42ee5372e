"""Benchmark of the inversion engine on ten CIFAR-100 classes.

    python benchmarks/inversion.py [--json FILE]

It measures the speed of a step, the time to an equal loss, and what every start gives. Run it from
a checkout in which the package is installed. The first run trains two networks, about eight minutes
each on one core, and keeps them in ``--work``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pmi_cl.benchmarks.commands import check_folder, check_images, check_threads, exit_code, say
from pmi_cl.errors import UserError

PARTS = ("per_step", "equal_loss", "starts")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line. Raises UserError for values that cannot be."""
    parser = argparse.ArgumentParser(prog="benchmarks/inversion.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything that was measured to FILE")
    parser.add_argument(
        "--parts", default=",".join(PARTS), help="which to run, separated by commas (default: %(default)s)"
    )
    parser.add_argument(
        "--starts",
        default="",
        help="of the part starts, only rows whose names begin so, separated by commas (default: all)",
    )
    parser.add_argument(
        "--images", type=int, help="synthetic images, optimised together, a multiple of 10 (default: 200)"
    )
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of targets and starts; the networks' are 0 and 1 (default: %(default)s)"
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("data"),
        help="holds cifar-100-python; fetched if absent (default: %(default)s)",
    )
    parser.add_argument("--offline", action="store_true", help="never fetch CIFAR-100")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/benchmarks"), help="keeps the trained networks (default: %(default)s)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a minute in all, on small networks hardly trained: only to see that it runs",
    )
    args = parser.parse_args(argv)
    args.parts = [part.strip() for part in args.parts.split(",")]
    if unknown := [part for part in args.parts if part not in PARTS]:
        raise UserError(f"--parts {unknown[0]}: choose from {', '.join(PARTS)}")
    check_images(args.images)
    check_threads(args.threads)
    check_folder("--json", args.json)
    return args


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure everything that was asked for. Return plain data.

    Raises:
        UserError: CIFAR-100 is not there.
    """
    import torch

    from pmi_cl.benchmarks import equal_loss, start_quality, step_time
    from pmi_cl.benchmarks.running import ways_of_running
    from pmi_cl.benchmarks.workbench import ALPHA, PRINTED_ALPHA, QUICK, Size, prepare
    from pmi_cl.utils.records.surroundings import surroundings

    torch.set_num_threads(args.threads)
    size = QUICK if args.quick else Size()
    size = size if args.images is None else replace(size, images=args.images)
    ways, left_out = ways_of_running(args.quick)
    bench = prepare(args.data, args.work, size, args.seed, args.offline, say)
    settings = {"seed": args.seed, "quick": args.quick, **asdict(size), "left_out": left_out}
    record: dict[str, Any] = {"schema": 1, **surroundings(), "settings": settings}
    record["test_accuracy"] = {"a": bench.inverted.accuracy, "b": bench.judge.accuracy}
    if "per_step" in args.parts:
        record["per_step"] = step_time.measure(bench, ways, say)
        ratios = {name: row["ratio"] for name, row in record["per_step"]["loops"].items() if name != "naive"}
        record["per_step_ratio"], record["per_step_ratios"] = ratios[ways[-1].name], ratios
    if "equal_loss" in args.parts:
        first_and_last = list(dict.fromkeys([ways[0], ways[-1]]))
        printed = equal_loss.measure(bench, first_and_last, PRINTED_ALPHA, say)
        record["equal_loss"] = [printed, equal_loss.measure(bench, ways[-1:], ALPHA, say)]
        record["equal_loss_ratio"] = {
            row["start"]: row["ratio"] for row in printed["rows"] if row["way"] == ways[-1].name
        }
    if "starts" in args.parts:
        record["starts"] = start_quality.measure(bench, ways[-1], say, args.starts.split(",") if args.starts else ())
    return record


def command(args: argparse.Namespace) -> None:
    """Measure, print the tables, and write the figures."""
    from pmi_cl.benchmarks.report import report
    from pmi_cl.utils.records.atomic import write_json

    record = run(args)
    print(report(record))
    if args.json is not None:
        write_json(args.json, record)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Return 0, or 2 for a user's mistake."""
    return exit_code(lambda: command(parse(argv)))


if __name__ == "__main__":
    raise SystemExit(main())
