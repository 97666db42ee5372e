"""Runs that differ in one flag, side by side.

    python benchmarks/side_by_side.py --vary inversion pmi full smi -- \\
        --model pmi_moe --dataset seq-digits
    python benchmarks/side_by_side.py --vary model vpt pmi_vpt --pairs pmi_vpt:vpt -- \\
        --dataset seq-digits

The table has last and average accuracy over seeds, paired differences, time, and seconds per
synthetic image. The first example is the paper's Table 8. Words after ``--`` go to every run. Run
it from a checkout in which the package is installed. A run that has finished at the same commit is
not made again; one that was stopped is resumed.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pmi_cl.benchmarks.commands import check_folder, exit_code
from pmi_cl.errors import UserError
from pmi_cl.utils.records.atomic import write_json
from pmi_cl.utils.records.run_record import RunRecord
from pmi_cl.utils.records.surroundings import surroundings
from pmi_cl.utils.reports.comparison import read_runs


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line. Raises UserError for values that cannot be."""
    words = list(sys.argv[1:] if argv is None else argv)
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--vary", nargs="+", required=True, metavar=("FLAG", "VALUE"), help="a flag of pmi-cl, and its values"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--pairs", nargs="*", default=[], metavar="VALUE:VALUE", help="differences by seed; default: each to the first"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/side_by_side"), help="where the runs go")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args(words[:cut])
    args.words, args.flag, args.values = words[cut + 1 :], args.vary[0].removeprefix("--"), args.vary[1:]
    if not args.values:
        raise UserError(f"--vary {args.flag}: give the values, too")
    args.pairs = [tuple(pair.split(":")) for pair in args.pairs] or [
        (value, args.values[0]) for value in args.values[1:]
    ]
    for pair in args.pairs:
        if len(pair) != 2 or not set(pair) <= set(args.values):
            raise UserError(f"--pairs {':'.join(pair)}: write two of {', '.join(args.values)} with a colon between")
    check_folder("--json", args.json)
    return args


def one_run(words: Sequence[str], runs: Path, seed: int) -> RunRecord:
    """Return the record of a run with these words: read, resumed or made.

    Raises:
        UserError: the run ended with an error, which it has printed.
    """
    # Other code makes other runs.
    told = hashlib.sha256("\0".join([str(surroundings()["commit"]), *words]).encode()).hexdigest()[:8]
    name = f"{told}-seed{seed}"
    record = next((RunRecord(path) for path in runs.glob(f"*/*/{name}")), None)
    if record is not None and not record.checkpoint.exists() and not finished(record):
        # It ended before its first checkpoint.
        record.folder.rename(record.folder.with_name(f"{name}-stopped-{time.time_ns()}"))
        record = None
    if record is None or not finished(record):
        new = [*words, "--seed", str(seed), "--run_name", name, "--results_path", str(runs)]
        command = new if record is None else ["--resume", str(record.folder)]
        code = subprocess.run([sys.executable, "-m", "pmi_cl", *command]).returncode
        if code:
            raise UserError(f"a run ended with exit code {code}: {' '.join(words)} --seed {seed}")
        record = next(RunRecord(path) for path in runs.glob(f"*/*/{name}"))
    return record


def finished(record: RunRecord) -> bool:
    """Return whether the run has come to its end. One that was killed early has no results."""
    try:
        return bool(record.read_results()["status"] == "finished")
    except FileNotFoundError:
        return False


def figures(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures that are compared, of the runs of one value."""
    inverted = [run["inversion"] for run in results]
    return {
        "last": [run["class_il"]["last"] for run in results],
        "average": [run["class_il"]["average"] for run in results],
        "last_task": [run["class_il"]["matrix"][-1][-1] for run in results],
        "forgetting": [run["class_il"]["forgetting"] for run in results],
        "minutes": [sum(run["seconds"].values()) / 60 for run in results],
        "synthetic": inverted[0]["images"],
        "seconds_per_image": [inversion["seconds_per_image"] for inversion in inverted],
        "step_equivalents": [inversion["step_equivalents"] for inversion in inverted],
    }


def report(record: dict[str, Any]) -> str:
    """Return Markdown: a row for each value, then the paired differences.

    Figures are mean and standard deviation over the seeds (ddof 1).
    """
    lines = [
        f"| {record['flag']} | last, % | average, % | forgetting | last task, % | minutes | s per image |",
        "|" + "---|" * 7,
    ]
    for value, found in record["figures"].items():
        cells = [spread(found[name]) for name in ("last", "average", "forgetting", "last_task")]
        pace = f"{statistics.mean(found['seconds_per_image']):.2f}" if found["synthetic"] else ""
        lines.append(f"| `{value}` | {' | '.join(cells)} | {statistics.mean(found['minutes']):.1f} | {pace} |")
    lines += ["", "| paired difference | last | average |", "|---|---|---|"]
    for one, other in record["pairs"]:
        protocols = [record["figures"][value]["protocol"] for value in (one, other)]
        if protocols[0] != protocols[1]:
            lines.append(f"| `{one}` - `{other}` | not comparable: {' / '.join(protocols)} |  |")
            continue
        gaps = [differences(record["figures"], one, other, name) for name in ("last", "average")]
        lines.append(f"| `{one}` - `{other}` | {' | '.join(spread(gap, '+') for gap in gaps)} |")
    return "\n".join(lines)


def differences(found: dict[str, Any], one: str, other: str, name: str) -> list[float]:
    """Return the differences of one figure, seed by seed."""
    return [mine - theirs for mine, theirs in zip(found[one][name], found[other][name], strict=True)]


def spread(values: Sequence[float], sign: str = "") -> str:
    """Return mean and standard deviation."""
    mean = format(statistics.mean(values), f"{sign}.2f")
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def compare(args: argparse.Namespace) -> None:
    """Make the runs of every value, print the tables, and write the figures."""
    found, last = {}, {}
    for value in args.values:
        records = [one_run([f"--{args.flag}", value, *args.words], args.runs, seed) for seed in args.seeds]
        results = [record.read_results() for record in records]
        protocol = read_runs([records[0].folder])[0][0].protocol
        found[value], last = {**figures(results), "protocol": protocol}, results[-1]
    shared = {name: last[name] for name in ("versions", "commit", "hardware")}
    command = {"flag": args.flag, "values": args.values, "words": args.words, "seeds": args.seeds}
    record = {"schema": 1, **command, "pairs": args.pairs, "figures": found, **shared}
    if args.json is not None:
        write_json(args.json, record)
    print(report(record))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Return 0, or 2 for a user's mistake."""
    return exit_code(lambda: compare(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
