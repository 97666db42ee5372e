"""Networks of others.

CIFAR ResNets as published weights expect them, torchvision's, and odd ones.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.machine.torchvision_shim import ensure_torchvision
from pmi_cl.seeding import seeded
from tests.support.small_networks import randomise_norms, trained_on_digits

PUBLISHED_RESNET32 = Path(__file__).resolve().parents[2] / "shared" / "data" / "packs" / "resnet32-d509ac18.th"


class SubsampleAndPad(nn.Module):
    """The shortcut without parameters: every second pixel, zero channels before and after the real
    ones.

    Source: He et al., Deep residual learning for image recognition, option A.
    """

    def __init__(self, new_channels: int) -> None:
        super().__init__()
        self.either_side = new_channels // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.either_side, self.either_side))


class BasicBlock(nn.Module):
    """The standard block: conv-BN-ReLU-conv-BN, plus the shortcut, then a ReLU."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        stride = 1 if channels_in == channels else 2
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Identity() if stride == 1 else SubsampleAndPad(channels - channels_in)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class CifarResNet(nn.Module):
    """A CIFAR ResNet of 6n + 2 layers: three stages of n blocks, pooling, a linear classifier.

    Source: He et al., Deep residual learning for image recognition.
    """

    def __init__(self, n: int, n_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*[BasicBlock(16, 16) for _ in range(n)])
        self.layer2 = nn.Sequential(BasicBlock(16, 32), *[BasicBlock(32, 32) for _ in range(n - 1)])
        self.layer3 = nn.Sequential(BasicBlock(32, 64), *[BasicBlock(64, 64) for _ in range(n - 1)])
        self.linear = nn.Linear(64, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = F.avg_pool2d(x, x.shape[-1]).flatten(1)
        return self.linear(x)


def conv_layers(channels_in: int, channels: int) -> list[nn.Module]:
    """Return convolution, BatchNorm, ReLU and pooling as plain layers."""
    return [
        nn.Conv2d(channels_in, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
    ]


class LayersThenPooling(nn.Module):
    """The usual ConvNet: all layers in one container, then a pooling and a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*conv_layers(3, 8), *conv_layers(8, 16))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.pool(self.features(x)), 1))


class StagesOfLayers(nn.Module):
    """A stem with a ReLU and a pooling of its own, stages of plain layers, a pooling between two of
    them.

    Another pooling is in ``forward``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.act = nn.LeakyReLU()
        self.layer1 = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.shrink = nn.AvgPool2d(2)
        self.layer2 = nn.Sequential(nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.fc = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.shrink(self.layer1(self.act(self.stem(x)))))
        return self.fc(x.mean(dim=(2, 3)))


class FlattensInside(nn.Module):
    """A network whose body pools and flattens."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [nn.Sequential(*conv_layers(3, 8)), nn.Sequential(*conv_layers(8, 16))]
        self.body = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x))


class ClassifierOfLayers(nn.Module):
    """A network with a classifier of several layers in a container, as a VGG has; ``forward``
    flattens.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*conv_layers(3, 8))
        self.avgpool = nn.AdaptiveAvgPool2d(2)
        self.classifier = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


class InAWrapper(nn.Module):
    """A module with one child, which is the network."""

    def __init__(self) -> None:
        super().__init__()
        self.net = stages_in_a_row()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def stages_in_a_row() -> nn.Sequential:
    """Return containers, pooling and classifier in one ``nn.Sequential``."""
    stages = [nn.Sequential(*conv_layers(3, 8)), nn.Sequential(*conv_layers(8, 16))]
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))


def cifar_resnet20() -> CifarResNet:
    """Return an untrained CIFAR ResNet of 20 layers."""
    return CifarResNet(3)


def cifar_resnet32() -> CifarResNet:
    """Return an untrained CIFAR ResNet of 32 layers."""
    return CifarResNet(5)


def published_resnet32() -> CifarResNet:
    """Return the published CIFAR-10 ResNet-32 (92.63 %) in evaluation mode.

    Skip the test if its weights are missing.
    """
    if not PUBLISHED_RESNET32.exists():
        pytest.skip(f"the published ResNet-32 is not at {PUBLISHED_RESNET32}")
    saved = torch.load(PUBLISHED_RESNET32, map_location="cpu", weights_only=True)["state_dict"]
    model = cifar_resnet32()
    weights = {name.removeprefix("module."): value for name, value in saved.items()}
    counters = {name: value for name, value in model.state_dict().items() if name.endswith("num_batches_tracked")}
    model.load_state_dict({**counters, **weights})
    return model.eval()


def torchvision_models() -> ModuleType:
    """Return ``torchvision.models``. Skip the test where torchvision is not installed."""
    ensure_torchvision()
    return pytest.importorskip("torchvision.models")


def images(n: int = 4, size: int = 32) -> Tensor:
    """Return random images (n, 3, size, size)."""
    return torch.randn(n, 3, size, size, generator=seeded(0, n, size))


def torchvision_resnet18() -> nn.Module:
    """Return torchvision's ResNet-18 with random statistics."""
    torch.manual_seed(0)
    return randomise_norms(torchvision_models().resnet18())


def ours() -> nn.Module:
    """Return the project's ResNet-20, trained on digits."""
    return trained_on_digits().network


def plain_network() -> nn.Module:
    """Return a network of six plain layers with random statistics."""
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
    return randomise_norms(nn.Sequential(*layers))


class PoolsOtherwise(CifarResNet):
    """A network that takes the largest value where its children, in order, take the mean.

    Untrained, both are 0 on an image of zeros.
    """

    def __init__(self) -> None:
        super().__init__(1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.bn1(self.conv1(x)).relu())))
        return self.linear(x.amax(dim=(2, 3)))


def facts(model: nn.Module) -> dict[str, object]:
    """Return all of a model that the engine must leave as it is."""
    return {
        "modes": [m.training for m in model.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()],
        "trainable": [p.requires_grad for p in model.parameters()],
        "gradients": [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
        "state": {name: value.tolist() for name, value in model.state_dict().items()},
        "layout": [p.stride() for p in model.parameters()],
    }
