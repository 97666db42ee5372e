"""A generator that inverts a network without optimising images (ABD, R-DFCIL)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.inversion.networks.protocol import InvertibleNetwork


class Generator(nn.Module):
    """Map noise (b, 1000) to images (b, 3, h, w) in normalised pixel space.

    Each channel has zero mean and unit variance. The layers are: linear to 128 maps of at least
    8 x 8, BatchNorm; then nearest x2, conv3x3, BatchNorm, LeakyReLU(0.2) until the size is reached;
    conv3x3 to 3, Tanh, BatchNorm without affine. There are 8.42 million parameters at 32 x 32. The
    inner BatchNorms have eps 0.8, as in the original, which passes it where the momentum was meant.
    """

    NOISE: ClassVar[int] = 1000
    WIDTH: ClassVar[int] = 128
    EPS: ClassVar[float] = 0.8

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        doublings = doublings_of(size)
        self.small = (size[0] // 2**doublings, size[1] // 2**doublings)
        self.linear = nn.Linear(self.NOISE, self.WIDTH * math.prod(self.small))
        self.layers = upsampling_layers(self.WIDTH, doublings, self.EPS, self.WIDTH)

    def forward(self, z: Tensor) -> Tensor:
        """Map noise (b, 1000) to images (b, 3, h, w)."""
        maps = self.linear(z).view(len(z), self.WIDTH, *self.small)
        return self.layers(maps.contiguous(memory_format=torch.channels_last))


def doublings_of(size: tuple[int, int]) -> int:
    """Return how often a map of at least 8 x 8 has to double to become an image of that size."""
    doublings = 0
    while all(side % 2 ** (doublings + 1) == 0 and side // 2 ** (doublings + 1) >= 8 for side in size):
        doublings += 1
    return doublings


def upsampling_layers(width: int, doublings: int, eps: float = 1e-5, wide: int = 128) -> nn.Sequential:
    """Return the layers that turn maps (b, width, h, w) into images (b, 3, H, W).

    They are BatchNorm; then nearest x2, conv3x3, BatchNorm with ``eps``, LeakyReLU(0.2) for each
    doubling, with ``wide`` channels, and half of them after the last; conv3x3 to 3, Tanh, BatchNorm
    without affine.
    """
    layers: list[nn.Module] = [nn.BatchNorm2d(width)]
    for number in range(doublings):
        channels = wide // 2 if number == doublings - 1 else wide
        layers += [
            nn.Upsample(scale_factor=2),
            nn.Conv2d(width, channels, 3, padding=1),
            nn.BatchNorm2d(channels, eps),
            nn.LeakyReLU(0.2),
        ]
        width = channels
    layers += [nn.Conv2d(width, 3, 3, padding=1), nn.Tanh(), nn.BatchNorm2d(3, affine=False)]
    return nn.Sequential(*layers)


@dataclass(frozen=True)
class GeneratorWeights:
    """The weights of :func:`generator_loss`; cross-entropy and diversity have weight 1.

    Attributes:
        temperature: of the cross-entropy.
        smoothness: weight of the distance to the filtered images.
        statistics: weight of the KLs.
    """

    temperature: float = 1000.0
    smoothness: float = 1e-3
    statistics: float = 50.0


def generator_loss(network: InvertibleNetwork, images: Tensor, weights: GeneratorWeights) -> Tensor:
    """Return the loss of generated images: a scalar.

    It asks for images that are confident (cross-entropy of the class that the network itself
    chooses), diverse and smooth, and that have the stored statistics.

    Args:
        network: with a classifier. It compares statistics in the direction that it was built with:
            R-DFCIL takes KL(real || synthetic), averaged over layers.
        images: (b, 3, h, w).
        weights: of the terms.
    """
    features, kls = network(images)
    assert network.head is not None
    logits = network.head(features)
    confident = F.cross_entropy(logits / weights.temperature, logits.argmax(1))
    smooth = weights.smoothness * F.mse_loss(images, smoothed(images))
    images_alone = confident + diversity(logits) + smooth
    return images_alone + weights.statistics * torch.stack(kls).mean() if kls else images_alone


def diversity(logits: Tensor) -> Tensor:
    """Return 1 + sum_c p_c log p_c / log C for the batch-mean probabilities p: a scalar.

    It is 0 where all classes are equally frequent, and 1 where there is only one.
    """
    mean = logits.softmax(1).mean(0)
    classes = max(logits.shape[1], 2)  # one class alone: log 1 would divide by zero
    return 1 + (mean * mean.clamp_min(1e-12).log()).sum() / math.log(classes)


def smoothed(images: Tensor) -> Tensor:
    """Filter images (b, c, h, w) by a 5x5 Gaussian of sigma sqrt(2), mirrored at the border.

    (The original has the formula exp(-(d/2s)^2) with s = 1.)
    """
    taps = torch.exp(-((torch.arange(5, device=images.device) - 2.0) ** 2) / 4)
    taps = (taps / taps.sum()).to(images.dtype)
    channels = images.shape[1]
    padded = F.pad(images, (2, 2, 2, 2), mode="reflect")
    rows = F.conv2d(padded, taps.view(1, 1, 5, 1).expand(channels, 1, 5, 1), groups=channels)
    return F.conv2d(rows, taps.view(1, 1, 1, 5).expand(channels, 1, 1, 5), groups=channels)
