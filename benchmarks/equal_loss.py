"""Part ``equal_loss``: the time from every start to the loss that the naive loop reaches.

The naive loop starts from white noise. Losses are judged in float32.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from pmi_cl.benchmarks.running import Clock, Way
from pmi_cl.benchmarks.step_time import naive_loop
from pmi_cl.benchmarks.workbench import IMAGE_SHAPE, Workbench, warm_up
from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.starts import STARTS, white_noise
from pmi_cl.inversion.ways.pmi import PmiConfig
from pmi_cl.seeding import seeded

PATIENCE = 3  # a start that needs more than so many times the naive loop's steps is given up


@dataclass(frozen=True)
class Point:
    """A judged moment of a run: full-model steps and seconds so far, and the loss."""

    steps: int
    cpu_seconds: float
    wall_seconds: float
    loss: float


def measure(bench: Workbench, ways: list[Way], alpha: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Return the naive loop's curve and, for every start and way, seconds and steps to its last
    loss.

    The rule was fixed beforehand: the loss to reach is the naive loop's after ``size.naive_steps``
    steps. Its losses after a third and two thirds of them are reported beside it. Rates and Adam's
    decays are the same everywhere but in the row that says otherwise. Judging and compiling are not
    counted. ``alpha`` weighs the statistics.
    """
    noise = white_noise((bench.size.images, *IMAGE_SHAPE), seeded(bench.seed, "start", 0, -1))  # the engine's own draw
    say(f"equal loss, alpha {alpha:g}: the naive loop")
    naive = _naive_curve(bench, noise, alpha)
    aims = [_last(naive, bench.size.naive_steps * part // 3).loss for part in (1, 2, 3)]
    rows = []
    for way in ways:
        for name, config in _starts(bench, way, alpha).items():
            say(f"equal loss, alpha {alpha:g}: {name}, {way.name}")
            rows.append({"start": name, "way": way.name, **_run(bench, way, config, noise, naive, aims, alpha)})
    reached = [asdict(_first(naive, aim) or naive[-1]) for aim in aims]
    return {
        "alpha": alpha,
        "naive": {**reached[-1], "reached": reached, "curve": [asdict(point) for point in naive]},
        "rows": rows,
    }


def _starts(bench: Workbench, way: Way, alpha: float) -> dict[str, InversionConfig]:
    """Return every start at the paper's settings, and four rows beyond them."""
    base = replace(bench.config(way, alpha), steps=PATIENCE * bench.size.naive_steps)
    pmi = PmiConfig(steps=bench.size.pmi_steps)
    few = max(1, bench.size.pmi_steps // 10)
    return {
        **{start: replace(base, start=start, pmi=pmi) for start in STARTS},  # type: ignore[arg-type]
        f"pmi, {few} steps": replace(base, start="pmi", pmi=replace(pmi, steps=few)),
        "lowfreq, beta2 .95": replace(base, start="lowfreq", beta2=0.95),
        "lowfreq, spectrum .5": replace(base, start="lowfreq", spectrum=0.5),
        "noise, spectrum .5": replace(base, start="noise", spectrum=0.5),
    }


def _naive_curve(bench: Workbench, noise: Tensor, alpha: float) -> list[Point]:
    loop, clock, curve = naive_loop(bench, noise, alpha), Clock(), []
    for step in range(1, bench.size.naive_steps + 1):
        with clock.running():
            loop.step()
        if step % bench.size.judge_every == 0 or step == bench.size.naive_steps:
            curve.append(Point(step, clock.cpu, clock.wall, bench.loss(loop.images.detach(), alpha)))
    return curve


def _run(
    bench: Workbench,
    way: Way,
    config: InversionConfig,
    noise: Tensor,
    naive: list[Point],
    aims: list[float],
    alpha: float,
) -> dict[str, Any]:
    """Run one start until the last aim is reached or patience is lost.

    Return its cost beside the naive loop's.
    """
    inversion = bench.inversion(config, way)
    first_steps = warm_up(inversion, noise)
    layer_steps = inversion.total_steps - config.steps
    clock, steps, curve = Clock(), inversion.run(), []
    for full_step in itertools.count(1 - layer_steps):
        with clock.running():
            taken = next(steps, None)
        if taken is None:
            break
        if full_step > 0 and full_step % bench.size.judge_every == 0:
            curve.append(Point(full_step, clock.cpu, clock.wall, bench.loss(taken.images(), alpha)))
            if curve[-1].loss <= aims[-1]:
                break
    ratios = [_ratios(naive, curve, aim) for aim in aims]
    figures = {**asdict(curve[-1]), **ratios[-1], "ratios": ratios, "curve": [asdict(point) for point in curve]}
    return {"step_equivalents": inversion.report.step_equivalents, "first_steps_seconds": first_steps, **figures}


def _ratios(naive: Sequence[Point], curve: Sequence[Point], aim: float) -> dict[str, float | None]:
    """Return how many times as long the naive loop took to a loss, in CPU seconds and on the wall.

    It is None where ``curve`` never gets there.
    """
    slow, fast = _first(naive, aim), _first(curve, aim)
    if slow is None or fast is None:
        return {"loss_to_reach": aim, "ratio": None, "wall_ratio": None}
    return {
        "loss_to_reach": aim,
        "ratio": slow.cpu_seconds / fast.cpu_seconds,
        "wall_ratio": slow.wall_seconds / fast.wall_seconds,
    }


def _first(curve: Sequence[Point], loss: float) -> Point | None:
    return next((point for point in curve if point.loss <= loss), None)


def _last(curve: Sequence[Point], steps: int) -> Point:
    """Return the last judged point at or before so many steps."""
    return next((point for point in reversed(curve) if point.steps <= steps), curve[0])
