"""Networks of others: taken apart into pieces that make up the whole, and measured."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.invert import invert
from pmi_cl.inversion.networks.frozen import FrozenNetwork
from pmi_cl.inversion.networks.pieces import measure_input_moments, split_network
from pmi_cl.inversion.objectives import CrossEntropy, StatisticsMatch
from tests.support.foreign_networks import (
    ClassifierOfLayers,
    FlattensInside,
    InAWrapper,
    LayersThenPooling,
    PoolsOtherwise,
    StagesOfLayers,
    cifar_resnet20,
    images,
    ours,
    plain_network,
    published_resnet32,
    stages_in_a_row,
    torchvision_resnet18,
)
from tests.support.slow_references import hooked_kls, numpy_moments
from tests.support.small_networks import randomise_norms


@pytest.mark.parametrize(
    ("network", "count"),
    [(cifar_resnet20, 10), (published_resnet32, 16), (torchvision_resnet18, 9), (ours, 10), (plain_network, 1)],
)
def test_pieces_and_head_make_up_the_network(network: Callable[[], nn.Module], count: int) -> None:
    model = network().eval()
    pieces, head = split_network(model, images(2))
    assert len(pieces) == count and head is not None
    value = images()
    for piece in pieces:
        value = piece.eval()(value)
    torch.testing.assert_close(head(value), model(images()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        (LayersThenPooling, 2),
        (StagesOfLayers, 3),
        (FlattensInside, 2),
        (ClassifierOfLayers, 1),
        (InAWrapper, 2),
        (stages_in_a_row, 2),
    ],
)
def test_a_network_of_plain_layers_is_taken_apart_and_inverted(kind: Callable[[], nn.Module], count: int) -> None:
    torch.manual_seed(0)
    model = randomise_norms(kind()).eval()
    pieces, head = split_network(model, images(2, 16))
    assert len(pieces) == count and isinstance(head, nn.Linear)
    with torch.no_grad():
        torch.testing.assert_close(
            head(nn.Sequential(*pieces)(images(4, 16))), model(images(4, 16)), rtol=1e-5, atol=1e-5
        )
        network = FrozenNetwork(pieces, head)
        kls, expected = network(images(4, 16))[1], hooked_kls(model, images(4, 16))[1]
    torch.testing.assert_close(torch.stack(kls), torch.stack(expected), rtol=1e-4, atol=1e-5)
    config = InversionConfig(steps=12, terms=(CrossEntropy(), StatisticsMatch(0.1)))
    losses = invert(model, image_shape=(3, 16, 16), labels=torch.arange(8) % 4, config=config).report.losses[0][
        "losses"
    ]
    assert losses[-1] < losses[0]


def test_pieces_may_be_single_layers() -> None:
    model = plain_network()
    config = InversionConfig(steps=3, terms=(CrossEntropy(), StatisticsMatch(0.1)))
    whole = invert(model, image_shape=(3, 8, 8), labels=torch.arange(4), config=config)
    layers = list(model)
    parts = invert(
        model, image_shape=(3, 8, 8), labels=torch.arange(4), config=config, pieces=layers[:-1], head=layers[-1]
    )
    torch.testing.assert_close(parts.images, whole.images, rtol=1e-3, atol=1e-3)
    assert parts.judged["StatisticsMatch"] > 0


class SwapsColours(nn.Module):
    """A network that is not its children in order: it does something before them."""

    def __init__(self) -> None:
        super().__init__()
        self.network = plain_network()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.flip(1))


class OtherOrder(nn.Module):
    """A network whose children are listed in another order than they are called."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU())
        self.stem = nn.Conv2d(3, 8, 3)
        self.classifier = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.block(self.stem(x)).amax(dim=(2, 3)))


class TakesTokens(nn.Module):
    """A network whose children do not take what the ones before give, and raise an error of their
    own.
    """

    class Tokens(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert x.dim() == 3, "tokens (b, t, c) are wanted"
            return x

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.tokens, self.fc = nn.Conv2d(3, 8, 4, stride=4), self.Tokens(), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.tokens(self.patches(x).flatten(2).transpose(1, 2)).mean(dim=1))


@pytest.mark.parametrize("kind", [SwapsColours, OtherOrder, PoolsOtherwise, TakesTokens])
def test_a_network_that_is_not_its_children_in_order_is_refused(kind: type[nn.Module]) -> None:
    labels, config = torch.arange(2), InversionConfig(steps=1, terms=(CrossEntropy(),))
    with pytest.raises(ValueError, match=rf"{kind.__name__} is not its children in order.*pass pieces"):
        invert(kind(), image_shape=(3, 8, 8), labels=labels, config=config)


def test_pieces_given_by_hand_are_used() -> None:
    model = SwapsColours().eval()
    layers = list(model.network.children())

    class Swap(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flip(1)

    pieces, head = [nn.Sequential(Swap(), layers[0], layers[1]), nn.Sequential(*layers[2:5])], layers[5]
    config = InversionConfig(steps=2, terms=(CrossEntropy(), StatisticsMatch()))
    result = invert(model, image_shape=(3, 8, 8), labels=torch.arange(4), config=config, pieces=pieces, head=head)
    assert result.images.shape == (4, 3, 8, 8)


def keep_input(inputs: list[Tensor], module: nn.Module, args: tuple[Tensor]) -> None:
    inputs.append(args[0].detach())


def test_input_moments_equal_numpy_over_all_batches() -> None:
    model = randomise_norms(cifar_resnet20())
    pieces, _ = split_network(model, images(2, 16))
    batches = [images(n, 16) for n in (5, 2, 9)]
    measured = measure_input_moments(pieces, batches)
    caught: list[list[Tensor]] = [[] for _ in pieces]
    for piece, inputs in zip(pieces, caught, strict=True):
        piece.register_forward_pre_hook(functools.partial(keep_input, inputs))
    for batch in batches:
        value = batch
        for piece in pieces:
            value = piece(value)
    for moments, inputs in zip(measured, caught, strict=True):
        mean, var = numpy_moments(inputs)
        np.testing.assert_allclose(moments.mean, mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(moments.var, var, rtol=1e-4)


def test_measuring_moments_leaves_a_training_network_as_it_was() -> None:
    model = cifar_resnet20().train()
    before = copy.deepcopy(model.state_dict())
    measure_input_moments(split_network(model, images(2, 8))[0], [images(4, 8)])
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
