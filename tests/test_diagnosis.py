"""Test that the layer is found in which an inversion stops being finite.

That may be in the forward pass, in the statistics or in the backward pass.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.engine.descent import NonFiniteInversion
from pmi_cl.inversion.engine.diagnosis import LayerTrace, where_not_finite
from pmi_cl.inversion.engine.engine import Inversion
from pmi_cl.inversion.engine.problem import Problem, frozen_network
from pmi_cl.inversion.networks.frozen import FrozenNetwork
from pmi_cl.inversion.networks.token_network import TokenNetwork
from pmi_cl.inversion.objectives import FeatureMatch, StatisticsMatch
from pmi_cl.inversion.transforms import Transforms
from pmi_cl.seeding import seeded
from tests.support.small_clips import small_clip
from tests.support.small_networks import two_blocks
from tests.support.token_networks import maps, moments, with_everything

IMAGES = torch.randn(4, 3, 8, 8, generator=seeded(0))


class Root(nn.Module):
    """A layer that is finite at 0, where its gradient is not."""

    def forward(self, x: Tensor) -> Tensor:
        return x.abs().sqrt()


def total(trace: LayerTrace) -> Any:
    """Return the sum of the features and the KLs."""

    def loss(x: Tensor, step: int) -> Tensor:
        features, kls = trace(x)
        return features.sum() + sum(kls, torch.zeros(()))

    return loss


def broken(at: int) -> list[nn.Module]:
    """Return the three pieces of a network. From piece ``at`` on its values overflow."""
    pieces = two_blocks().pieces()
    with torch.no_grad():
        for module in pieces[at].modules():
            if isinstance(module, nn.Conv2d):
                module.weight.mul_(1e30)
    return pieces


CONTEXTS = torch.randn(4, 32, generator=seeded(3))
KEPT = torch.tensor([[0, 5, 9]]).repeat(4, 1)
TRACED: dict[str, tuple[Any, Tensor, dict[str, Tensor]]] = {
    "BatchNorms": (lambda: FrozenNetwork(two_blocks().pieces()), IMAGES, {}),
    "tokens": (lambda: TokenNetwork(small_clip().pieces()[1:], moments()), maps(4), {}),
    "tokens with prompts": (
        lambda: TokenNetwork(with_everything().pieces()[1:], moments()),
        maps(4),
        {"context": CONTEXTS},
    ),
    "some of the patches": (lambda: TokenNetwork(small_clip().pieces()[1:], moments()), maps(4), {"kept": KEPT}),
    "tokens of length 1": (lambda: TokenNetwork(small_clip().pieces()[1:], moments(), unit_features=True), maps(4), {}),
    "tokens in bfloat16": (
        lambda: TokenNetwork(small_clip().pieces()[1:], moments(), dtype=torch.bfloat16),
        maps(4),
        {},
    ),
}


@pytest.mark.parametrize("name", TRACED)
def test_a_trace_computes_what_the_network_computes(name: str) -> None:
    make, x, rest = TRACED[name]
    network = make()
    trace = LayerTrace(network)
    (features, kls), (expected, expected_kls) = trace(x, **rest), network(x, **rest)
    assert torch.equal(features, expected) and torch.equal(torch.stack(kls), torch.stack(expected_kls))
    assert sum(map(len, trace.kls)) == len(expected_kls) and len(trace.inputs) == len(network.pieces)


def test_where_all_is_finite_nothing_is_named() -> None:
    assert where_not_finite(FrozenNetwork(two_blocks().pieces()), total, IMAGES, 0) is None


@pytest.mark.parametrize("at", [0, 1, 2])
def test_the_layer_whose_values_overflow(at: int) -> None:
    assert where_not_finite(FrozenNetwork(broken(at)), total, IMAGES, 0) == f"layer {at} of 3, counted from 0"


@pytest.mark.parametrize("at", [0, 1, 2])
def test_the_layer_whose_gradient_is_not_finite(at: int) -> None:
    pieces: list[nn.Module] = [nn.Hardtanh(), nn.Hardtanh(), nn.Hardtanh()]
    pieces[at] = Root()
    x = torch.zeros(2, 3)
    network = FrozenNetwork(pieces)
    assert where_not_finite(network, total, x, 0) == f"layer {at} of 3, counted from 0"


def test_an_input_or_an_objective_that_is_not_finite() -> None:
    network = FrozenNetwork([nn.Hardtanh(), nn.Hardtanh()])
    assert where_not_finite(network, total, torch.full((2, 3), float("nan")), 0) == "its input"
    to_infinity = where_not_finite(network, lambda trace: lambda x, step: trace(x)[0].sum() / 0, torch.ones(2, 3), 0)
    assert to_infinity == "the objective, above the last layer"
    steep = where_not_finite(
        network, lambda trace: lambda x, step: trace(x)[0].abs().sqrt().sum(), torch.zeros(2, 3), 0
    )
    assert steep == "the objective, above the last layer"


def run(pieces: list[nn.Module], **settings: Any) -> None:
    config = InversionConfig(steps=3, batch=4, terms=(FeatureMatch(), StatisticsMatch()), **settings)
    problem = Problem(frozen_network(pieces, None, config), config, image_shape=(3, 8, 8), targets=torch.randn(4, 32))
    for _ in Inversion(problem).run():
        pass


@pytest.mark.parametrize("at", [0, 1, 2])
def test_the_inversion_of_a_whole_network_names_the_layer(at: int) -> None:
    with pytest.raises(
        NonFiniteInversion, match=rf"the full model is not finite \(first in layer {at} of 3, counted from 0\) even"
    ):
        run(broken(at))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_rate_too_high_shows_in_the_first_layer(precision: torch.dtype) -> None:
    """The iterate stays finite for a step or two, its statistics do not."""
    with pytest.raises(
        NonFiniteInversion,
        match=r"first in layer 0 of 3, counted from 0\) even at a quarter of its rate 1e\+30: lower it",
    ):
        run(two_blocks().pieces(), lr=1e30, precision=precision, transforms=Transforms(roll=1, noise=0.1))
