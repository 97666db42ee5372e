"""Measure how near synthetic images are to training images, and how well members are told apart.

Everything is a pure function of tensors. Intervals are percentiles of a bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pmi_cl.seeding import seeded

CHUNK = 256  # rows whose distances to all others are held at once
DRAWS = 1000  # of the bootstrap
LEVEL = 0.95


class Estimate(NamedTuple):
    """A figure with its interval of 95 %."""

    value: float
    low: float
    high: float


def nearest(points: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance (n,) of each point to the nearest other, and that one's row number (n,).

    Args:
        points: (n, d).
        others: (m, d).
    """
    found = [torch.cdist(part, others).min(1) for part in points.split(CHUNK)]
    return torch.cat([each.values for each in found]), torch.cat([each.indices for each in found])


def ratio_of_distances(to_trained: Tensor, to_held_out: Tensor, seed: int) -> Estimate:
    """Return the geometric mean of ratios of distances (n,), over the synthetic images.

    1 means that synthetic images are as near to images that the network has never seen; less, that
    they are nearer to those it was trained on.
    """
    tiny = torch.finfo(torch.float64).tiny
    logs = to_trained.double().clamp_min(tiny).log() - to_held_out.double().clamp_min(tiny).log()
    low, high = _interval(lambda rows: float(logs[rows].mean()), len(logs), seed)
    return Estimate(math.exp(float(logs.mean())), math.exp(low), math.exp(high))


def area_under_curve(members: Tensor, others: Tensor) -> float:
    """Return the probability that a member has the higher score, ties counting half (ROC's AUC).

    Args:
        members: (n,), the scores of training images.
        others: (m,), those of images that the network has never seen.
    """
    both = torch.cat([members, others]).double()
    _, places, counts = both.unique(return_inverse=True, return_counts=True)
    ranks = counts.cumsum(0) - (counts - 1) / 2  # of equal scores the mean rank, from 1
    n, m = len(members), len(others)
    total = float(ranks[places[:n]].sum())
    return (total - n * (n + 1) / 2) / (n * m)


def membership(members: Tensor, others: Tensor, seed: int) -> Estimate:
    """Return :func:`area_under_curve`; members and others are drawn anew in each bootstrap."""

    def of_draw(rows: Tensor) -> float:
        return area_under_curve(members[rows[rows < len(members)]], others[rows[rows >= len(members)] - len(members)])

    n = len(members) + len(others)
    return Estimate(area_under_curve(members, others), *_interval(of_draw, n, seed, (len(members), len(others))))


def _interval(
    figure: Callable[[Tensor], float], n: int, seed: int, groups: tuple[int, ...] | None = None
) -> tuple[float, float]:
    """Return the percentiles of a figure of row numbers (n,) that are drawn with replacement.

    Args:
        figure: the figure of the rows that were drawn.
        n: how many rows there are.
        seed: of the draws.
        groups: the sizes of consecutive groups, each of which is drawn from by itself.
    """
    generator, values = seeded(seed, "bootstrap"), []
    for _ in range(DRAWS):
        start, rows = 0, []
        for size in groups or (n,):
            rows.append(start + torch.randint(size, (size,), generator=generator))
            start += size
        values.append(figure(torch.cat(rows)))
    quantiles = torch.tensor(values, dtype=torch.float64).quantile(
        torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    )
    return float(quantiles[0]), float(quantiles[1])
