"""Test the CIFAR ResNets and their growing head: facts of R-DFCIL's network, and the pieces."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pmi_cl.backbones import resnet_cifar
from pmi_cl.backbones.heads import GrowingHead
from pmi_cl.backbones.resnet_cifar import ResidualBlock, ResNetCifar, resnet20, resnet32
from pmi_cl.seeding import seeded
from tests.support.small_networks import randomise_norms


def images(size: int = 32) -> torch.Tensor:
    return torch.randn(4, 3, size, size, generator=seeded(0, size))


def backbone_count(network: ResNetCifar) -> int:
    return sum(parameter.numel() for piece in network.pieces() for parameter in piece.parameters())


def test_resnet32_is_r_dfcils() -> None:
    network = resnet32()
    assert backbone_count(network) == 463_504
    assert sum(isinstance(m, nn.BatchNorm2d) for m in network.modules()) == 31
    assert sum(isinstance(m, ResidualBlock) for m in network.modules()) == 15
    assert len(network.pieces()) == 16
    widths = [block.conv2.out_channels for block in network.blocks]  # type: ignore[union-attr]
    assert widths == [16] * 5 + [32] * 5 + [64] * 5
    assert [number for number, block in enumerate(network.blocks) if block.stride == 2] == [5, 10]


def test_resnet20_has_nine_blocks() -> None:
    network = resnet20()
    assert sum(isinstance(m, nn.Conv2d) for m in network.modules()) == 19
    assert len(network.pieces()) == 10 and network.feature_dim == 64


@pytest.mark.parametrize("name", resnet_cifar.BACKBONES)
def test_every_registered_backbone_runs_and_learns(name: str) -> None:
    network = getattr(resnet_cifar, resnet_cifar.BACKBONES[name])()
    network.head.grow(3)
    F.cross_entropy(network(images(16)), torch.arange(4) % 3).backward()
    assert network(images(16)).shape == (4, 3)
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize(("size", "sizes"), [(32, (32, 16, 8)), (64, (64, 32, 16)), (16, (16, 8, 4))])
def test_shapes_of_the_maps(size: int, sizes: tuple[int, int, int]) -> None:
    value, network = images(size), resnet32().eval()
    shapes = []
    for piece in network.pieces():
        value = piece(value)
        shapes.append(tuple(value.shape[1:]))
    expected = [(width, side, side) for width, side in zip((16, 32, 64), sizes, strict=True)]
    assert shapes == [expected[0]] * 6 + [expected[1]] * 5 + [expected[2]] * 4 + [(64,)]


def test_features_can_be_negative() -> None:
    """No ReLU follows the last addition."""
    network = randomise_norms(resnet32())
    assert (network.features(images()) < 0).any()  # type: ignore[operator]


@pytest.mark.parametrize("block", [ResidualBlock(16, 16), ResidualBlock(16, 32)])
def test_a_block_equals_its_formula(block: ResidualBlock) -> None:
    randomise_norms(block)
    x = torch.randn(2, 16, 8, 8, generator=seeded(1))

    def normalised(x: torch.Tensor, norm: nn.BatchNorm2d) -> torch.Tensor:
        mean, var = norm.running_mean[:, None, None], norm.running_var[:, None, None]  # type: ignore[index]
        return (x - mean) / (var + 1e-5).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]

    inner = F.conv2d(x, block.conv1.weight, stride=block.stride, padding=1)
    inner = F.conv2d(normalised(inner, block.bn1).clamp(min=0), block.conv2.weight, padding=1)
    shortcut = x
    if block.stride == 2:  # real channels first, then as many zeros
        shortcut = torch.zeros(2, 32, 4, 4)
        shortcut[:, :16] = x[:, :, 0::2, 0::2]
    torch.testing.assert_close(block(x), normalised(inner, block.bn2) + shortcut, rtol=1e-4, atol=1e-5)


def test_new_channels_are_zero_and_come_last() -> None:
    """An untrained block is its shortcut: the second gamma starts at 0."""
    network = resnet32().eval()
    x = torch.rand(2, 16, 8, 8, generator=seeded(2)) + 0.1
    out = network.blocks[5](x)
    assert torch.equal(out[:, :16], x[:, :, ::2, ::2]) and not out[:, 16:].any()


def test_second_gammas_start_at_zero_and_convolutions_by_kaiming_fan_out() -> None:
    torch.manual_seed(0)
    network = resnet32()
    for block in network.blocks:
        assert not block.bn2.weight.any() and bool((block.bn1.weight == 1).all())  # type: ignore[union-attr, operator]
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 31
    for conv in convolutions:
        assert conv.bias is None
        assert float(conv.weight.detach().std()) == pytest.approx((2 / (conv.out_channels * 9)) ** 0.5, rel=0.15)


@pytest.mark.parametrize("factory", [resnet32, resnet20])
def test_pieces_and_head_make_up_the_network(factory: Callable[[], ResNetCifar]) -> None:
    network = factory()
    network.head.grow(7)
    randomise_norms(network)
    value = images()
    for piece in network.pieces():
        value = piece(value)
    expected = network(images())
    assert isinstance(expected, torch.Tensor)
    torch.testing.assert_close(network.head(value), expected, rtol=1e-5, atol=1e-5)
    logits, features = network(images(), returnt="both")
    torch.testing.assert_close(features, value)
    torch.testing.assert_close(network(images(), returnt="features"), value)
    torch.testing.assert_close(logits, expected)


# The head.


def test_a_head_grows_by_task_without_touching_the_old_logits() -> None:
    head, features = GrowingHead(64), torch.randn(5, 64, generator=seeded(3))
    head.grow(4)
    before = head(features)
    head.grow(6)
    assert head.sizes == [4, 6] and head(features).shape == (5, 10)
    assert torch.equal(head(features)[:, :4], before)
    assert all(linear.bias is None for linear in head.tasks)


def test_head_weights_start_at_a_standard_deviation_of_a_thousandth() -> None:
    weights = GrowingHead(64).grow(500, seeded(0)).weight.detach()
    assert float(weights.std()) == pytest.approx(0.001, rel=0.02) and abs(float(weights.mean())) < 2e-5
    assert torch.equal(weights, GrowingHead(64).grow(500, seeded(0)).weight)


def test_an_empty_head_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="grow"):
        GrowingHead(64)(torch.zeros(1, 64))


@pytest.mark.parametrize("tasks", [[], [2], [3, 1, 5], [2, 2, 2, 2]])
def test_a_state_dict_decides_how_many_tasks_there_are(tasks: list[int]) -> None:
    saved, loaded = resnet20(), resnet20()
    for size in (2, 3, 1):
        saved.head.grow(size)
    for size in tasks:
        loaded.head.grow(size)
    loaded.load_state_dict(saved.state_dict())
    assert loaded.head.sizes == [2, 3, 1]
    assert torch.equal(loaded.head.weight, saved.head.weight)


def test_a_state_dict_without_a_head_does_not_empty_the_head() -> None:
    network = resnet20()
    network.head.grow(4)
    backbone = {name: value for name, value in network.state_dict().items() if not name.startswith("head.")}
    with pytest.raises(RuntimeError, match=r"head\.tasks"):
        network.load_state_dict(backbone)
    network.load_state_dict(backbone, strict=False)
    assert network.head.sizes == [4]
