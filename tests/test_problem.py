"""Test that a problem is checked when it is made, and that any network of the protocol is inverted.

Its class does not matter.
"""

from __future__ import annotations

import doctest

import pytest
import torch
from torch import Tensor, nn

from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.engine import problem as problem_module
from pmi_cl.inversion.engine.engine import Inversion
from pmi_cl.inversion.engine.problem import Problem, frozen_network
from pmi_cl.inversion.features.statistics import Axis, Direction
from pmi_cl.inversion.networks.protocol import InvertibleNetwork
from pmi_cl.inversion.networks.token_network import TokenNetwork
from pmi_cl.inversion.objectives import CrossEntropy, FeatureMatch
from pmi_cl.seeding import seeded
from tests.support.small_networks import two_blocks

SHAPE = (3, 8, 8)
LABELS = torch.arange(6) % 2
FEATURES_ALONE = InversionConfig(steps=3, terms=(FeatureMatch(),))


class Linear:
    """One matrix on the pixels: a network that is no class of the project, not even a module."""

    head = None
    dtype = torch.float32
    device = torch.device("cpu")
    direction: Direction = "synthetic_to_real"
    axis: Axis = "channel"
    input_moments = None
    affine_moments = None
    input_prior = takes_context = drops_patches = compares_statistics = statistics_optional = False

    def __init__(self) -> None:
        self.pieces = [torch.randn(3 * 8 * 8, 5, generator=seeded(0)) / 14]

    def run(
        self,
        x: Tensor,
        first: int = 0,
        last: int | None = None,
        context: Tensor | None = None,
        kept: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        for matrix in self.pieces[first:last]:
            x = x.flatten(1) @ matrix
        return x, []

    def forward(
        self, x: Tensor, context: Tensor | None = None, kept: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        return self.run(x)

    __call__ = forward

    def layer(
        self, number: int, x: Tensor, context: Tensor | None = None, kept: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        return self.run(x, number, number + 1)

    def class_attention(self, x: Tensor, context: Tensor | None = None, kept: Tensor | None = None) -> Tensor:
        raise ValueError("no class token")


def test_a_network_of_another_class_is_inverted() -> None:
    network: InvertibleNetwork = Linear()
    targets = torch.randn(6, 5, generator=seeded(1))
    config = InversionConfig(steps=200, terms=(FeatureMatch(),))
    inversion = Inversion(Problem(network, config, image_shape=SHAPE, targets=targets))
    losses = [float(step.loss) for step in inversion.run()]
    assert losses[-1] < 1e-4 < losses[0]
    torch.testing.assert_close(network(inversion.images())[0], targets, atol=0.05, rtol=0)


def test_a_network_without_tokens_refuses_patches_and_has_no_class_attention() -> None:
    network, images = frozen_network(two_blocks().pieces(), None, FEATURES_ALONE), torch.zeros(2, *SHAPE)
    for call in (
        network,
        lambda *given: network.layer(0, *given),
        lambda *given: network.run(given[0], 0, 1, None, given[2]),
    ):
        with pytest.raises(ValueError, match="no patches to drop"):
            call(images, None, torch.zeros(2, 1, dtype=torch.long))
    with pytest.raises(ValueError, match="no class token"):
        network.class_attention(images)


def test_a_frozen_network_made_for_another_precision_or_direction_is_refused() -> None:
    frozen = frozen_network(two_blocks().pieces(), None, FEATURES_ALONE)
    for other in (
        InversionConfig(terms=(FeatureMatch(),), precision=torch.bfloat16),
        InversionConfig(terms=(FeatureMatch(),), direction="real_to_synthetic"),
    ):
        with pytest.raises(ValueError, match=r"the FrozenNetwork's .*: give both the same"):
            Problem(frozen, other, image_shape=SHAPE, targets=torch.zeros(2, 32))


def test_a_problem_is_refused_before_an_inversion_is_made_of_it() -> None:
    frozen = frozen_network(two_blocks().pieces(), None, FEATURES_ALONE)
    with pytest.raises(ValueError, match="classifier on top"):
        Problem(frozen, InversionConfig(terms=(CrossEntropy(),)), image_shape=SHAPE, labels=LABELS)
    with pytest.raises(ValueError, match="needs targets"):
        Problem(frozen, FEATURES_ALONE, image_shape=SHAPE)


def test_it_counts_its_samples_by_targets_or_labels() -> None:
    network = two_blocks()
    config = InversionConfig(terms=(CrossEntropy(),))
    frozen = frozen_network(network.pieces(), network.head, config)
    assert Problem(frozen, config, image_shape=SHAPE, labels=LABELS).n == 6
    assert Problem(frozen, config, image_shape=SHAPE, targets=torch.zeros(6, 32), labels=LABELS).n == 6


def test_tokens_without_statistics_are_a_choice_and_batchnorms_without_them_are_not() -> None:
    """StatisticsMatch would be 0 for both. Only the second is a mistake."""

    class Piece(nn.Linear):
        def forward(self, x: Tensor, context: Tensor | None = None, tap: object = None) -> Tensor:  # type: ignore[override]
            return super().forward(x.flatten(1))

    plain = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5))
    targets = torch.zeros(2, 5)
    Problem(TokenNetwork([Piece(3 * 8 * 8, 5)]), InversionConfig(), image_shape=SHAPE, targets=targets)
    with pytest.raises(ValueError, match="StatisticsMatch needs BatchNorms"):
        Problem(frozen_network([plain], None, InversionConfig()), InversionConfig(), image_shape=SHAPE, targets=targets)


def test_the_example_of_a_problem_runs() -> None:
    outcome = doctest.testmod(problem_module)
    assert outcome.attempted > 0 and outcome.failed == 0
