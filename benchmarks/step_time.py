"""Part ``per_step``: the time of one full-model step, the naive loop against every way to run the engine, gradients compared first."""

from __future__ import annotations

import copy
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor

from pmi_cl.benchmarks.naive_inversion import NaiveInversion
from pmi_cl.benchmarks.running import Clock, Way
from pmi_cl.benchmarks.workbench import ALPHA, IMAGE_SHAPE, Workbench, warm_up
from pmi_cl.inversion.starts import low_frequency_noise
from pmi_cl.seeding import seeded

LR = 0.15  # App. I.1


def measure(bench: Workbench, ways: list[Way], say: Callable[[str], None]) -> dict[str, Any]:
    """Seconds of a step by loop, ratios to the naive loop, and how far the gradients are apart.

    All loops take turns in one process, each the same number of steps from the same images, so that what else the machine does falls on
    all of them; a ratio is one of medians of CPU seconds.
    """
    start = low_frequency_noise((bench.size.images, *IMAGE_SHAPE), seeded(bench.seed, "step time"))
    gradients = compare_gradients(bench, ways, start)
    loops: dict[str, Callable[[], object]] = {"naive": naive_loop(bench, start).step}
    compile_seconds = {}
    for way in ways:
        say(f"warming up {way.name}")
        inversion = bench.inversion(bench.config(way, steps=10**6), way, start=start)
        compile_seconds[way.name] = warm_up(inversion, start)
        loops[way.name] = inversion.run().__next__
    times = _take_turns(loops, bench.size.rounds, bench.size.block)
    rows = {name: _row(clocks, bench.size) for name, clocks in times.items()}
    for name, row in rows.items():
        row["ratio"] = rows["naive"]["cpu_seconds"] / row["cpu_seconds"]
        row["wall_ratio"] = rows["naive"]["wall_seconds"] / row["wall_seconds"]
        row["first_steps_seconds"] = compile_seconds.get(name, 0.0)
    return {"gradients": gradients, "loops": rows}


def naive_loop(bench: Workbench, start: Tensor, beta2: float = 0.999) -> NaiveInversion:
    """The naive loop on the workbench's network and targets."""
    return NaiveInversion(bench.inverted.network, start, bench.targets, lr=LR, alpha=ALPHA, beta2=beta2)


def _take_turns(loops: dict[str, Callable[[], object]], rounds: int, block: int) -> dict[str, list[Clock]]:
    names = list(loops)
    times: dict[str, list[Clock]] = {name: [] for name in names}
    for name in names:
        loops[name]()  # the first step allocates
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            clock = Clock()
            with clock.running():
                for _ in range(block):
                    loops[name]()
            times[name].append(clock)
    return times


def _row(clocks: list[Clock], size: Any) -> dict[str, float]:
    cpu, wall = (median(getattr(clock, kind) for clock in clocks) / size.block for kind in ("cpu", "wall"))
    return {"cpu_seconds": cpu, "wall_seconds": wall, "image_steps_per_second": size.images / cpu}


def compare_gradients(bench: Workbench, ways: list[Way], start: Tensor) -> dict[str, dict[str, float]]:
    """By loop: the relative distance |g - h| / |h| of its gradient at ``start`` to the naive loop's, and to the exact one (float64)."""
    exact = NaiveInversion(
        copy.deepcopy(bench.inverted.network).double(), start.double(), bench.targets.double(), lr=LR, alpha=ALPHA
    ).gradient()
    naive = naive_loop(bench, start).gradient()
    found = {"naive": naive, **{way.name: _engine_gradient(bench, way, start) for way in ways if not way.compiled}}
    return {name: {"to_naive": _distance(g, naive), "to_exact": _distance(g, exact)} for name, g in found.items()}


def _engine_gradient(bench: Workbench, way: Way, start: Tensor) -> Tensor:
    """The gradient that the engine's first step from ``start`` follows."""
    inversion = bench.inversion(bench.config(way, steps=1), way, start=start)
    steps = inversion.run()
    next(steps)
    assert inversion.descent is not None
    gradient = inversion.descent.x.grad
    assert gradient is not None
    return gradient.contiguous()


def _distance(one: Tensor, other: Tensor) -> float:
    return float(torch.linalg.vector_norm(one.double() - other.double()) / torch.linalg.vector_norm(other.double()))
