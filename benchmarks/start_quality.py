"""Part ``starts``: what every start gives at the paper's budget.

Beside them stand four controls, the ``best`` settings and real images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pmi_cl.benchmarks.running import Clock, Way
from pmi_cl.benchmarks.workbench import ALPHA, IMAGE_SHAPE, Workbench, warm_up
from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.objectives import CrossEntropy, FeatureMatch, StatisticsMatch, TotalVariation
from pmi_cl.inversion.starts import white_noise
from pmi_cl.inversion.transforms import Transforms
from pmi_cl.inversion.ways.pmi import PmiConfig
from pmi_cl.seeding import seeded


@dataclass(frozen=True)
class Outcome:
    """Finished images and their cost."""

    images: Tensor
    steps: int
    step_equivalents: float
    clock: Clock


def measure(bench: Workbench, way: Way, say: Callable[[str], None], only: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return a row for every start, control and setting.

    It has the cost, losses judged in float32, and the agreement of the networks A and B. ``only``
    has the beginnings of the names of the rows to measure; None stands for all.
    """
    base = bench.config(way)
    pmi = replace(base, start="pmi", pmi=PmiConfig(steps=bench.size.pmi_steps))
    budget = partial(_invert, bench, way)
    rows = {
        "noise (control: N(0,1) start)": partial(budget, base),
        "stats (control: statistics-matched start)": partial(budget, replace(base, start="stats")),
        "lowfreq": partial(budget, replace(base, start="lowfreq")),
        "stem": partial(budget, replace(base, start="stem")),
        "pmi": partial(budget, pmi),
        "control: pmi, targets shuffled in the PMI stage": partial(_shuffled_pmi, bench, way, pmi),
        "control: noise, pmi's step-equivalents": partial(_equal_budget, bench, way, base, pmi),
        "noise, label only (cross-entropy)": partial(
            budget, replace(base, terms=(CrossEntropy(), StatisticsMatch(ALPHA)))
        ),
        "best": partial(budget, best_settings(base)),
        "best, label only (cross-entropy)": partial(budget, _label_only(best_settings(base))),
    }
    found = []
    for name, run in rows.items():
        if only and not name.startswith(tuple(only)):
            continue
        say(f"starts: {name}, {way.name}")
        found.append({"start": name, **_row(bench, run())})
    return [*found, {"start": "real training images", **_seen_by_the_networks(bench, real_images(bench))}]


def best_settings(base: InversionConfig) -> InversionConfig:
    """Return the preset ``best`` of ``pmi_rdfcil`` for all data sets: images that transfer.

    It has a smooth start, the whole batch rolled and mirrored at random at every step, more weight
    on the statistics, and a price on roughness.
    """
    terms = (FeatureMatch(), StatisticsMatch(0.5), TotalVariation(0.2))
    return replace(base, start="lowfreq", schedule="cosine", terms=terms, transforms=Transforms(roll=4, flip=True))


def _label_only(config: InversionConfig) -> InversionConfig:
    return replace(config, terms=(CrossEntropy(), *config.terms[1:]))


def _invert(
    bench: Workbench, way: Way, config: InversionConfig, *, start: Tensor | None = None, targets: Tensor | None = None
) -> Outcome:
    inversion = bench.inversion(config, way, start=start, targets=targets)
    if config.steps:
        warm_up(inversion, white_noise((bench.size.images, *IMAGE_SHAPE), seeded(bench.seed, "warm-up")))
    clock = Clock()
    with clock.running():
        for _ in inversion.run():
            pass
    return Outcome(inversion.images(), inversion.report.steps, inversion.report.step_equivalents, clock)


def _shuffled_pmi(bench: Workbench, way: Way, pmi: InversionConfig) -> Outcome:
    """Run PMI for the targets of other samples, then the full-model stage for the right ones."""
    others = torch.randperm(bench.size.images, generator=seeded(bench.seed, "shuffled targets"))
    layers = _invert(bench, way, replace(pmi, steps=0), targets=bench.targets[others])
    full = _invert(bench, way, pmi, start=layers.images)
    clock = Clock(layers.clock.cpu + full.clock.cpu, layers.clock.wall + full.clock.wall)
    return Outcome(full.images, layers.steps + full.steps, layers.step_equivalents + full.step_equivalents, clock)


def _equal_budget(bench: Workbench, way: Way, base: InversionConfig, pmi: InversionConfig) -> Outcome:
    """Give white noise as many full-model steps as PMI and its full-model stage are worth."""
    layers = sum(
        stage.cost * stage.steps for stage in bench.inversion(pmi, Way("fp32")).stages if stage.layer is not None
    )
    return _invert(bench, way, replace(base, steps=base.steps + round(layers)))


def _row(bench: Workbench, outcome: Outcome) -> dict[str, Any]:
    costs = {"cpu_seconds": outcome.clock.cpu, "wall_seconds": outcome.clock.wall}
    counted = {"steps": outcome.steps, "step_equivalents": outcome.step_equivalents}
    return {
        **counted,
        **costs,
        "loss": bench.loss(outcome.images),
        **bench.terms(outcome.images),
        **_seen_by_the_networks(bench, outcome.images),
    }


def _seen_by_the_networks(bench: Workbench, images: Tensor) -> dict[str, float]:
    """Return the share of images that A and B give the label they were made for.

    Of B return the mean log-probability of that label, too.
    """
    with torch.no_grad():
        logits = {name: judge.network(images) for name, judge in (("a", bench.inverted), ("b", bench.judge))}
    agreement = {
        f"agreement_{name}": float((found.argmax(1) == bench.labels).float().mean()) for name, found in logits.items()
    }
    return {**agreement, "log_probability_b": -float(F.cross_entropy(logits["b"], bench.labels))}


def real_images(bench: Workbench) -> Tensor:
    """Return the first training images of each class, normalised, in the order of the workbench's
    labels.
    """
    rows = torch.empty_like(bench.labels)
    for label in bench.labels.unique():
        wanted = bench.labels == label
        rows[wanted] = (bench.data.train.labels == label).nonzero().flatten()[: int(wanted.sum())]
    return bench.data.normalise(bench.data.train.images[rows])
