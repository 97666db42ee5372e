"""The classes of the synthetic samples: shares, order, seed."""

from __future__ import annotations

import pytest
import torch

from pmi_cl.inversion.features.selection import draw_labels
from pmi_cl.seeding import seeded


@pytest.mark.parametrize(("n", "n_classes"), [(20, 10), (23, 10), (100, 3), (7, 1), (4000, 90)])
def test_balanced_shares_differ_by_one_at_most(n: int, n_classes: int) -> None:
    counts = torch.bincount(draw_labels(n, n_classes, True, seeded(0)), minlength=n_classes)
    assert counts.sum() == n and counts.max() - counts.min() <= 1


@pytest.mark.parametrize(("n", "n_classes"), [(20, 10), (23, 10), (100, 3), (4000, 90)])
def test_random_shares_hold_every_class_twice_at_least(n: int, n_classes: int) -> None:
    counts = torch.bincount(draw_labels(n, n_classes, False, seeded(0)), minlength=n_classes)
    assert counts.sum() == n and len(counts) == n_classes and counts.min() >= 2


def test_random_shares_are_those_of_a_fair_die() -> None:
    """Chi-squared of 10 classes exceeds 21.7 once in a hundred seeds."""
    counts = torch.bincount(draw_labels(20000, 10, False, seeded(1)), minlength=10).double()
    assert 1 < float(((counts - 2000) ** 2 / 2000).sum()) < 21.7


@pytest.mark.parametrize("balanced", [True, False])
def test_every_part_mixes_the_classes(balanced: bool) -> None:
    labels = draw_labels(400, 4, balanced, seeded(0))
    for part in labels.split(40):
        assert len(part.unique()) == 4


@pytest.mark.parametrize("balanced", [True, False])
def test_the_seed_decides(balanced: bool) -> None:
    one, again, other = (draw_labels(60, 6, balanced, seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert one.dtype == torch.int64


@pytest.mark.parametrize("balanced", [True, False])
def test_too_few_samples_are_refused(balanced: bool) -> None:
    with pytest.raises(ValueError, match="19 samples are too few for 10 classes"):
        draw_labels(19, 10, balanced, seeded(0))
