"""Class-wise Gaussians against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pmi_cl.inversion.features.gaussians import ClassGaussians, fit_gaussians
from pmi_cl.seeding import seeded

LABELS = torch.tensor([2, 0, 1, 0, 2, 2, 0, 1, 2, 0])


def features(n: int = 10, d: int = 4) -> torch.Tensor:
    return torch.randn(n, d, generator=seeded(0, n, d)) * 2 + 5


def test_fit_equals_numpy_with_ddof_0() -> None:
    gaussians = fit_gaussians(features(), LABELS, 3)
    for label in range(3):
        rows = features().double().numpy()[LABELS.numpy() == label]
        np.testing.assert_allclose(gaussians.mean[label], rows.mean(0), rtol=1e-6)
        np.testing.assert_allclose(gaussians.std[label], rows.std(0, ddof=0), rtol=1e-6)


def test_fit_keeps_a_small_spread_around_a_large_mean() -> None:
    far = features() * 1e-3 + 1e3
    expected = far.double().numpy()[LABELS.numpy() == 2].std(0)
    np.testing.assert_allclose(fit_gaussians(far, LABELS, 3).std[2], expected, rtol=1e-6)


def test_a_class_without_features_is_named() -> None:
    with pytest.raises(ValueError, match="no features for class 3"):
        fit_gaussians(features(), LABELS, 4)


def test_a_single_feature_has_no_spread() -> None:
    gaussians = fit_gaussians(features(1), torch.tensor([0]), 1)
    assert torch.equal(gaussians.mean[0], features(1)[0]) and not gaussians.std.any()


def test_samples_have_their_classes_moments_and_follow_the_generator() -> None:
    gaussians = ClassGaussians(torch.tensor([[0.0, 10.0], [-5.0, 3.0]]), torch.tensor([[1.0, 0.1], [2.0, 0.0]]))
    labels = torch.arange(2).repeat(20_000)
    samples = gaussians.sample(labels, seeded(3))
    for label in range(2):
        rows = samples[labels == label]
        assert (rows.mean(0) - gaussians.mean[label]).abs().max() < 0.05
        assert (rows.std(0) - gaussians.std[label]).abs().max() < 0.05
    assert torch.equal(samples, gaussians.sample(labels, seeded(3)))
    assert not torch.equal(samples, gaussians.sample(labels, seeded(4)))


def test_the_state_keeps_the_rows_in_order() -> None:
    gaussians = fit_gaussians(features(), LABELS, 3)
    again = ClassGaussians.from_state(gaussians.state())
    assert len(again) == 3
    assert torch.equal(again.mean, gaussians.mean) and torch.equal(again.std, gaussians.std)


def test_newer_classes_follow_the_older() -> None:
    older, newer = (ClassGaussians(torch.full((n, 2), float(n)), torch.ones(n, 2)) for n in (2, 3))
    both = older.followed_by(newer)
    assert len(both) == 5 and both.mean[:, 0].tolist() == [2, 2, 3, 3, 3] and both.std.shape == (5, 2)
