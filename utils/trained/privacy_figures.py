"""Measure how near synthetic images are to training images, and how well members are told apart.

Everything is a pure function of tensors.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pmi_cl.seeding import seeded

CHUNK = 64  # rows whose distances to all others are held at once
NEIGHBOURS = 32  # real images that are remembered of each synthetic one
DRAWS = 1000  # for an interval
AT_ONCE = 100_000  # synthetic images of all draws that are made together
LEVEL = 0.95
LEAST = 1e-3  # of the median distance to held-out images: what is nearer counts as that near


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
    distances, rows = neighbours(points, others, 1)
    return distances[:, 0], rows[:, 0]


def neighbours(points: Tensor, others: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the distances (n, k) of each point to the k nearest others, and their row numbers.

    The nearest are found by products of matrices, which err where two points are almost the same.
    Their distances are then computed from differences.

    Args:
        points: (n, d).
        others: (m, d), m at least k.
        k: the number of neighbours.
    """
    distances, rows = [], []
    for part in points.split(CHUNK):
        near = torch.cdist(part, others).topk(k, largest=False).indices
        exact, order = (part.unsqueeze(1) - others[near]).norm(dim=2).sort(dim=1, stable=True)
        distances.append(exact)
        rows.append(near.gather(1, order))
    return torch.cat(distances), torch.cat(rows)


def ratio_of_distances(points: Tensor, trained: Tensor, held_out: Tensor, seed: int) -> Estimate:
    """Return the geometric mean of the ratio of two distances, over the synthetic images.

    They are the distances to the nearest training image and to the nearest held-out image. 1 means
    that synthetic images are as near to images that the network has never seen; less, that they are
    nearer to those it was trained on.

    All synthetic images are compared with the same real ones, and many with the same few of them.
    So the interval is not that of a mean over independent images. It is the ratio over the ratios
    that chance gives: each training image may change places with the held-out image of its row, and
    synthetic images are drawn anew. Without any difference it contains 1 in 95 of 100 cases or
    more.

    Args:
        points: (n, d), synthetic images or their features.
        trained: (m, d).
        held_out: (m, d). Each row has the class of the same row of ``trained``.
        seed: of the draws.
    """
    m = len(trained)
    to_trained, to_held_out = nearest(points, trained)[0], nearest(points, held_out)[0]
    least = max(LEAST * float(to_held_out.median()), torch.finfo(torch.float32).tiny)
    value = float((logs(to_trained, least) - logs(to_held_out, least)).mean())
    distances, rows = neighbours(points, torch.cat([trained, held_out]), min(NEIGHBOURS, 2 * m))
    near, pairs, second = logs(distances, least).cpu(), (rows % m).cpu(), (rows >= m).cpu()
    generator, chance = seeded(seed, "places"), []
    for part in torch.arange(DRAWS).split(max(AT_ONCE // len(points), 1)):
        changed = torch.randint(0, 2, (len(part), m), generator=generator).bool()
        drawn = torch.randint(len(points), (len(part), len(points)), generator=generator)
        away = second[drawn] ^ changed.gather(1, pairs[drawn].flatten(1)).view(*drawn.shape, -1)
        chance.append((first_of(near[drawn], ~away) - first_of(near[drawn], away)).mean(1))
    low, high = _percentiles(torch.cat(chance))
    return Estimate(math.exp(value), math.exp(value - high), math.exp(value - low))


def logs(distances: Tensor, least: float) -> Tensor:
    """Return the logarithms (float64) of distances, none below that of ``least``.

    So a copy, at no distance, does not outweigh all other images.
    """
    return distances.double().clamp_min(least).log()


def first_of(values: Tensor, kind: Tensor) -> Tensor:
    """Return in each row the first of the values (..., k) where ``kind`` (..., k) is true, (...).

    Where it is nowhere true it is the last value. (Of 32 random kinds none is true in one row of
    four thousand million.)
    """
    places = torch.where(kind.any(-1), kind.to(torch.uint8).argmax(-1), values.shape[-1] - 1)
    return values.gather(-1, places.unsqueeze(-1)).squeeze(-1)


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
    """Return :func:`area_under_curve` with the percentiles of a bootstrap.

    Members and others are drawn anew by themselves.
    """
    generator, sizes, values = seeded(seed, "bootstrap"), (len(members), len(others)), []
    for _ in range(DRAWS):
        drawn, away = (torch.randint(size, (size,), generator=generator) for size in sizes)
        values.append(area_under_curve(members[drawn], others[away]))
    return Estimate(area_under_curve(members, others), *_percentiles(torch.tensor(values, dtype=torch.float64)))


def _percentiles(values: Tensor) -> tuple[float, float]:
    """Return the two of the values (n,) between which the middle part :data:`LEVEL` of all lies."""
    parts = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    low, high = values.double().quantile(parts).tolist()
    return low, high
