"""The losses of the methods that replay, as pure functions on tensors (R-DFCIL; PMI, Eq. 23 and Alg. 4)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Factors:
    """The weights of the losses for a task with n new and m old classes.

    R-DFCIL's scheme, with a = log2(n/2 + 1) and b = sqrt(m/n): plasticity (``ce``, ``ft``) falls and stability (``hkd``, ``rkd``) grows as
    old classes come to outnumber new ones.
    """

    ce: float
    hkd: float
    rkd: float
    ft: float


def loss_factors(n_new: int, n_old: int, ce: float, hkd: float, rkd: float, ft: float) -> Factors:
    """Scale the base weights: ce and ft by (1 + 1/a)/b, hkd and rkd by a b.

    Without old classes there is nothing to weigh against: plain cross-entropy, ce 1 and the others 0, whatever the base weights are.
    """
    if n_old == 0:
        return Factors(ce=1.0, hkd=0.0, rkd=0.0, ft=0.0)
    a = math.log2(n_new / 2 + 1)
    b = math.sqrt(n_old / n_new)
    return Factors(ce=ce * (1 + 1 / a) / b, hkd=hkd * a * b, rkd=rkd * a * b, ft=ft * (1 + 1 / a) / b)


def local_cross_entropy(logits: Tensor, labels: Tensor, n_old: int) -> Tensor:
    """Cross-entropy over the current task's classes alone: old logits take no part. ``logits`` (b, classes), ``labels`` (b,) global."""
    return F.cross_entropy(logits[:, n_old:], labels - n_old)


def hard_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """HKD: the mean absolute difference of raw logits (b, old classes), no temperature. ``student`` may have newer classes behind."""
    return F.l1_loss(student[:, : teacher.shape[1]], teacher)


def angles(features: Tensor) -> Tensor:
    """cos of the angle at i between j and k, for all triplets: (b, d) to (b, b, b), entry [i, j, k].

    Differences are normalised; the difference of a sample with itself is zero, and so are its cosines.
    """
    e = F.normalize(features.unsqueeze(0) - features.unsqueeze(1), dim=-1)
    return torch.bmm(e, e.transpose(1, 2))


def relational_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """RKD: the mean absolute difference of the angles of all triplets; ``student`` and ``teacher`` (b, d).

    The zero diagonals are part of the mean, as in R-DFCIL's code.
    """
    return F.l1_loss(angles(student), angles(teacher))


def balancing_weights(counts: Tensor) -> Tensor:
    """Inverse-count class weights, divided by the smallest: counts (classes,) to (classes,), each at least 1.

    A class that was never seen weighs as much as one seen once.
    """
    inverse = counts.sum() / counts.clamp_min(1)
    return inverse / inverse.min()


def text_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """TKD: the mean absolute difference of unit text features (classes, d) of the old classes (PMI App. Eq. 24)."""
    return F.l1_loss(student, teacher)
