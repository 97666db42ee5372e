"""Build ResNet-18 with a stem for small images, layer by layer as pieces."""

from __future__ import annotations

from types import SimpleNamespace

from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.backbones.resnet_cifar import PiecewiseResNet, Stem
from pmi_cl.backbones.resnet_outline import ResNetOutline

BACKBONES = {"resnet18": "resnet18"}


class BasicBlock(nn.Module):
    """conv-BN-ReLU-conv-BN added to a shortcut, then ReLU.

    Where the map changes, the shortcut is a 1x1 convolution with BN.
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        same = stride == 1 and channels == channels_in
        project = [nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)]
        self.shortcut = nn.Sequential() if same else nn.Sequential(*project)

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (b, channels, h / stride, w / stride), not negative.

        ``x`` is (b, channels_in, h, w).
        """
        inner = self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True))
        return F.relu(self.bn2(inner).add_(self.shortcut(x)), inplace=True)


class ResNet18(PiecewiseResNet):
    """ResNet-18 for small images.

    It has a 3x3 stem without pooling, four stages of two basic blocks (widths 64 to 512), global
    average pooling, and a growing head. K. He et al., Deep Residual Learning for Image Recognition,
    2016. The stem is that of its CIFAR networks.
    """

    WIDTHS = (64, 128, 256, 512)
    DEPTH = 2  # blocks of each stage

    def __init__(self) -> None:
        blocks: list[nn.Module] = []
        channels = self.WIDTHS[0]
        for stage, width in enumerate(self.WIDTHS):
            blocks += [BasicBlock(channels, width, 2 if stage else 1), BasicBlock(width, width, 1)]
            channels = width
        super().__init__(Stem(self.WIDTHS[0]), blocks, channels)

    def _initialise(self) -> None:
        """Draw convolutions by Kaiming normal (fan out)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def resnet18() -> ResNet18:
    """ResNet-18 for small images: 20 convolutions, 8 residual blocks, 512 features.

    It has 11,168,832 parameters.
    """
    return ResNet18()


def outline(args: SimpleNamespace) -> ResNetOutline:
    """Return what is known of the network before it is built."""
    stages = [(width, ResNet18.DEPTH, 2 if stage else 1) for stage, width in enumerate(ResNet18.WIDTHS)]
    return ResNetOutline.of_stages("resnet18", stages)
