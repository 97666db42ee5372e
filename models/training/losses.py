"""Compute the losses of the replay methods (R-DFCIL; PMI, Eq. 23 and Alg. 4)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Factors:
    """Hold the weights of the losses for a task with n new and m old classes.

    In R-DFCIL's scheme a = log2(n/2 + 1) and b = sqrt(m/n). As the share of old classes grows, the
    weights of plasticity (``ce``, ``ft``) fall and those of stability (``hkd``, ``rkd``, ``tkd``)
    grow. ``tkd`` weighs the distillation of the texts of a CLIP (PMI App. Eq. 24).
    """

    ce: float
    hkd: float
    rkd: float = 0.0
    ft: float = 0.0
    tkd: float = 0.0


def loss_factors(
    n_new: int, n_old: int, ce: float, hkd: float, rkd: float = 0.0, ft: float = 0.0, tkd: float = 0.0
) -> Factors:
    """Scale ce and ft by (1 + 1/a)/b, and hkd, rkd and tkd by a b (see :class:`Factors`).

    Without old classes the loss is plain cross-entropy: ce is 1 and the others are 0, whatever the
    base weights are.
    """
    if n_old == 0:
        return Factors(ce=1.0, hkd=0.0)
    a = math.log2(n_new / 2 + 1)
    b = math.sqrt(n_old / n_new)
    return Factors(ce=ce * (1 + 1 / a) / b, hkd=hkd * a * b, rkd=rkd * a * b, ft=ft * (1 + 1 / a) / b, tkd=tkd * a * b)


def local_cross_entropy(logits: Tensor, labels: Tensor, n_old: int) -> Tensor:
    """Return the cross-entropy over the current task's classes alone, without the old logits.

    Args:
        logits: (b, classes).
        labels: (b,), global labels.
    """
    return F.cross_entropy(logits[:, n_old:], labels - n_old)


def hard_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Return HKD: the mean absolute difference of raw logits, without a temperature.

    Args:
        student: (b, classes). Classes beyond those of the teacher are ignored.
        teacher: (b, old classes).
    """
    return F.l1_loss(student[:, : teacher.shape[1]], teacher)


def angles(features: Tensor) -> Tensor:
    """Return the cosine of the angle at i between j and k for all triplets of features (b, d).

    Differences are normalised. The difference of a sample with itself is zero, and so are its
    cosines.

    Returns:
        (b, b, b), entry [i, j, k].
    """
    e = F.normalize(features.unsqueeze(0) - features.unsqueeze(1), dim=-1)
    return torch.bmm(e, e.transpose(1, 2))


def relational_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Return RKD: the mean absolute difference of the angles of all triplets, features (b, d).

    The zero diagonals are part of the mean, as in R-DFCIL's code.
    """
    return F.l1_loss(angles(student), angles(teacher))


def balancing_weights(counts: Tensor) -> Tensor:
    """Return inverse-count class weights (classes,), divided by the smallest, so at least 1.

    A class without samples has the weight of a class with one sample.
    """
    inverse = counts.sum() / counts.clamp_min(1)
    return inverse / inverse.min()


def share_weights(labels: Tensor, n_old: int, n_new: int) -> Tensor:
    """Return ABD's weight of each sample (b,): the share of the classes of the other kind.

    With r = n_old / (n_old + n_new), samples of new classes have 1 - r, those of old ones r.

    Args:
        labels: (b,), global labels; those below ``n_old`` are old.
    """
    share = n_old / (n_old + n_new)
    return torch.where(labels < n_old, share, 1 - share)


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return the mean of weight x cross-entropy over samples.

    Unlike torch's weighted cross-entropy it is not divided by the weights (ABD's criterion).

    Args:
        logits: (b, classes).
        labels: (b,).
        weights: (b,), of each sample.
    """
    return (weights * F.cross_entropy(logits, labels, reduction="none")).mean()


def text_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Return TKD: the mean absolute difference of unit text features (PMI App. Eq. 24).

    Both arguments are (old classes, d).
    """
    return F.l1_loss(student, teacher)
