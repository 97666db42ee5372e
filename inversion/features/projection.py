"""Features of classes without images: semantic-aware projection (PMI section 3.11).

Features of similar classes are turned in the way in which the texts of the classes turn.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pmi_cl.inversion.features.gaussians import ClassGaussians
from pmi_cl.seeding import seeded

PARALLEL = 1e-7  # sine of an angle below which two unit vectors span no plane


def rotated(features: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Rotate features (n, d) in the plane of two unit vectors (d,), from ``source`` to ``target``.

    What is orthogonal to both vectors stays as it is. Equal vectors give the identity. Opposite
    vectors span no plane: then the half turn is in the plane of ``source`` and the axis along
    which ``source`` is smallest. The arithmetic is in float64.
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
    """Return the numbers (k,) of the ``k`` unit vectors nearest to ``target``, the nearest first.

    Args:
        target: (d,).
        sources: (m, d).
        k: how many; all where there are fewer.
    """
    return (sources @ target).topk(min(k, len(sources))).indices


def blended(features: Tensor, target: Tensor, alpha: float = 0.1) -> Tensor:
    """Blend features (k, n, d), turned from k classes, to unit features (n, d).

    Their direction is that of the mean over the classes, ``alpha`` of it that of ``target`` (d,).
    """
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
    """Return a unit feature (n, d) for each label of a class without images.

    From each of the ``top_k`` classes with the most similar texts a feature is drawn, scaled to
    length 1, and turned as the text of that class has to turn to become the text of the new one.
    The features of a class depend on the seed, its label and its count alone.

    Args:
        gaussians: of the image features of the seen classes, on the bare CLIP.
        seen_texts: (m, d), the text features of the seen classes, of length 1.
        new_texts: (c, d), the text features of the new classes, of length 1.
        labels: (n,), numbers of rows in ``new_texts``.
        seed: of all that is drawn.
        top_k: how many similar classes each feature is made of, 5 (App. I.3).
        alpha: the share of the new text in the feature, 0.1 (App. I.3).

    Raises:
        ValueError: there are not as many Gaussians as texts of seen classes.
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
