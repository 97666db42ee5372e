"""Test the terms of the objective against torch and loops, how they compose, and the transforms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.inversion.objectives import (
    Batch,
    CrossEntropy,
    DirectionalTV,
    DirectionMatch,
    FeatureMatch,
    Objective,
    StatisticsMatch,
    Term,
    TotalVariation,
)
from pmi_cl.inversion.transforms import Transforms
from pmi_cl.seeding import mix, seeded
from tests.support.slow_references import loop_total_variation

HEAD = nn.Linear(4, 3).requires_grad_(False)


def a_batch(**changes: object) -> Batch:
    parts = {
        "images": torch.randn(5, 3, 6, 7, generator=seeded(0)),
        "features": torch.randn(5, 4, generator=seeded(1)),
        "kls": [torch.tensor(0.5), torch.tensor(0.25), torch.tensor(2.0)],
        "targets": torch.randn(5, 4, generator=seeded(2)),
        "labels": torch.tensor([0, 2, 1, 1, 0]),
        "classify": HEAD,
    }
    return Batch(**{**parts, **changes})  # type: ignore[arg-type]


def test_feature_match_is_the_mean_over_all_elements() -> None:
    batch = a_batch()
    assert batch.targets is not None
    assert float(FeatureMatch(2.0)(batch)) == pytest.approx(
        2.0 * float((batch.features - batch.targets).pow(2).sum()) / 20
    )


def test_cross_entropy_of_the_classifier() -> None:
    batch = a_batch()
    expected = -HEAD(batch.features).log_softmax(1)[torch.arange(5), batch.labels].mean()
    assert float(CrossEntropy(0.5)(batch)) == pytest.approx(0.5 * float(expected))


def test_statistics_match_is_the_sum_over_layers() -> None:
    assert float(StatisticsMatch(0.1)(a_batch())) == pytest.approx(0.275)
    assert float(StatisticsMatch(0.1)(a_batch(kls=[]))) == 0.0


def test_total_variation_equals_a_loop() -> None:
    batch = a_batch()
    assert float(TotalVariation(0.05)(batch)) == pytest.approx(0.05 * loop_total_variation(batch.images), rel=1e-5)
    assert float(TotalVariation()(a_batch(images=torch.ones(2, 3, 4, 4)))) == 0.0


TERMS: tuple[Term, ...] = (FeatureMatch(1.0), CrossEntropy(0.3), StatisticsMatch(0.1), TotalVariation(0.05))


def test_an_objective_is_the_sum_of_its_parts() -> None:
    batch = a_batch()
    parts = Objective(TERMS).parts(batch)
    assert list(parts) == ["FeatureMatch", "CrossEntropy", "StatisticsMatch", "TotalVariation"]
    assert float(Objective(TERMS)(batch)) == pytest.approx(sum(map(float, parts.values())))
    assert float(Objective(TERMS)(batch)) == pytest.approx(sum(float(term(batch)) for term in TERMS))


def test_two_terms_of_one_kind_are_added_not_lost() -> None:
    parts = Objective((StatisticsMatch(0.1), StatisticsMatch(0.2))).parts(a_batch())
    assert float(parts["StatisticsMatch"]) == pytest.approx(0.3 * 2.75)


def test_a_term_of_the_users_own_composes() -> None:
    class Brightness:
        def __call__(self, batch: Batch) -> Tensor:
            return batch.images.mean()

    batch = a_batch()
    objective = Objective((FeatureMatch(), Brightness()))
    assert float(objective(batch)) == pytest.approx(float(FeatureMatch()(batch) + batch.images.mean()))


@pytest.mark.parametrize(
    ("term", "missing", "needed"),
    [
        (FeatureMatch(), "targets", "targets"),
        (CrossEntropy(), "labels", "labels"),
        (CrossEntropy(), "classify", "classifier"),
    ],
)
def test_a_term_says_what_it_lacks(term: Term, missing: str, needed: str) -> None:
    with pytest.raises(ValueError, match=needed):
        term(a_batch(**{missing: None}))


# Transforms.

IMAGES = torch.randn(4, 3, 6, 7, generator=seeded(9))
KEYS = [(batch, step) for batch in range(2) for step in range(150)]


def rolls(size: int) -> dict[tuple[int, int], Tensor]:
    span = range(-size, size + 1)
    return {(dy, dx): torch.roll(IMAGES, (dy, dx), dims=(2, 3)) for dy in span for dx in span}


def which(seen: Tensor, known: dict[tuple[int, int], Tensor]) -> tuple[int, int]:
    (match,) = [shift for shift, image in known.items() if torch.equal(seen, image)]
    return match


def test_roll_is_torchs_and_reaches_every_shift() -> None:
    known = rolls(2)
    shifts = [which(Transforms(roll=2)(IMAGES, 0, *key), known) for key in KEYS]
    assert set(shifts) == set(known)
    assert abs(sum(dy for dy, _ in shifts)) < 60 and abs(sum(dx for _, dx in shifts)) < 60


def test_flip_is_torchs_about_every_second_time_and_independent_of_the_roll() -> None:
    known, flipped = rolls(1), 0
    for key in KEYS:
        rolled, seen = Transforms(roll=1)(IMAGES, 0, *key), Transforms(roll=1, flip=True)(IMAGES, 0, *key)
        assert torch.equal(seen, rolled) or torch.equal(seen, torch.flip(rolled, dims=(3,)))
        flipped += not torch.equal(seen, rolled) and which(rolled, known) is not None
    assert 120 < flipped < 180


def test_noise_has_its_standard_deviation_and_its_own_seed() -> None:
    wide = torch.zeros(64, 3, 16, 16)
    noise = Transforms(noise=0.3)(wide, 0, 1, 2)
    assert float(noise.std()) == pytest.approx(0.3, rel=0.02) and abs(float(noise.mean())) < 0.01
    assert torch.equal(noise, Transforms(noise=0.3)(wide, 0, 1, 2))
    assert not torch.equal(noise, Transforms(noise=0.3)(wide, 0, 1, 3))


def test_a_transform_depends_on_the_seed_and_the_step_alone() -> None:
    every = Transforms(roll=2, flip=True, noise=0.1)
    torch.manual_seed(1)
    first = every(IMAGES, 5, 0, 7)
    torch.manual_seed(2)
    assert torch.equal(first, every(IMAGES, 5, 0, 7))
    assert len({float(every(IMAGES, 5, 0, step).sum()) for step in range(20)}) == 20
    assert mix(5, 0, 7) != mix(5, 7, 0)


def test_gradients_pass_through_the_transforms() -> None:
    x = IMAGES.clone().requires_grad_()
    (Transforms(roll=2, flip=True, noise=0.1)(x, 0, 3) * IMAGES).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad.flatten(1).norm(dim=1), IMAGES.flatten(1).norm(dim=1))


def test_no_transform_is_false_and_changes_nothing() -> None:
    assert not Transforms() and Transforms(noise=0.1) and Transforms(roll=1) and Transforms(flip=True)
    assert Transforms()(IMAGES, 0, 0) is IMAGES


def test_gradient_of_the_whole_objective_equals_its_formula() -> None:
    features = a_batch().features.requires_grad_()
    batch = a_batch(features=features)
    Objective((FeatureMatch(2.0), CrossEntropy(0.5)))(batch).backward()
    assert batch.targets is not None and batch.labels is not None and features.grad is not None
    softmax = HEAD(features).softmax(1) - F.one_hot(batch.labels, 3)
    expected = 2.0 * 2 * (features - batch.targets) / 20 + 0.5 * softmax @ HEAD.weight / 5
    torch.testing.assert_close(features.grad, expected)


def test_directional_tv_is_the_mean_length_of_difference_maps_in_four_directions() -> None:
    """Against a loop over pixels."""
    images = torch.randn(2, 3, 4, 5, generator=seeded(8))
    total = 0.0
    for down, across in ((1, 0), (0, 1), (1, 1), (1, -1)):
        lengths = []
        for channel in images.flatten(0, 1):
            squares = 0.0
            for row in range(4):
                for column in range(5):
                    if row + down < 4 and 0 <= column + across < 5:
                        squares += float(channel[row + down, column + across] - channel[row, column]) ** 2
            lengths.append(squares**0.5)
        total += sum(lengths) / len(lengths)
    assert float(DirectionalTV(0.5)(a_batch(images=images))) == pytest.approx(0.5 * total, rel=1e-5)


def test_directional_tv_of_a_constant_map_is_zero_and_has_a_finite_gradient() -> None:
    images = torch.ones(2, 3, 4, 5, requires_grad=True)
    loss = DirectionalTV()(a_batch(images=images))
    loss.backward()
    assert loss.detach() == 0 and images.grad is not None and bool(torch.isfinite(images.grad).all())


def test_direction_match_is_the_mean_distance_of_unit_features() -> None:
    targets = F.normalize(torch.randn(5, 4, generator=seeded(9)), dim=1)
    batch = a_batch(targets=targets)
    expected = sum(float((f / f.norm() - t).norm()) for f, t in zip(batch.features, targets, strict=True)) / 5
    assert float(DirectionMatch(2.0)(batch)) == pytest.approx(2 * expected, rel=1e-5)
    assert float(DirectionMatch()(a_batch(features=3 * targets, targets=targets))) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="targets"):
        DirectionMatch()(a_batch(targets=None))
