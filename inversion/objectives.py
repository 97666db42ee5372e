"""What an inversion minimises: terms that add up, each able to say what it is."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass
class Batch:
    """What one evaluation of the network on a synthetic batch gives.

    Attributes:
        images: (b, c, h, w), what is optimised, before any transform.
        features: (b, d).
        kls: one scalar for each layer whose statistics are compared: a KL, or a distance.
        targets: (b, d), the features that are wanted, if any are.
        labels: (b,), the classes that are wanted, if any are.
        classify: maps features (b, d) to logits (b, classes); None without a classifier.
        seen: (b, c, h, w), the images after the transforms, as the network saw them; None: as they
            are.
    """

    images: Tensor
    features: Tensor
    kls: list[Tensor]
    targets: Tensor | None
    labels: Tensor | None
    classify: Callable[[Tensor], Tensor] | None
    seen: Tensor | None = None


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

    Each KL is a mean over channels. With the direction "l2" it is DeepInversion's term instead: the
    sum over layers of the distances of means and of variances.
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
        maps = _differences(batch.images)
        return self.weight * torch.stack([d.flatten(2).norm(dim=2).mean() for d in maps]).sum()


def _differences(x: Tensor) -> tuple[Tensor, ...]:
    """Return the differences of neighbouring pixels: down, across, and along both diagonals."""
    return (
        x[..., 1:, :] - x[..., :-1, :],
        x[..., 1:] - x[..., :-1],
        x[..., 1:, 1:] - x[..., :-1, :-1],
        x[..., 1:, :-1] - x[..., :-1, 1:],
    )


@dataclass(frozen=True)
class BatchTV:
    """weight x the sum over four directions of the length of all differences of the batch.

    It is DeepInversion's smoothness ("TV-l2"). The length is the L2 norm over samples, channels and
    positions together, not squared, so it grows with the root of their number.
    """

    weight: float = 2.5e-5

    def __call__(self, batch: Batch) -> Tensor:
        return self.weight * torch.stack([d.norm() for d in _differences(batch.images)]).sum()


@dataclass(frozen=True, eq=False)
class Competition:
    """weight x (1 - JS) of the predictions of the network and of a student (Adaptive DI).

    It favours images on which the two disagree (Yin et al., CVPR 2020). JS is the Jensen-Shannon
    divergence of their probabilities, averaged over samples. Its logarithms are natural, so it is
    at most log 2. A student that has more classes is asked about those of the network.

    Attributes:
        weight: of the term.
        student: maps images (b, c, h, w) to logits (b, classes or more). A frozen copy of it is
            kept, so that inversion leaves it as it is.
    """

    weight: float
    student: nn.Module

    def __post_init__(self) -> None:
        object.__setattr__(self, "student", copy.deepcopy(self.student).eval().requires_grad_(False))

    def __call__(self, batch: Batch) -> Tensor:
        if batch.classify is None:
            raise ValueError("Competition needs a network with a classifier")
        logits = batch.classify(batch.features)
        others = self.student(batch.images if batch.seen is None else batch.seen)[:, : logits.shape[1]]
        return self.weight * (1 - jensen_shannon(logits, others))


def jensen_shannon(logits: Tensor, others: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence of two softmaxes (b, classes), averaged over samples."""
    one, other = logits.log_softmax(1), others.log_softmax(1)
    middle = torch.logaddexp(one, other) - math.log(2)
    divergences = [F.kl_div(middle, part, reduction="batchmean", log_target=True) for part in (one, other)]
    return torch.stack(divergences).mean()


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
