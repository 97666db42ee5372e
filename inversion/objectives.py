"""What an inversion minimises: terms that add up, each able to say what it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass
class Batch:
    """What one evaluation of the network on a synthetic batch gives.

    Attributes:
        images: (b, c, h, w), what is optimised, before any transform.
        features: (b, d).
        kls: one scalar for each layer whose statistics are compared.
        targets: (b, d), the features that are wanted, if any are.
        labels: (b,), the classes that are wanted, if any are.
        classify: maps features (b, d) to logits (b, classes); None without a classifier.
    """

    images: Tensor
    features: Tensor
    kls: list[Tensor]
    targets: Tensor | None
    labels: Tensor | None
    classify: Callable[[Tensor], Tensor] | None


class Term(Protocol):
    """A part of the objective: maps a batch to a scalar."""

    def __call__(self, batch: Batch) -> Tensor: ...


@dataclass(frozen=True)
class FeatureMatch:
    """weight x mean squared error between features and targets.

    (Eq. 27 without the intermediate terms.)
    """

    weight: float = 1.0

    def __call__(self, batch: Batch) -> Tensor:
        if batch.targets is None:
            raise ValueError("FeatureMatch needs targets (n, d)")
        return self.weight * F.mse_loss(batch.features, batch.targets.to(batch.features.dtype))


@dataclass(frozen=True)
class DirectionMatch:
    """weight x mean L2 distance between features, scaled to length 1, and targets of length 1.

    (CLIPInversion.)
    """

    weight: float = 1.0

    def __call__(self, batch: Batch) -> Tensor:
        if batch.targets is None:
            raise ValueError("DirectionMatch needs targets (n, d) of length 1")
        return self.weight * (F.normalize(batch.features, dim=-1) - batch.targets).norm(dim=-1).mean()


@dataclass(frozen=True)
class CrossEntropy:
    """weight x cross-entropy of the labels: inversion from the label alone (DeepInversion)."""

    weight: float = 1.0

    def __call__(self, batch: Batch) -> Tensor:
        if batch.labels is None or batch.classify is None:
            raise ValueError("CrossEntropy needs labels (n,) and a network with a classifier")
        return self.weight * F.cross_entropy(batch.classify(batch.features), batch.labels)


@dataclass(frozen=True)
class StatisticsMatch:
    """weight x the sum over layers of the KL to the stored statistics.

    Each KL is a mean over channels.
    """

    weight: float = 0.1

    def __call__(self, batch: Batch) -> Tensor:
        return self.weight * torch.stack(batch.kls).sum() if batch.kls else batch.images.new_zeros(())


@dataclass(frozen=True)
class TotalVariation:
    """weight x the mean squared difference of neighbouring pixels, down and across."""

    weight: float = 0.05

    def __call__(self, batch: Batch) -> Tensor:
        x = batch.images
        down, across = x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]
        return self.weight * (_mean_square(down) + _mean_square(across))


def _mean_square(differences: Tensor) -> Tensor:
    """Return the mean square; 0 where an image of one pixel has no neighbours to differ from."""
    return differences.pow(2).mean() if differences.numel() else differences.sum()


@dataclass(frozen=True)
class DirectionalTV:
    """weight x the sum over four directions of the mean length of the difference map.

    The directions are down, across and both diagonals. The length is the L2 norm over positions,
    not squared; the mean is over samples and channels. It is the term of CLIPInversion, which the
    paper takes for the map of the patch convolution. Unlike :class:`TotalVariation` it grows with
    the map.
    """

    weight: float = 5e-3

    def __call__(self, batch: Batch) -> Tensor:
        x = batch.images
        differences = (
            x[..., 1:, :] - x[..., :-1, :],
            x[..., 1:] - x[..., :-1],
            x[..., 1:, 1:] - x[..., :-1, :-1],
            x[..., 1:, :-1] - x[..., :-1, 1:],
        )
        return self.weight * torch.stack([d.flatten(2).norm(dim=2).mean() for d in differences]).sum()


@dataclass(frozen=True)
class Objective:
    """The sum of terms."""

    terms: Sequence[Term]

    def __call__(self, batch: Batch) -> Tensor:
        return self.values(batch).sum()

    def values(self, batch: Batch) -> Tensor:
        """Return the weighted value of every term (terms,)."""
        return torch.stack([term(batch) for term in self.terms])

    def parts(self, batch: Batch) -> dict[str, Tensor]:
        """Return the value of every term by the name of its class; terms of one class are added."""
        parts: dict[str, Tensor] = {}
        for term in self.terms:
            name = type(term).__name__
            parts[name] = parts[name] + term(batch) if name in parts else term(batch)
        return parts
