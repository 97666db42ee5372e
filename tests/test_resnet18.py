"""Test ResNet-18 with a small stem.

It computes what torchvision's does, its pieces make up the whole, and an inversion takes it.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pmi_cl.backbones.resnet18 import ResNet18, resnet18
from pmi_cl.inversion.networks.frozen import FrozenNetwork
from pmi_cl.machine.torchvision_shim import ensure_torchvision
from pmi_cl.seeding import seeded
from tests.support.small_networks import randomise_norms


def images(n: int = 3) -> torch.Tensor:
    return torch.randn(n, 3, 32, 32, generator=seeded(0))


def torchvisions(network: ResNet18) -> nn.Module:
    """Return torchvision's ResNet-18 with the stem exchanged and the same weights."""
    ensure_torchvision()
    from torchvision.models import resnet18 as reference

    other = reference(num_classes=7)
    other.conv1, other.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    mine = [value for name, value in network.state_dict().items() if not name.startswith("head.")]
    theirs = [name for name in other.state_dict() if not name.startswith("fc.")]
    assert [tuple(other.state_dict()[name].shape) for name in theirs] == [tuple(value.shape) for value in mine]
    other.load_state_dict(dict(zip(theirs, mine, strict=True)), strict=False)
    other.fc = nn.Identity()
    return other


@pytest.mark.parametrize("training", [False, True])
def test_it_is_torchvisions_behind_another_stem(training: bool) -> None:
    network = randomise_norms(resnet18()).train(training)
    assert sum(p.numel() for piece in network.pieces() for p in piece.parameters()) == 11_168_832
    other = torchvisions(network).train(training)
    x = images()
    torch.testing.assert_close(network.features(x), other(x), rtol=1e-4, atol=1e-5)
    assert (network.features(x) >= 0).all()


def test_its_pieces_are_the_whole_and_one_block_each() -> None:
    network = randomise_norms(resnet18()).eval()
    pieces = network.pieces()
    value, shapes = images(), []
    for piece in pieces:
        value = piece(value)
        shapes.append(tuple(value.shape[1:]))
    maps = [(64, 32, 32)] * 3 + [(128, 16, 16)] * 2 + [(256, 8, 8)] * 2 + [(512, 4, 4)]
    assert shapes == [*maps, (512,)]
    torch.testing.assert_close(value, network.features(images()))


def test_an_inversion_sees_the_same_features_though_blocks_work_in_place() -> None:
    network = randomise_norms(resnet18()).eval()
    network.head.grow(4, seeded(1))
    x, untouched = images(), images()
    frozen = FrozenNetwork(network.pieces(), network.head)
    torch.testing.assert_close(frozen.run(x, 0, len(network.pieces()))[0], network.features(x), rtol=1e-3, atol=1e-4)
    assert torch.equal(x, untouched)
