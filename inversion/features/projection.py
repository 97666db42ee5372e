"""Features of classes never seen, from those of similar classes turned the way that their texts turn (semantic-aware projection, 3.11)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pmi_cl.inversion.features.gaussians import ClassGaussians
from pmi_cl.seeding import seeded

PARALLEL = 1e-7  # sine of an angle below which two unit vectors span no plane


def rotated(features: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Features (n, d) under the rotation in the plane of two unit vectors (d,) that takes ``source`` to ``target``.

    What is orthogonal to both stays as it is. Equal vectors give the identity. Opposite ones span no plane: then the half turn is in the
    plane of ``source`` and the axis that it leans on least. Float64 inside.
    """
    u, t, aim = features.double(), source.double(), target.double()
    cosine = t @ aim
    across = aim - cosine * t
    sine = across.norm()
    if sine < PARALLEL:
        if cosine > 0:
            return features
        axis = F.one_hot(t.abs().argmin(), len(t)).double()
        across, sine = F.normalize(axis - (axis @ t) * t, dim=0), torch.zeros_like(sine)
    v = across if sine == 0 else across / sine
    along, aside = u @ t, u @ v
    turned = torch.outer((cosine - 1) * along - sine * aside, t) + torch.outer(sine * along + (cosine - 1) * aside, v)
    return (u + turned).to(features.dtype)


def most_similar(target: Tensor, sources: Tensor, k: int = 5) -> Tensor:
    """The numbers (k,) of the ``k`` unit vectors (m, d) that are nearest to ``target`` (d,), the nearest first; all if there are fewer."""
    return (sources @ target).topk(min(k, len(sources))).indices


def blended(features: Tensor, target: Tensor, alpha: float = 0.1) -> Tensor:
    """Features (k, n, d), turned from k classes, to n unit features (n, d): their mean's direction, ``alpha`` of it ``target``'s (d,)."""
    mean = F.normalize(features.mean(0), dim=-1)
    return F.normalize((1 - alpha) * mean + alpha * target, dim=-1)


def projected_features(
    gaussians: ClassGaussians,
    seen_texts: Tensor,
    new_texts: Tensor,
    labels: Tensor,
    seed: int,
    *,
    top_k: int = 5,
    alpha: float = 0.1,
) -> Tensor:
    """A unit feature (n, d) for each label: from each of the ``top_k`` classes with the most similar texts a feature is drawn, scaled to
    length 1 and turned as its text has to turn to become the new class's.

    Top 5 and alpha 0.1 are the appendix's (I.3). The features of one class depend on the seed, its label and its count alone.

    Args:
        gaussians: of the seen classes' image features, on the bare CLIP.
        seen_texts: (m, d), their text features, of length 1.
        new_texts: (c, d), of the new classes, of length 1.
        labels: (n,), numbers of rows in ``new_texts``.
        seed: of what is drawn.
        top_k: how many similar classes each feature is made of.
        alpha: the new text's part of the feature.

    Raises:
        ValueError: the Gaussians and the texts are not of the same classes.
    """
    if len(gaussians) != len(seen_texts):
        raise ValueError(
            f"{len(gaussians)} Gaussians for {len(seen_texts)} texts: give one of each for every seen class"
        )
    features = new_texts.new_empty(len(labels), new_texts.shape[1])
    for label in labels.unique().tolist():
        rows = (labels == label).nonzero().flatten()
        target, generator = new_texts[label], seeded(seed, "projection", label)
        turned = []
        for source in most_similar(target, seen_texts, top_k).tolist():
            drawn = gaussians.sample(torch.full((len(rows),), source), generator)
            turned.append(rotated(F.normalize(drawn, dim=-1), seen_texts[source], target))
        features[rows] = blended(torch.stack(turned), target, alpha)
    return features
