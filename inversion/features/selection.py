"""Contrastive feature selection (CFS): a diverse half of the sampled features, with the class's exact moments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pmi_cl.inversion.features.contrastive import ContrastiveBank
from pmi_cl.inversion.features.gaussians import ClassGaussians
from pmi_cl.seeding import seeded


@dataclass(frozen=True)
class SelectionConfig:
    """``ratio`` rho 0.5 and ``steps`` K 40 are the appendix's (I.1); ``smallest`` 2, the least features per round, the released code's."""

    ratio: float = 0.5
    steps: int = 40
    smallest: int = 2


def match_moments(samples: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Shift and scale samples (n, d) so that their mean is exactly ``mean`` (d,) and their std (ddof 0) exactly ``std``.

    The order matters: (x - m) / s * sigma + mu. The released code shifts first, so its mean ends at mu * sigma / s (docs/provenance.md).
    One sample has no spread: it becomes the mean.
    """
    wide = samples.double()
    centred = wide - wide.mean(0)
    scaled = centred / (centred.pow(2).mean(0).sqrt() + 1e-8)
    return (scaled * std.double() + mean.double()).to(samples.dtype)


def select_features(
    draw: Callable[[int], Tensor], embed: Callable[[Tensor], Tensor], n: int, config: SelectionConfig
) -> Tensor:
    """Grow a set of ``n`` features (n, d), each round adding the candidates least similar to the set so far.

    The score of a candidate is its mean cosine to the chosen in z-space (over tau, which changes no order); for unit vectors that is its
    product with the mean of the chosen, so a round costs one matrix-vector product.

    Args:
        draw: n to features (n, d) of the class's Gaussian.
        embed: features (n, d) to unit vectors (n, d): f_cont.
    """
    b = max(n // config.steps, config.smallest)
    chosen = draw(min(b, n))
    total = embed(chosen).sum(0)
    parts, size = [chosen], len(chosen)
    while size < n:
        candidates = draw(max(int(b / config.ratio), b))
        z = embed(candidates)
        score = z @ (total / size)
        keep = score.argsort(stable=True)[: min(b, n - size)]
        parts.append(candidates[keep])
        total, size = total + z[keep].sum(0), size + len(keep)
    return torch.cat(parts)


def sample_targets(
    gaussians: ClassGaussians,
    labels: Tensor,
    seed: int,
    bank: ContrastiveBank | None = None,
    config: SelectionConfig | None = None,
) -> Tensor:
    """A feature (n, d) for each label (n,): CFS where the bank has a contrastive model of the class, else plain Gaussian samples.

    The targets of one class depend on the seed, its label and its count alone.
    """
    config = config or SelectionConfig()
    targets = gaussians.mean.new_empty(len(labels), gaussians.mean.shape[1])
    for label in labels.unique().tolist():
        rows = (labels == label).nonzero().flatten()
        generator = seeded(seed, "targets", label)

        def draw(n: int, label: int = label, generator: torch.Generator = generator) -> Tensor:
            return gaussians.sample(torch.full((n,), label), generator)

        if bank is None or label not in bank:
            targets[rows] = draw(len(rows))
        else:
            chosen = select_features(draw, lambda f, c=label: bank.embed(c, f), len(rows), config)  # type: ignore[misc]
            targets[rows] = match_moments(chosen, gaussians.mean[label], gaussians.std[label])
    return targets


def sample_few(
    gaussians: ClassGaussians,
    labels: Tensor,
    seed: int,
    bank: ContrastiveBank | None,
    config: SelectionConfig,
    boost: int,
) -> Tensor:
    """As :func:`sample_targets`, for a handful of samples a class: ``boost`` times as many are selected, and as many as are wanted kept
    at random (the released code's boost: of five samples CFS could choose none: docs/provenance.md)."""
    if bank is None:
        return sample_targets(gaussians, labels, seed)
    pool = labels.repeat(boost)
    many = sample_targets(gaussians, pool, seed, bank, config)
    targets = many.new_empty(len(labels), many.shape[1])
    for label in labels.unique().tolist():
        rows, candidates = ((of == label).nonzero().flatten() for of in (labels, pool))
        chosen = torch.randperm(len(candidates), generator=seeded(seed, "few", label))[: len(rows)]
        targets[rows] = many[candidates[chosen.to(candidates.device)]]
    return targets
