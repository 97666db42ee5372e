"""Inversions of a small network, on random targets."""

from __future__ import annotations

import functools
from typing import Any

import torch

from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.engine.engine import Inversion
from pmi_cl.inversion.engine.problem import Problem, frozen_network
from pmi_cl.inversion.features.statistics import Moments
from pmi_cl.inversion.networks.pieces import measure_input_moments
from pmi_cl.inversion.objectives import CrossEntropy, FeatureMatch, StatisticsMatch, TotalVariation
from pmi_cl.inversion.transforms import Transforms
from pmi_cl.inversion.ways.pmi import PmiConfig
from pmi_cl.seeding import seeded
from tests.support.small_networks import two_blocks

SHAPE = (3, 8, 8)
FEATURES = 32  # of two_blocks
EVERYTHING = InversionConfig(
    steps=5,
    batch=4,
    schedule="cosine",
    beta2=0.95,
    keep_best=True,
    stem_steps=2,
    transforms=Transforms(roll=1, flip=True, noise=0.1),
    terms=(FeatureMatch(1.0), CrossEntropy(0.1), StatisticsMatch(0.1), TotalVariation(0.05)),
    pmi=PmiConfig(steps=3, boost=True),
)


@functools.cache
def moments() -> list[Moments]:
    """Return the moments of the inputs of its pieces over random images."""
    real = torch.randn(64, *SHAPE, generator=seeded(1)) * 0.8 + 0.2
    return measure_input_moments(two_blocks().pieces(), real.split(20))


def inversion(config: InversionConfig, n: int = 10, seed: int = 0, **changes: Any) -> Inversion:
    """Return an inversion of ``n`` targets that has taken no step."""
    network = two_blocks()
    given = {
        "targets": torch.randn(n, FEATURES, generator=seeded(2)),
        "labels": torch.arange(n) % 3,
    }
    known = changes.pop("input_moments", moments())
    frozen = frozen_network(network.pieces(), network.head, config, known)
    return Inversion(Problem(frozen, config, image_shape=SHAPE, seed=seed, **{**given, **changes}))


def finished(config: InversionConfig, **changes: Any) -> Inversion:
    """Return an inversion that has taken all its steps."""
    whole = inversion(config, **changes)
    for _ in whole.run():
        pass
    return whole
