"""Classify features by the means and variances of the classes, without a trained head."""

from __future__ import annotations

import torch
from torch import Tensor

FLOOR = 1e-6  # of the mean variance: what a feature that never varies counts as


def nearest_mean_scores(features: Tensor, means: Tensor) -> Tensor:
    """Return minus the squared distance of each feature to each class mean: (b, classes).

    It is the nearest-mean classifier of iCaRL (Rebuffi et al., CVPR 2017, eq. 2), on features as
    they are.

    Args:
        features: (b, d).
        means: (classes, d).
    """
    return -torch.cdist(features, means, compute_mode="donot_use_mm_for_euclid_dist").square()


def mahalanobis_scores(features: Tensor, means: Tensor, deviations: Tensor) -> Tensor:
    """Return minus the squared Mahalanobis distance to each class mean: (b, classes).

    All classes share one diagonal covariance, the mean of theirs, as in linear discriminant
    analysis with equal priors. Where no feature varies at all, it is the identity.

    Args:
        features: (b, d).
        means: (classes, d).
        deviations: (classes, d), the standard deviation of each feature within each class.
    """
    variance = deviations.square().mean(0)
    floor = FLOOR * variance.mean()
    scale = (variance + torch.where(floor > 0, floor, 1.0)).rsqrt()
    return nearest_mean_scores(features * scale, means * scale)
