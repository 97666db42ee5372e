"""Test the frozen copy against the network it was made of.

Outputs, KLs and gradients agree for ours, foreign and awkward networks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.backbones.resnet_cifar import resnet20, resnet32
from pmi_cl.inversion.features.statistics import Direction, StatisticsTap
from pmi_cl.inversion.networks.folding import ChannelAffine
from pmi_cl.inversion.networks.frozen import FrozenNetwork
from pmi_cl.inversion.networks.pieces import split_network
from pmi_cl.seeding import seeded
from tests.support.foreign_networks import cifar_resnet20, published_resnet32, torchvision_models
from tests.support.slow_references import hooked_kls
from tests.support.small_networks import randomise_norms, two_blocks


def images(n: int = 8, size: int = 16, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(n, 3, size, size, generator=seeded(0, n, size)).to(dtype)


def ours(factory: Callable[[], Any]) -> nn.Module:
    torch.manual_seed(0)
    network = factory()
    network.head.grow(5)
    network.head.grow(5)
    return randomise_norms(network)


def small_gammas(gamma: float) -> nn.Module:
    """Return a network with a channel in each BatchNorm that folding would ruin."""
    network = ours(resnet20)
    with torch.no_grad():
        for norm in [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]:
            norm.weight[1], norm.bias[1] = gamma, 1.5
    return network


def torchvision_resnet18() -> nn.Module:
    torch.manual_seed(0)
    return randomise_norms(torchvision_models().resnet18())


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet32": lambda: ours(resnet32),
    "resnet20": lambda: ours(resnet20),
    "untrained resnet20": lambda: resnet20_untrained(),
    "gamma 0": lambda: small_gammas(0.0),
    "gamma 1e-3": lambda: small_gammas(1e-3),
    "gamma -0.05": lambda: small_gammas(-0.05),
    "foreign resnet20": lambda: randomise_norms(cifar_resnet20()),
    "published resnet32": published_resnet32,
    "torchvision resnet18": torchvision_resnet18,
}


def resnet20_untrained() -> nn.Module:
    """Return a ResNet-20 with second gammas of 0, as they start."""
    network = resnet20()
    network.head.grow(5)
    return network.eval()


@pytest.fixture(params=NETWORKS, scope="module")
def network(request: pytest.FixtureRequest) -> nn.Module:
    return NETWORKS[request.param]()


def frozen(model: nn.Module, **options: Any) -> tuple[FrozenNetwork, nn.Module]:
    """Return the frozen copy, and the classifier in the dtype of the copy."""
    pieces, head = split_network(model, images(2))
    assert head is not None
    return FrozenNetwork(pieces, head, **options), copy.deepcopy(head).to(options.get("dtype", torch.float32))


def relative(value: Tensor, expected: Tensor) -> float:
    return float((value - expected).norm() / expected.norm())


def test_output_equals_the_networks(network: nn.Module) -> None:
    copied, head = frozen(network)
    with torch.no_grad():
        expected = network(images())
        features, _ = copied(images())
        assert (head(features) - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("direction", ["synthetic_to_real", "real_to_synthetic"])
def test_kls_equal_those_of_hooks_on_every_batchnorm(network: nn.Module, direction: Direction) -> None:
    copied, _ = frozen(network, direction=direction)
    with torch.no_grad():
        _, kls = copied(images())
        _, expected = hooked_kls(network, images(), direction)
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    assert len(kls) == len(expected) == norms
    torch.testing.assert_close(torch.stack(kls), torch.stack(expected), rtol=1e-3, atol=1e-5)


def objective(logits: Tensor, kls: list[Tensor]) -> Tensor:
    """Return cross-entropy, logits and statistics: all that an inversion differentiates."""
    return F.cross_entropy(logits, torch.arange(len(logits)) % 5) + logits.pow(2).mean() + 0.1 * torch.stack(kls).sum()


def gradients(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient with respect to the images, of the frozen copy and of the naive loop."""
    copied, head = frozen(model.float(), dtype=x.dtype)
    first, second = x.clone().requires_grad_(), x.clone().requires_grad_()
    features, kls = copied(first)
    objective(head(features), kls).backward()
    objective(*hooked_kls(copy.deepcopy(model).to(x.dtype), second)).backward()
    assert first.grad is not None and second.grad is not None
    return first.grad, second.grad


def test_gradient_equals_the_naive_loops_in_float64(network: nn.Module) -> None:
    assert relative(*gradients(network, images(dtype=torch.float64))) < 1e-4


@pytest.mark.parametrize("name", ["resnet32", "resnet20", "gamma -0.05", "foreign resnet20"])
def test_gradient_equals_the_naive_loops_in_float32(name: str) -> None:
    """Samples are compared one by one.

    A value within rounding of 0 may fall on the other side of a ReLU, and does in a sample or two
    of 32.
    """
    value, expected = gradients(NETWORKS[name](), images(32))
    errors = (value - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
    assert errors.sort().values[-3] < 1e-4


@pytest.mark.parametrize(("gamma", "beta"), [(0.03, 0.3), (0.05, 1.5), (0.1, 3.0), (0.3, 3.0)])
def test_bfloat16_statistics_survive_a_small_gamma_beside_a_large_beta(gamma: float, beta: float) -> None:
    """Folded regardless, they would drown in the rounding of values around beta.

    The KL would be 100 instead of 0.03.
    """
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
    piece = nn.Sequential(conv, norm).eval()
    x = images(64)
    with torch.no_grad():
        var, mean = torch.var_mean(conv(x), dim=(0, 2, 3), unbiased=False)
    norm.running_mean, norm.running_var = mean + 0.1, var * 1.3
    nn.init.constant_(norm.weight, gamma)
    nn.init.constant_(norm.bias, beta)
    value, expected = x.clone().requires_grad_(), x.double().requires_grad_()
    FrozenNetwork([piece], dtype=torch.bfloat16)(value)[1][0].backward()
    hooked_kls(piece.double(), expected)[1][0].backward()
    assert value.grad is not None and expected.grad is not None
    assert relative(value.grad.double(), expected.grad) < 0.25


def test_bfloat16_copy_keeps_its_statistics_in_float32_and_is_close() -> None:
    model = ours(resnet20)
    low, high = (frozen(model, dtype=dtype)[0] for dtype in (torch.bfloat16, torch.float32))
    taps = [m for m in low.modules() if isinstance(m, StatisticsTap)]
    assert len(taps) == 19 and all(buffer.dtype == torch.float32 for tap in taps for buffer in tap.buffers())
    (features, kls), (expected, expected_kls) = low(images(64)), high(images(64))
    assert features.dtype == torch.float32
    assert relative(features, expected) < 0.05
    torch.testing.assert_close(torch.stack(kls), torch.stack(expected_kls), rtol=0.1, atol=0.01)


def test_nothing_can_be_trained_and_no_hook_is_there(network: nn.Module) -> None:
    copied, _ = frozen(network)
    assert not any(parameter.requires_grad for parameter in copied.parameters())
    copied.train()
    for module in copied.modules():
        assert not module.training
        assert not (
            module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
        )


def test_no_batchnorm_is_left_and_a_sound_one_is_folded() -> None:
    kinds = [type(m) for m in frozen(ours(resnet20))[0].modules()]
    assert not any(issubclass(kind, nn.modules.batchnorm._BatchNorm) for kind in kinds) and ChannelAffine not in kinds
    assert ChannelAffine in [type(m) for m in frozen(small_gammas(0.0))[0].modules()]


def test_pieces_can_be_run_by_number() -> None:
    copied, _ = frozen(ours(resnet20))
    whole, kls = copied(images())
    below, first = copied.run(images(), 0, 4)
    above, second = copied.run(below, 4)
    torch.testing.assert_close((above, first + second), (whole, kls))


def test_a_compiled_copy_equals_the_eager_one() -> None:
    """It is traced as torch.compile does it, without the compiler.

    There the taps are plain operations.
    """
    copied, _ = frozen(ours(resnet20))
    results = []
    for run in (torch.compile(copied.run, backend="eager"), copied.run):
        x = images(16).requires_grad_()
        features, kls = run(x)
        (features.pow(2).mean() + torch.stack(kls).sum()).backward()
        results.append((features.detach(), [kl.detach() for kl in kls], x.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-5)


# Awkward networks.


class InPlace(nn.Module):
    """A network that overwrites what a BatchNorm gave in every way that torch offers.

    It uses the overwritten values under their old name, too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm(self.conv(x))
        kept = out
        F.leaky_relu(out, 0.2, inplace=True)
        out.mul_(2.0)
        out = self.relu(out) * 0.5
        out += 0.5
        return out + kept


class CalledTwice(nn.Module):
    """A network with one BatchNorm behind two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.norm = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.second(self.norm(self.first(x))))


class UsedTwice(nn.Module):
    """A network with a convolution that feeds more than its BatchNorm.

    That BatchNorm comes first in a piece and has no affine part; another has no statistics.
    """

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.BatchNorm2d(3, affine=False)
        self.conv, self.norm = nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)
        self.batch_norm = nn.BatchNorm2d(6, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(self.before(x))
        return self.batch_norm(self.norm(y) + y)


class Indexed(nn.Module):
    """Features through a BatchNorm, picked by an index that is a buffer of integers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(12, 6), nn.BatchNorm1d(6)
        self.order: Tensor
        self.register_buffer("order", torch.tensor([5, 0, 3]))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x.mean(-1).flatten(1)[:, :12])).index_select(1, self.order)


@pytest.mark.parametrize("kind", [InPlace, CalledTwice, UsedTwice, Indexed])
def test_awkward_pieces_compute_what_they_did(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    piece = randomise_norms(kind())
    x, untouched = images(16, 8).requires_grad_(), images(16, 8)
    value, kls = FrozenNetwork([piece])(x)
    value.sum().backward()
    assert torch.equal(x, untouched)
    expected, expected_kls = hooked_kls(piece, untouched)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(kls, expected_kls, rtol=1e-3, atol=1e-5)


def test_integers_stay_integers_in_bfloat16() -> None:
    value, _ = FrozenNetwork([randomise_norms(Indexed())], dtype=torch.bfloat16)(images(16, 8))
    assert value.shape == (16, 3)


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_a_piece_that_branches_on_values_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="Branches cannot be traced"):
        FrozenNetwork([Branches()])


def test_a_context_is_not_swallowed() -> None:
    copied = FrozenNetwork(two_blocks().pieces())
    for call in (copied, copied.run, lambda x, context: copied.layer(0, x, context)):
        with pytest.raises(ValueError, match="take no context"):
            call(torch.zeros(2, 3, 8, 8), context=torch.zeros(2, 3))
