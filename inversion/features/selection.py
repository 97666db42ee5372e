"""The labels and the target features of synthetic samples.

Contrastive feature selection (CFS) keeps a diverse half of the features that are drawn, and gives
them the exact moments of their class.
"""

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
    """How features are selected.

    Attributes:
        ratio: rho, the part of the candidates that a round keeps, 0.5 (App. I.1).
        steps: K, the number of rounds, 40 (App. I.1).
        smallest: the fewest features that a round adds; 2 in the released code.
    """

    ratio: float = 0.5
    steps: int = 40
    smallest: int = 2


def draw_labels(n: int, n_classes: int, balanced: bool, generator: torch.Generator) -> Tensor:
    """Draw ``n`` labels (n,) of ``n_classes`` classes, shuffled, so that every batch mixes classes.

    Args:
        n: how many.
        n_classes: how many classes there are.
        balanced: whether every class comes equally often to within one. Else labels are drawn
            uniformly at random, as in the released code, but each class comes at least twice:
            the statistics of one sample could not be refreshed.
        generator: on the CPU.

    Raises:
        ValueError: there are fewer than two samples for each class.
    """
    if n < 2 * n_classes:
        raise ValueError(f"{n} samples are too few for {n_classes} classes: two each are needed")
    if balanced:
        return balanced_labels(n, n_classes, generator)
    drawn = torch.randint(n_classes, (n - 2 * n_classes,), generator=generator)
    labels = torch.cat([torch.arange(n_classes).repeat(2), drawn])
    return labels[torch.randperm(n, generator=generator)]


def balanced_labels(n: int, n_classes: int, generator: torch.Generator) -> Tensor:
    """Return ``n`` shuffled labels (n,), every class equally often to within one."""
    return (torch.arange(n) % n_classes)[torch.randperm(n, generator=generator)]


def match_moments(samples: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Shift and scale samples (n, d) to exactly the mean and the std (ddof 0) that are given, (d,).

    The order matters: (x - m) / s * sigma + mu. The released code shifts first, so that its mean
    ends at mu * sigma / s (docs/provenance.md). A single sample has no spread: it becomes the mean.
    """
    wide = samples.double()
    centred = wide - wide.mean(0)
    scaled = centred / (centred.pow(2).mean(0).sqrt() + 1e-8)
    return (scaled * std.double() + mean.double()).to(samples.dtype)


def select_features(
    draw: Callable[[int], Tensor], embed: Callable[[Tensor], Tensor], n: int, config: SelectionConfig
) -> Tensor:
    """Grow a set of ``n`` features (n, d): each round adds the candidates least similar to it.

    The score of a candidate is its mean cosine to the chosen features in z-space. (The paper
    divides it by tau, which changes no order.) For unit vectors it is the product of the candidate
    with the mean of the chosen features, so a round costs one matrix-vector product.

    Args:
        draw: maps n to features (n, d) of the Gaussian of the class.
        embed: f_cont, maps features (n, d) to unit vectors (n, d).
        n: how many features are selected.
        config: the settings.
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
    """Return a feature (n, d) for each label (n,).

    It is selected by CFS where the bank has a contrastive model of the class; else it is a plain
    Gaussian sample. The targets of a class depend on the seed, its label and its count alone.
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
    """Return a feature (n, d) for each label (n,), where a class has only a handful of them.

    As in the released code, ``boost`` times as many are selected as in :func:`sample_targets`, and
    as many as are wanted are kept at random: of five samples CFS could choose none
    (docs/provenance.md).
    """
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
