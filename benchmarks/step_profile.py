"""Profile a training step of fine-tuning, and compare its convolutions with the processor's peak.

    python benchmarks/step_profile.py [--backbone resnet18] [--batch 32] [--threads 2] [--json FILE]

The step is that of ``--model sgd`` on images of CIFAR-100's shape: forward, cross-entropy,
backward, SGD. Milliseconds by kind of operator are those of torch's profiler. Operations of the
convolutions are counted by torch's flop counter. The peak is what one large convolution in float32
reaches on the same threads. ``floor_ms`` is what the step's convolutions alone would take at that
peak.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

KINDS = {"convolution": "convolution", "batch_norm": "BatchNorm", "threshold": "ReLU", "clamp": "ReLU"}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet18", choices=("resnet18", "resnet32", "resnet20"))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.json is not None and not args.json.parent.is_dir():
        parser.error(f"--json {args.json}: there is no folder {args.json.parent}, make it first")
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import torch

    from pmi_cl.utils.records.surroundings import surroundings

    torch.set_num_threads(args.threads)
    step = training_step(args.backbone, args.batch)
    report = {
        **surroundings(),
        "backbone": args.backbone,
        "batch": args.batch,
        "threads": args.threads,
        **measure(step, args.steps),
    }
    print(json.dumps(report, indent=1))
    if args.json:
        from pmi_cl.utils.records.atomic import write_json

        write_json(args.json, report)
    return 0


def training_step(backbone: str, batch: int) -> Callable[[], None]:
    """Return a step of our fine-tuning on ``batch`` random images (32x32 pixels, ten classes)."""
    import torch

    from pmi_cl.models.training.momentum_sgd import MomentumSGD
    from pmi_cl.registry.catalogue import INSTALLED

    net = INSTALLED.load("backbone", backbone)()
    net.head.grow(10, torch.Generator().manual_seed(0))
    net.to(memory_format=torch.channels_last).train()
    images = torch.randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (batch,))
    optimizer = MomentumSGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)

    def step() -> None:
        loss = torch.nn.functional.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def measure(step: Callable[[], None], steps: int) -> dict[str, Any]:
    """Return the milliseconds of a step and of its kinds of operators, and what its convolutions
    reach.
    """
    from torch.utils.flop_counter import FlopCounterMode

    for _ in range(3):
        step()
    with FlopCounterMode(display=False) as counter:
        step()
    counts = counter.get_flop_counts()["Global"]
    gigaflop = sum(count for operator, count in counts.items() if "convolution" in str(operator)) / 1e9
    milliseconds = statistics.median(timed(step) for _ in range(steps))
    kinds = by_kind(step, steps=5)
    peak = convolution_peak()
    return {
        "ms_a_step": round(milliseconds, 1),
        "ms_by_kind": kinds,
        "convolution_gigaflop": round(gigaflop, 1),
        "convolution_gigaflop_per_s": round(1000 * gigaflop / kinds["convolution"]),
        "peak_gigaflop_per_s": round(peak),
        "floor_ms": round(1000 * gigaflop / peak, 1),
    }


def timed(step: Callable[[], None]) -> float:
    """Return the milliseconds that a call takes."""
    began = time.perf_counter()
    step()
    return 1000 * (time.perf_counter() - began)


def by_kind(step: Callable[[], None], steps: int) -> dict[str, float]:
    """Return the milliseconds a step that operators spend in themselves, the longest first."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(steps):
            step()
    spent: dict[str, float] = {}
    for event in profiler.key_averages():
        kind = next((kind for mark, kind in KINDS.items() if mark in event.key), "the rest, SGD included")
        spent[kind] = spent.get(kind, 0.0) + event.self_cpu_time_total / 1000 / steps
    return {kind: round(value, 1) for kind, value in sorted(spent.items(), key=lambda item: -item[1])}


def convolution_peak(tries: int = 10) -> float:
    """Return the most billions of operations a second that a 3x3 convolution reaches.

    It has 256 channels and maps of 28x28, which suit the processor.
    """
    import torch

    maps, weight = torch.randn(16, 256, 28, 28), torch.randn(256, 256, 3, 3)
    maps, weight = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (maps, weight))
    gigaflop = 2 * maps[:, 0].numel() * weight.numel() / 1e9
    return max(1000 * gigaflop / timed(lambda: torch.conv2d(maps, weight, padding=1)) for _ in range(tries))


if __name__ == "__main__":
    raise SystemExit(main())
