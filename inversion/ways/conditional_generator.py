"""A generator of images of given classes, and the critic that it is trained against (DCMI)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.inversion.ways.generator import doublings_of, upsampling_layers


class ConditionalGenerator(nn.Module):
    """Map noise (b, 100) and shares of classes (b, classes) to normalised images (b, 3, h, w).

    The embeddings of the classes are mixed in the shares, and the mixture is scaled to length 1.
    Noise and mixture are concatenated. They go through a linear layer to 256 maps, then through
    :func:`pmi_cl.inversion.ways.generator.upsampling_layers`. The maps are doubled twice, as in the
    original at 32 and at 64 pixels (:func:`doublings_of_maps` says when not).
    """

    NOISE: ClassVar[int] = 100
    EMBEDDING: ClassVar[int] = 100
    WIDTH: ClassVar[int] = 256

    def __init__(self, n_classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        doublings = doublings_of_maps(size)
        self.small = (size[0] // 2**doublings, size[1] // 2**doublings)
        self.embedding = nn.Embedding(n_classes, self.EMBEDDING)
        self.linear = nn.Linear(self.NOISE + self.EMBEDDING, self.WIDTH * math.prod(self.small))
        self.layers = upsampling_layers(self.WIDTH, doublings)

    def forward(self, z: Tensor, shares: Tensor) -> Tensor:
        """Return images (b, 3, h, w) of noise (b, 100) and shares (b, classes)."""
        mixture = F.normalize(shares @ self.embedding.weight, dim=1)
        maps = self.linear(torch.cat([z, mixture], dim=1)).view(len(z), self.WIDTH, *self.small)
        return self.layers(maps.contiguous(memory_format=torch.channels_last))


def doublings_of_maps(size: tuple[int, int]) -> int:
    """Return how often the first maps of DCMI's generator double to become an image of that size.

    The original's are a quarter as wide as the image. Where that is less than 8 pixels they double
    less often, and where it is more than 16, more often (ours: its images have 32 and 64 pixels).
    """
    least = max(2, math.ceil(math.log2(max(size) / 16)))
    return min(doublings_of(size), least)


class Critic(nn.Module):
    """Map images (b, 3, h, w) to scores (b,): seven convolutions without norms, LeakyReLU(0.1).

    With ``width`` 64 they have 64, 128, 128, 256, 256, 512 and 512 channels. Every second one
    halves the map. The last linear layer has a weight for each pixel of the last map.
    """

    def __init__(self, size: tuple[int, int], width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for number, factor in enumerate((1, 2, 2, 4, 4, 8, 8)):
            side, stride = (4, 2) if number % 2 else (3, 1)
            layers += [nn.Conv2d(channels, factor * width, side, stride, padding=1), nn.LeakyReLU(0.1)]
            channels = factor * width
        self.layers = nn.Sequential(*layers)
        self.score = nn.Linear(channels * (size[0] // 8) * (size[1] // 8), 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores (b,) of images (b, 3, h, w)."""
        return self.score(self.layers(images).flatten(1)).squeeze(1)


def class_profiles(features: Tensor, prototypes: Tensor, gamma: float) -> Tensor:
    """Return log softmax(gamma x cosine to each prototype), (b, classes), of features (b, d).

    Args:
        features: (b, d).
        prototypes: (classes, d).
        gamma: the inverse temperature.
    """
    return (gamma * F.normalize(features, dim=1) @ F.normalize(prototypes, dim=1).t()).log_softmax(1)


def alignment_loss(features: Tensor, labels: Tensor, prototypes: Tensor, gamma: float) -> Tensor:
    """Return the cross-entropy of the profiles of features (b, d) under those of their prototypes.

    ``labels`` (b,) say which prototype (classes, d) is that of each feature.
    """
    wanted = class_profiles(prototypes[labels], prototypes, gamma).exp()
    return -(wanted * class_profiles(features, prototypes, gamma)).sum(1).mean()


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, parts: Tensor) -> Tensor:
    """Return the mean of (length of the critic's gradient - 1)^2 between real and fake images.

    It can be differentiated (WGAN-GP, Gulrajani et al., NeurIPS 2017).

    Args:
        critic: maps images (b, c, h, w) to scores (b,).
        real, fake: (b, c, h, w).
        parts: (b,), from 0 to 1: how much of the real image there is in the point between.
    """
    parts = parts.view(-1, 1, 1, 1)
    between = (parts * real + (1 - parts) * fake).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def critic_loss(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, parts: Tensor, penalty: float = 10.0
) -> Tensor:
    """Return what the critic of a Wasserstein GAN minimises: a scalar.

    It is the mean score of fake images, minus that of real ones, plus ``penalty`` x
    :func:`gradient_penalty`, whose ``parts`` these are.
    """
    return critic(fake).mean() - critic(real).mean() + penalty * gradient_penalty(critic, real, fake, parts)
