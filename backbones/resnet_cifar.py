"""Build the CIFAR ResNets of R-DFCIL (cl-lite lineage), layer by layer as pieces."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.backbones.heads import GrowingHead
from pmi_cl.backbones.piecewise import PiecewiseNetwork
from pmi_cl.backbones.resnet_outline import ResNetOutline

BACKBONES = {"resnet32": "resnet32", "resnet20": "resnet20"}
KIND = "resnet"
BLOCKS = {"resnet32": (5, 5, 4, 1), "resnet20": (3, 3, 2, 1)}  # of each of the four stages


class Stem(nn.Module):
    """conv3x3 (3 -> width), BatchNorm, ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps (b, width, h, w) of images (b, 3, h, w)."""
        return F.relu(self.bn(self.conv(x)), inplace=True)


class ResidualBlock(nn.Module):
    """conv-BN-ReLU-conv-BN added to a shortcut, with no ReLU after the addition.

    Where the map shrinks, the shortcut takes every second pixel and appends as many zero channels
    as it has, after the real ones.
    """

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.stride = 1 if channels_in == channels else 2
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.new_channels = channels - channels_in

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (b, channels, h / stride, w / stride) of maps (b, channels_in, h, w)."""
        shortcut = x
        if self.stride == 2:
            shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.new_channels))
        inner = self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True))
        return self.bn2(inner).add_(shortcut)  # in place, here and above: the same numbers, less memory traffic


class Pool(nn.Module):
    """Global average pooling."""

    def forward(self, x: Tensor) -> Tensor:
        """Return features (b, c) of maps (b, c, h, w)."""
        return x.mean(dim=(2, 3))


class PiecewiseResNet(PiecewiseNetwork):
    """A stem, residual blocks, global average pooling, and a head that grows by task.

    A subclass may say how its weights are drawn (:meth:`_initialise`).
    """

    def __init__(self, stem: Stem, blocks: Sequence[nn.Module], feature_dim: int) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = nn.ModuleList(blocks)
        self.pool = Pool()
        self.feature_dim = feature_dim
        self.head = GrowingHead(feature_dim)
        self._initialise()

    def _initialise(self) -> None:
        """Draw the weights; here they stay as torch's layers draw them."""

    def pieces(self) -> list[nn.Module]:
        """Return the layers of the inversion, bottom to top.

        They are the stem, then one residual block each, the last one with the pooling.
        """
        return [self.stem, *self.blocks[:-1], nn.Sequential(self.blocks[-1], self.pool)]

    def features(self, x: Tensor) -> Tensor:
        """Return the pooled features (b, feature_dim) of images (b, 3, h, w)."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.pool(x)


class ResNetCifar(PiecewiseResNet):
    """Four stages of residual blocks (widths 16, 32, 64, 64).

    Features can be negative: no ReLU follows the last addition.
    """

    WIDTHS = (16, 32, 64, 64)
    STRIDES = (1, 2, 2, 1)  # of the first block of each stage: the map shrinks where it gets wider

    def __init__(self, blocks: tuple[int, int, int, int]) -> None:
        stem = Stem(self.WIDTHS[0])  # first: the weights are drawn in the order of the layers
        layers: list[nn.Module] = []
        channels = self.WIDTHS[0]
        for width, count in zip(self.WIDTHS, blocks, strict=True):
            for _ in range(count):
                layers.append(ResidualBlock(channels, width))
                channels = width
        super().__init__(stem, layers, channels)

    def _initialise(self) -> None:
        """Draw convolutions by Kaiming normal (fan out). A block's second gamma starts at 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, ResidualBlock):
                nn.init.zeros_(module.bn2.weight)


def resnet32() -> ResNetCifar:
    """R-DFCIL's ResNet-32 for small images: 31 convolutions, 15 residual blocks, 64 features.

    It has 463,504 parameters.
    """
    return ResNetCifar(BLOCKS["resnet32"])


def resnet20() -> ResNetCifar:
    """R-DFCIL's network with 9 residual blocks (19 convolutions): half the time.

    It is meant for quick studies.
    """
    return ResNetCifar(BLOCKS["resnet20"])


def outline(args: SimpleNamespace) -> ResNetOutline:
    """Return what is known of the network that ``args.backbone`` names before it is built."""
    stages = zip(ResNetCifar.WIDTHS, BLOCKS[args.backbone], ResNetCifar.STRIDES, strict=True)
    return ResNetOutline.of_stages(args.backbone, list(stages))
