"""Fit BiC's bias correction: two numbers that make the logits of new classes comparable."""

from __future__ import annotations

import torch
from torch import Tensor

NEWTON_STEPS = 100  # at most; a handful suffices
HALVINGS = 30  # of a step of Newton's that does not lower the loss
RIDGE = (1e-3, 0.1)  # of alpha: ours; of beta: BiC's released code
CLOSE = 1e-18  # of the slope along the step, where the search ends


def corrected(logits: Tensor, n_old: int, alpha: float, beta: float) -> Tensor:
    """Return logits (b, classes), those from column ``n_old`` on as alpha x + beta (BiC, Eq. 4)."""
    return torch.cat([logits[:, :n_old], alpha * logits[:, n_old:] + beta], dim=1)


def fit_correction(
    logits: Tensor, labels: Tensor, n_old: int, ridge: tuple[float, float] = RIDGE
) -> tuple[float, float]:
    """Return (alpha, beta) that minimise the cross-entropy of the corrected logits.

    The loss is convex in both, and Newton's method with halved steps finds its minimum. With
    ``ridge`` (a, b) it has the terms a / 2 (alpha - 1)^2 + b / 2 beta^2, without which the minimum
    lies at infinity if all samples are classified correctly.

    Args:
        logits: (n, classes), of held-out images.
        labels: (n,), global.
        n_old: the number of old classes, which come first.
        ridge: the weights of both terms, not negative.
    """
    logits, labels = logits.detach().double().cpu(), labels.cpu()
    start = torch.tensor([1.0, 0.0], dtype=torch.float64)
    weight = torch.tensor(ridge, dtype=torch.float64)
    new = torch.arange(logits.shape[1]) >= n_old
    # The logits are affine in (alpha, beta), with these slopes (n, classes, 2).
    slopes = torch.stack([logits * new, new.expand_as(logits).double()], dim=2)
    own = slopes[torch.arange(len(labels)), labels]

    def loss(point: Tensor) -> Tensor:
        found = torch.nn.functional.cross_entropy(torch.where(new, slopes @ point, logits), labels)
        return found + (weight / 2 * (point - start).square()).sum()

    point = start
    for _ in range(NEWTON_STEPS):
        shares = torch.where(new, slopes @ point, logits).softmax(1)[..., None]
        mean = (shares * slopes).sum(1)
        gradient = (mean - own).mean(0) + weight * (point - start)
        second = torch.einsum("nki,nkj->ij", shares * slopes, slopes) / len(labels)
        hessian = second - mean.T @ mean / len(labels) + torch.diag(weight + 1e-12)
        step, size = torch.linalg.solve(hessian, gradient), 1.0
        if float(gradient @ step) < CLOSE:
            break
        for _ in range(HALVINGS):
            if loss(point - size * step) < loss(point):
                break
            size /= 2
        point = point - size * step
    return float(point[0]), float(point[1])
