"""Test contrastive feature selection.

Counts and moments are exact, a double loop selects the same, and plain Gaussian samples spread
less.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pmi_cl.inversion.features.contrastive import ContrastiveBank, ContrastiveConfig, train_contrastive
from pmi_cl.inversion.features.gaussians import ClassGaussians
from pmi_cl.inversion.features.selection import (
    SelectionConfig,
    match_moments,
    sample_few,
    sample_targets,
    select_features,
)
from pmi_cl.seeding import seeded
from tests.support.slow_references import loop_selection, mean_pairwise_cosine

D = 8
GAUSSIANS = ClassGaussians(torch.randn(3, D, generator=seeded(0)) + 2, torch.rand(3, D, generator=seeded(1)) + 0.2)


def gaussian_samples(label: int, generator: torch.Generator, n: int) -> Tensor:
    return GAUSSIANS.sample(torch.full((n,), label), generator)


@pytest.fixture(scope="module")
def bank() -> ContrastiveBank:
    labels = torch.arange(3).repeat(64)
    return train_contrastive(GAUSSIANS.sample(labels, seeded(2)), labels, 3, ContrastiveConfig(epochs=100), seed=0)


def test_matched_moments_are_exact() -> None:
    mean, std = torch.linspace(-2, 2, D), torch.linspace(0.1, 3, D)
    matched = match_moments(torch.randn(40, D, generator=seeded(5)) * 7 + 1, mean, std).double()
    torch.testing.assert_close(matched.mean(0), mean.double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(matched.std(0, unbiased=False), std.double(), rtol=1e-6, atol=1e-6)


def test_shifting_before_scaling_would_miss_the_mean() -> None:
    """Notice a change back to the order of the released code (docs/provenance.md)."""
    samples, mean, std = torch.randn(40, D, generator=seeded(5)) + 0.3, torch.ones(D) * 3, torch.full((D,), 0.5)
    scale = std / samples.std(0, unbiased=False)
    released = (samples + (mean - samples.mean(0))) * scale
    assert (released.mean(0) - mean).abs().min() > 0.5
    torch.testing.assert_close(released.mean(0), mean * scale)
    torch.testing.assert_close(match_moments(samples, mean, std).mean(0), mean)


def test_one_sample_becomes_the_mean() -> None:
    mean = torch.linspace(-2, 2, D)
    assert torch.equal(match_moments(torch.randn(1, D, generator=seeded(6)), mean, torch.ones(D))[0], mean)


@pytest.mark.parametrize("config", [SelectionConfig(), SelectionConfig(0.2, 5, 1), SelectionConfig(1.0, 3, 2)])
@pytest.mark.parametrize("n", [1, 2, 3, 23, 40, 97])
def test_selection_equals_the_double_loop(n: int, config: SelectionConfig) -> None:
    embedding = torch.randn(D, D, generator=seeded(8), dtype=torch.float64)

    def embed(features: Tensor) -> Tensor:
        return F.normalize(features @ embedding, dim=1)

    def drawer() -> tuple[list[int], Callable[[int], Tensor]]:
        generator, asked = seeded(n, "draws"), []

        def draw(count: int) -> Tensor:
            asked.append(count)
            return torch.randn(count, D, generator=generator, dtype=torch.float64)

        return asked, draw

    asked, draw = drawer()
    slow_asked, slow_draw = drawer()
    chosen = select_features(draw, embed, n, config)
    expected = loop_selection(slow_draw, embed, n, config.ratio, config.steps, config.smallest)
    assert asked == slow_asked and chosen.shape == (n, D)
    assert torch.equal(chosen, expected)


@pytest.mark.parametrize("n", [1, 5, 39, 40, 41, 500])
def test_targets_have_the_exact_count_and_moments(n: int, bank: ContrastiveBank) -> None:
    targets = sample_targets(GAUSSIANS, torch.full((n,), 1), 0, bank).double()
    assert targets.shape == (n, D)
    torch.testing.assert_close(targets.mean(0), GAUSSIANS.mean[1].double(), rtol=0, atol=1e-6)
    expected = GAUSSIANS.std[1].double() if n > 1 else torch.zeros(D, dtype=torch.float64)
    torch.testing.assert_close(targets.std(0, unbiased=False), expected, rtol=1e-6, atol=1e-6)


def test_selection_spreads_more_than_plain_sampling(bank: ContrastiveBank) -> None:
    """It always does as selected.

    The correction of the moments moves the samples again: afterwards it does on average.
    """
    for label in range(3):
        corrected, plain = [], []
        for seed in range(8):
            generator = seeded(seed, "plain")
            draw = functools.partial(gaussian_samples, label, generator)
            plain.append(mean_pairwise_cosine(bank.embed(label, draw(120))))
            selected = select_features(draw, functools.partial(bank.embed, label), 120, SelectionConfig())
            assert mean_pairwise_cosine(bank.embed(label, selected)) < plain[-1]
            targets = sample_targets(GAUSSIANS, torch.full((120,), label), seed, bank)
            corrected.append(mean_pairwise_cosine(bank.embed(label, targets)))
        assert sum(corrected) < sum(plain)


def test_rows_follow_their_labels(bank: ContrastiveBank) -> None:
    labels = torch.tensor([2, 0, 0, 2, 1, 2, 0, 1, 2, 2])
    for chosen_bank in (bank, None):
        targets = sample_targets(GAUSSIANS, labels, 4, chosen_bank)
        for label in range(3):
            alone = sample_targets(GAUSSIANS, labels[labels == label], 4, chosen_bank)
            assert torch.equal(targets[labels == label], alone)  # a class depends on its own label and count alone


def test_classes_do_not_share_their_noise() -> None:
    targets = sample_targets(GAUSSIANS, torch.arange(2).repeat_interleave(30), 0)
    noise = [
        (targets[30 * label : 30 * label + 30] - GAUSSIANS.mean[label]) / GAUSSIANS.std[label] for label in range(2)
    ]
    assert (noise[0] - noise[1]).abs().mean() > 0.5


def test_the_seed_decides(bank: ContrastiveBank) -> None:
    labels = torch.arange(3).repeat(5)
    assert torch.equal(sample_targets(GAUSSIANS, labels, 1, bank), sample_targets(GAUSSIANS, labels, 1, bank))
    assert not torch.equal(sample_targets(GAUSSIANS, labels, 1, bank), sample_targets(GAUSSIANS, labels, 2, bank))


def test_a_few_samples_are_a_random_part_of_a_large_selection(bank: ContrastiveBank) -> None:
    """Each row belongs to its class, none is taken twice, and every one is among the twenty times
    as many that were selected.
    """
    labels, config = torch.tensor([2, 0, 2, 1, 0, 2]), SelectionConfig(steps=5, smallest=1)
    few = sample_few(GAUSSIANS, labels, 7, bank, config, boost=20)
    pool = labels.repeat(20)
    many = sample_targets(GAUSSIANS, pool, 7, bank, config)
    same = (few[:, None] == many[None]).all(-1)
    assert same.sum(1).tolist() == [1] * 6 and len(same.int().argmax(1).unique()) == 6
    assert torch.equal(pool[same.int().argmax(1)], labels)
    assert not torch.equal(few, sample_few(GAUSSIANS, labels, 8, bank, config, boost=20))


def test_a_few_samples_without_a_bank_are_plain_ones() -> None:
    labels = torch.tensor([2, 0, 2])
    few = sample_few(GAUSSIANS, labels, 7, None, SelectionConfig(), boost=20)
    assert torch.equal(few, sample_targets(GAUSSIANS, labels, 7))
