"""Test the rotation in the plane of two text features, and the targets made by it.

References are scipy's matrix exponential and a Givens matrix.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from torch import Tensor
from torch.nn import functional as F

from pmi_cl.inversion.features.gaussians import ClassGaussians
from pmi_cl.inversion.features.projection import blended, most_similar, projected_features, rotated
from pmi_cl.seeding import seeded


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(shape, generator=seeded(seed), dtype=torch.float64), dim=-1)


def matrix(source: Tensor, target: Tensor) -> Tensor:
    """Return R as the function has it: the images of the axes are its columns."""
    return rotated(torch.eye(len(source), dtype=torch.float64), source, target).T


def exponential(source: Tensor, target: Tensor) -> np.ndarray:
    """Return exp(theta (v t' - t v')), the rotation by theta in the plane of t and v."""
    t, aim = source.numpy(), target.numpy()
    v = aim - (t @ aim) * t
    v = v / np.linalg.norm(v)
    return expm(math.acos(np.clip(t @ aim, -1, 1)) * (np.outer(v, t) - np.outer(t, v)))


@pytest.mark.parametrize("dimension", [2, 3, 7, 64])
@pytest.mark.parametrize("seed", [0, 1])
def test_is_the_matrix_exponential(dimension: int, seed: int) -> None:
    source, target = unit(2, dimension, seed=seed)
    np.testing.assert_allclose(matrix(source, target).numpy(), exponential(source, target), atol=1e-9)


def test_is_a_givens_rotation_in_a_plane_of_two_axes() -> None:
    angle = 0.7
    source, target = torch.eye(5, dtype=torch.float64)[1], torch.zeros(5, dtype=torch.float64)
    target[1], target[3] = math.cos(angle), math.sin(angle)
    expected = torch.eye(5, dtype=torch.float64)
    expected[1, 1] = expected[3, 3] = math.cos(angle)
    expected[3, 1], expected[1, 3] = math.sin(angle), -math.sin(angle)
    torch.testing.assert_close(matrix(source, target), expected)


NEAR = [0.0, 1e-12, 1e-9, 1e-6, 1e-3, 1.0, math.pi - 1e-3, math.pi - 1e-6, math.pi - 1e-9, math.pi]


@pytest.mark.parametrize("angle", NEAR)
def test_takes_the_source_to_the_target_keeps_lengths_and_the_complement(angle: float) -> None:
    source, other = unit(2, 12)
    across = F.normalize(other - (other @ source) * source, dim=0)
    target = math.cos(angle) * source + math.sin(angle) * across
    rotation = matrix(source, target)
    torch.testing.assert_close(rotation @ source, target, rtol=0, atol=2e-7)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(12, dtype=torch.float64), rtol=0, atol=1e-9)
    assert float(torch.linalg.det(rotation)) == pytest.approx(1)
    if angle < math.pi - 1e-7:
        rest = unit(4, 12, seed=3)
        plane = torch.stack([source, across])
        rest = rest - rest @ plane.T @ plane
        torch.testing.assert_close(rest @ rotation.T, rest, rtol=0, atol=1e-8)


def test_opposite_texts_turn_by_half_in_one_plane() -> None:
    source = unit(6)
    rotation = matrix(source, -source)
    assert sorted(torch.linalg.eigvals(rotation).real.round().tolist()) == [-1, -1, 1, 1, 1, 1]


def test_the_most_similar_come_first_and_there_may_be_few() -> None:
    sources = unit(9, 8)
    target = F.normalize(sources[4] + 0.5 * sources[2], dim=0)
    cosines = [float(source @ target) for source in sources]
    assert most_similar(target, sources, 3).tolist() == sorted(range(9), key=lambda k: -cosines[k])[:3]
    assert len(most_similar(target, sources[:2], 5)) == 2


def test_blending_is_the_mean_direction_and_then_the_text() -> None:
    features, target = unit(3, 4, 8), unit(8, seed=2)
    mean = sum(features[k] for k in range(3)) / 3
    mean = mean / mean.norm(dim=1, keepdim=True)
    expected = 0.8 * mean + 0.2 * target
    torch.testing.assert_close(blended(features, target, 0.2), expected / expected.norm(dim=1, keepdim=True))
    torch.testing.assert_close(blended(features, target, 1.0), target.expand(4, -1))


def gaussians(classes: int = 6, d: int = 8) -> ClassGaussians:
    return ClassGaussians(
        torch.randn(classes, d, generator=seeded(5)), 0.1 + torch.rand(classes, d, generator=seeded(6))
    )


def test_features_are_the_formula_of_3_11_class_by_class() -> None:
    known, seen, new = gaussians(), unit(6, 8, seed=1).float(), unit(2, 8, seed=2).float()
    labels = torch.tensor([1, 0, 1, 1])
    found = projected_features(known, seen, new, labels, 7, top_k=3, alpha=0.1)
    for label, rows in ((0, [1]), (1, [0, 2, 3])):
        generator, total = seeded(7, "projection", label), np.zeros((len(rows), 8))
        for k in sorted(range(6), key=lambda k: -float(seen[k] @ new[label]))[:3]:
            u = (known.mean[k] + known.std[k] * torch.randn(len(rows), 8, generator=generator)).double().numpy()
            u = u / np.linalg.norm(u, axis=1, keepdims=True)
            total += u @ exponential(seen[k].double(), new[label].double()).T / 3
        mean = total / np.linalg.norm(total, axis=1, keepdims=True)
        expected = 0.9 * mean + 0.1 * new[label].double().numpy()
        np.testing.assert_allclose(
            found[rows].numpy(), expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5
        )
    assert torch.equal(found, projected_features(known, seen, new, labels, 7, top_k=3, alpha=0.1))


def test_lengths_are_one_and_other_classes_do_not_matter() -> None:
    known, seen, new = gaussians(), unit(6, 8, seed=1).float(), unit(3, 8, seed=2).float()
    both = projected_features(known, seen, new, torch.tensor([0, 2, 2]), 7)
    alone = projected_features(known, seen, new, torch.tensor([2, 2]), 7)
    torch.testing.assert_close(both.norm(dim=1), torch.ones(3))
    assert torch.equal(both[1:], alone)
    with pytest.raises(ValueError, match="6 Gaussians for 5 texts"):
        projected_features(known, seen[:5], new, torch.tensor([0]), 7)
