"""Part ``per_step``: the time of one full-model step of the naive loop and of every way of the
engine.

Gradients are compared first.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from torch import Tensor

from pmi_cl.benchmarks.naive_inversion import NaiveInversion
from pmi_cl.benchmarks.running import Clock, Way, take_turns
from pmi_cl.benchmarks.workbench import ALPHA, IMAGE_SHAPE, Workbench, warm_up
from pmi_cl.inversion.starts import low_frequency_noise
from pmi_cl.seeding import seeded

LR = 0.15  # App. I.1


def measure(bench: Workbench, ways: list[Way], say: Callable[[str], None]) -> dict[str, Any]:
    """Return the seconds of a step by loop, ratios to the naive loop, and the distance of the
    gradients.

    All loops take turns in one process, each the same number of steps from the same images, so that
    other work on the machine falls on all of them. A ratio is one of medians of CPU seconds.
    """
    start = low_frequency_noise((bench.size.images, *IMAGE_SHAPE), seeded(bench.seed, "step time"))
    gradients = compare_gradients(bench, start)
    loops: dict[str, Callable[[], object]] = {"naive": naive_loop(bench, start).step}
    compile_seconds = {}
    for way in ways:
        say(f"warming up {way.name}")
        inversion = bench.inversion(replace(bench.config(way), steps=10**6), way, start=start)
        compile_seconds[way.name] = warm_up(inversion, start)
        loops[way.name] = inversion.run().__next__
    times = take_turns(loops, bench.size.rounds, bench.size.block)
    rows = {name: _row(clocks, bench.size) for name, clocks in times.items()}
    for name, row in rows.items():
        row["ratio"] = rows["naive"]["cpu_seconds"] / row["cpu_seconds"]
        row["wall_ratio"] = rows["naive"]["wall_seconds"] / row["wall_seconds"]
        row["first_steps_seconds"] = compile_seconds.get(name, 0.0)
    return {"gradients": gradients, "loops": rows}


def naive_loop(bench: Workbench, start: Tensor, alpha: float = ALPHA) -> NaiveInversion:
    """Return the naive loop on the workbench's network and targets."""
    return NaiveInversion(bench.inverted.network, start, bench.targets, lr=LR, alpha=alpha)


def _row(clocks: list[Clock], size: Any) -> dict[str, float]:
    cpu, wall = (median(getattr(clock, kind) for clock in clocks) / size.block for kind in ("cpu", "wall"))
    return {"cpu_seconds": cpu, "wall_seconds": wall, "image_steps_per_second": size.images / cpu}


def compare_gradients(bench: Workbench, start: Tensor) -> dict[str, dict[str, float]]:
    """Return by loop the distance of its gradient at ``start`` from the naive loop's and the exact
    one.

    The naive loop is in float32; the exact gradient is its own in float64. In float64 the engine's
    gradient is the exact one to rounding. In float32 every loop rounds some pre-activation across
    the corner of a ReLU. That changes the gradient of the one image it belongs to, in the naive
    loop as in the engine. Hence the figures by image.
    """
    wide = copy.deepcopy(bench.inverted.network).double()
    exact = NaiveInversion(wide, start.double(), bench.targets.double(), lr=LR, alpha=ALPHA).gradient()
    naive = naive_loop(bench, start).gradient()
    ways = [Way("fp64", torch.float64), Way("fp32"), Way("bf16", torch.bfloat16)]
    found = {"naive": naive, **{way.name: _engine_gradient(bench, way, start) for way in ways}}
    return {name: {**_distances("naive", g, naive), **_distances("float64", g, exact)} for name, g in found.items()}


def _engine_gradient(bench: Workbench, way: Way, start: Tensor) -> Tensor:
    """Return the gradient that the engine's first step from ``start`` follows."""
    inversion = bench.inversion(replace(bench.config(way), steps=1), way, start=start)
    next(inversion.run())
    assert inversion.descent is not None and inversion.descent.x.grad is not None
    return inversion.descent.x.grad


def _distances(name: str, one: Tensor, other: Tensor) -> dict[str, float]:
    """Return |g - h| / |h| of all images together and of the median image.

    Return the share of images where it is at most 1e-4, too.
    """
    difference, size = (one.double() - other.double()).flatten(1).norm(dim=1), other.double().flatten(1).norm(dim=1)
    by_image = difference / size
    figures = {
        "": difference.norm() / size.norm(),
        "_median_image": by_image.median(),
        "_within_1e-4": (by_image <= 1e-4).double().mean(),
    }
    return {f"to_{name}{kind}": float(value) for kind, value in figures.items()}
