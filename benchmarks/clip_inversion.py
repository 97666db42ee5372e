"""Benchmark of inversion on a CLIP's image tower: the time of a step, three recipes, memory.

    python benchmarks/clip_inversion.py [--json FILE]

A step is timed against the bare tower and in bfloat16; PMI, full inversion and SMI stand side by
side. Run it from a checkout in which the package is installed. Weights are random and statistics
those of random images: the cost of a step depends on neither. On a CPU the seconds are CPU seconds,
and those of whole recipes follow from the seconds of their steps. On a GPU they are the device's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pmi_cl.benchmarks.commands import check_folder, exit_code, say
from pmi_cl.errors import UserError
from pmi_cl.registry.catalogue import INSTALLED

MEMORY_IMAGES = 20  # the released code's batch of the full-model stage
RATIOS = (
    ("engine_over_bare_fp32", "full-model step over bare forward and backward, fp32"),
    ("engine_over_bare_bf16", "the same in bf16"),
    ("bf16_over_fp32", "fp32 step over bf16 step"),
    ("sweep_over_full", "one PMI step on every piece over one full-model step, bf16"),
)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line. Raises UserError for values that cannot be."""
    parser = argparse.ArgumentParser(prog="benchmarks/clip_inversion.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything that was measured to FILE")
    parser.add_argument(
        "--backbone", default="clip-vit-b-16", help="any CLIP backbone, with random weights (default: %(default)s)"
    )
    parser.add_argument(
        "--images", type=int, default=8, help="inverted together, of the step times (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (default: %(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=5, help="the loops take turns so often; times are medians (default: %(default)s)"
    )
    parser.add_argument("--compile", action="store_true", help="also measure the compiled step")
    parser.add_argument(
        "--whole", action="store_true", help="also run the three recipes to the end on --images images (hours on a CPU)"
    )
    parser.add_argument("--quick", action="store_true", help="clip-tiny and few rounds: only to see that it runs")
    # What a fresh process is asked for.
    parser.add_argument("--memory-only", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.images < 1 or args.threads < 1 or args.rounds < 1:
        raise UserError("--images, --threads and --rounds: give at least 1")
    check_folder("--json", args.json)
    if INSTALLED.find("backbone", args.backbone).constants.get("KIND") != "clip":
        raise UserError(f"--backbone {args.backbone} is no CLIP: give clip-vit-b-16 or clip-tiny")
    if args.quick:
        args.backbone, args.rounds = "clip-tiny", min(args.rounds, 2)
    return args


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure everything that was asked for. Return plain data.

    Raises:
        UserError: the backbone or the device is unknown.
    """
    import torch

    from pmi_cl.benchmarks import clip_steps
    from pmi_cl.machine.device import pick_device
    from pmi_cl.utils.records.surroundings import surroundings

    torch.set_num_threads(args.threads)
    device = pick_device(args.device)
    bench = clip_steps.prepare(args.backbone, MEMORY_IMAGES if args.memory_only else args.images, device)
    if args.memory_only:
        return {"peak_mib": clip_steps.peak_memory(bench)}
    settings = {name: getattr(args, name) for name in ("backbone", "images", "threads", "rounds", "quick")}
    record: dict[str, Any] = {"schema": 1, **surroundings(), "settings": {**settings, "device": str(device)}}
    record.update(clip_steps.measure(bench, args.rounds, args.compile, say))
    record["memory"] = {"images": MEMORY_IMAGES, "precision": "fp32", **_memory_in_a_fresh_process(args)}
    if args.whole:
        record["whole"] = clip_steps.run_recipes(bench, 0.01 if args.quick else 1.0, say)
    return record


def _memory_in_a_fresh_process(args: argparse.Namespace) -> dict[str, Any]:
    """Measure memory where what the measurement of steps holds does not count."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "memory.json"
        words = [
            "--memory-only",
            "--backbone",
            args.backbone,
            "--device",
            args.device,
            "--threads",
            str(args.threads),
            "--json",
            str(path),
        ]
        subprocess.run([sys.executable, str(Path(__file__).resolve()), *words], check=True, stdout=subprocess.DEVNULL)
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found


def report(record: dict[str, Any]) -> str:
    """Return the record as tables."""
    lines = [f"{record['settings']['backbone']}, {record['settings']['images']} images, {record['settings']['device']}"]
    lines += [
        f"  {name:<28} {row['seconds_per_image'] * 1e3:10.2f} ms per image" for name, row in record["loops"].items()
    ]
    lines += [f"{words}: {record['ratios'][name]:.3f}" for name, words in RATIOS if name in record["ratios"]]
    lines += [
        f"{name}: {row['seconds_per_image']:.1f} s per image, {row['step_equivalents']:.0f} step-equivalents"
        for name, row in record["recipes"].items()
    ]
    lines.append(
        f"memory of {record['memory']['images']} samples in fp32: {record['memory']['peak_mib'] / 1024:.2f} GiB"
    )
    if "matmul" in record:
        lines.append(
            f"share of the measured bf16 matmul peak: {record['matmul']['share']:.2f} "
            f"of {record['matmul']['tflops']:.0f} TFLOP/s"
        )
    lines += [
        f"whole {name}: {row['seconds_per_image']:.2f} s per image" for name, row in record.get("whole", {}).items()
    ]
    return "\n".join(lines)


def command(args: argparse.Namespace) -> None:
    """Measure, print the tables, and write the figures."""
    from pmi_cl.utils.records.atomic import write_json

    record = run(args)
    if not args.memory_only:
        print(report(record))
    if args.json is not None:
        write_json(args.json, record)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Return 0, or 2 for a user's mistake."""
    return exit_code(lambda: command(parse(argv)))


if __name__ == "__main__":
    raise SystemExit(main())
