"""Gaussians of the features of each class: two vectors are all that is kept of its images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pmi_cl.machine.state_fields import tensor_field


@dataclass(frozen=True)
class ClassGaussians:
    """Diagonal Gaussians N(mean_c, std_c^2) of the features of each class.

    Attributes:
        mean: (classes, d), row k belongs to label k.
        std: (classes, d), likewise; the biased one (ddof 0).
    """

    mean: Tensor
    std: Tensor

    def __len__(self) -> int:
        return self.mean.shape[0]

    def sample(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one feature mu + sigma * eps for each label (n,): (n, d).

        Args:
            labels: (n,).
            generator: on the CPU.
        """
        eps = torch.randn(len(labels), self.mean.shape[1], generator=generator).to(self.mean.device, non_blocking=True)
        labels = labels.to(self.mean.device, non_blocking=True)
        return self.mean[labels] + self.std[labels] * eps

    def followed_by(self, newer: ClassGaussians) -> ClassGaussians:
        """Return the Gaussians of these classes, followed by those of ``newer``."""
        return ClassGaussians(torch.cat([self.mean, newer.mean]), torch.cat([self.std, newer.std]))

    def state(self) -> dict[str, Tensor]:
        """Return plain data for a checkpoint."""
        return {"mean": self.mean, "std": self.std}

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device | None = None) -> ClassGaussians:
        """Return the Gaussians that :meth:`state` describes."""
        mean = tensor_field(state["mean"], None, None)
        return cls(mean.to(device), tensor_field(state["std"], *mean.shape).to(device))


def fit_gaussians(features: Tensor, labels: Tensor, n_classes: int) -> ClassGaussians:
    """Return the Gaussian of each class 0..n_classes-1 from features (n, d) and labels (n,).

    Raises:
        ValueError: a class has no features; names it.
    """
    counts = torch.bincount(labels, minlength=n_classes)
    empty = (counts[:n_classes] == 0).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"no features for class {empty[0]}: its Gaussian cannot be computed")
    sums = features.new_zeros(n_classes, features.shape[1]).double().index_add_(0, labels, features.double())
    mean = sums / counts[:, None]
    deviation = (features.double() - mean[labels]) ** 2
    var = torch.zeros_like(mean).index_add_(0, labels, deviation) / counts[:, None]
    return ClassGaussians(mean.float(), var.sqrt().float())
