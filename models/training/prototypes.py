"""Compute what PASS trains on: rotated images, class means, and noise around them.

The method is Zhu et al., CVPR 2021.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

ROTATIONS = 4  # by 0, 90, 180 and 270 degrees


def rotated(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return every image in four rotations, and a label for each pair of class and rotation.

    Args:
        images: (b, c, h, h), square.
        labels: (b,).

    Returns:
        Images (4 b, c, h, h), all of one rotation together, and labels (4 b,): 4 y + k for class y
        turned by k quarters. The labels 4 y are those of the images as they are.
    """
    turned = torch.cat([torch.rot90(images, quarter, (2, 3)) for quarter in range(ROTATIONS)])
    wanted = torch.cat([ROTATIONS * labels + quarter for quarter in range(ROTATIONS)])
    return turned.contiguous(memory_format=torch.channels_last), wanted


def class_means(features: Tensor, labels: Tensor, first: int, classes: int) -> Tensor:
    """Return the mean (classes, d) of the features (n, d) of each class from label ``first``.

    Every class has a feature. ``labels`` are (n,), global.
    """
    return torch.stack([features[labels == first + number].mean(0) for number in range(classes)])


def noise_radius(features: Tensor, labels: Tensor) -> Tensor:
    """Return r, the deviation of a feature from its class mean, in one dimension.

    r^2 is the trace of the covariance (unbiased) of a class over d, averaged over the classes. A
    class with one feature has no covariance and is left out; without any other, r is 0.

    Args:
        features: (n, d).
        labels: (n,).
    """
    variances = []
    for label in labels.unique():
        rows = features[labels == label]
        if len(rows) > 1:
            variances.append(rows.var(0).mean())
    return torch.stack(variances).mean().sqrt() if variances else features.new_zeros(())


def draw_around(means: Tensor, radius: Tensor, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return features drawn around the means of classes that are drawn at random.

    Args:
        means: (classes, d).
        radius: the deviation of the normal noise that is added in every dimension.
        n: the number of features.
        generator: a CPU generator.

    Returns:
        Features (n, d) and their classes (n,).
    """
    classes = torch.randint(len(means), (n,), generator=generator)
    noise = torch.randn(n, means.shape[1], generator=generator)
    classes = classes.to(means.device, non_blocking=True)
    return means[classes] + radius * noise.to(means.device, non_blocking=True), classes
