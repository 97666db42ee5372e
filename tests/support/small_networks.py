"""Networks for the engine's tests.

Tiny ones, randomised ones, one trained for seconds on digits.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.backbones.resnet_cifar import ResNetCifar, resnet20
from pmi_cl.inversion.features.gaussians import ClassGaussians, fit_gaussians
from pmi_cl.inversion.features.statistics import Moments
from pmi_cl.inversion.networks.pieces import measure_input_moments
from pmi_cl.seeding import seeded


def randomise_norms(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every BatchNorm different statistics, scales and shifts, as after training.

    Return the model in evaluation mode.
    """
    generator = seeded(seed, "norms")
    with torch.no_grad():
        for norm in [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]:
            if norm.running_mean is not None and norm.running_var is not None:
                norm.running_mean.normal_(0, 0.3, generator=generator)
                norm.running_var.uniform_(0.3, 1.5, generator=generator)
            if norm.affine:
                norm.weight.uniform_(0.4, 1.2, generator=generator)
                norm.bias.normal_(0, 0.3, generator=generator)
    return model.eval()


def two_blocks(seed: int = 0) -> ResNetCifar:
    """Return the smallest network with all kinds of pieces, randomised, with three classes."""
    torch.manual_seed(seed)
    network = ResNetCifar((1, 1, 0, 0))
    network.head.grow(3)
    return randomise_norms(network, seed)  # type: ignore[return-value]


@dataclass(frozen=True)
class Trained:
    """A ResNet-20 that knows the digits 0 to 4, what the engine may keep of its data, and the data.

    Attributes:
        moments: of the input of every piece.
        images: (n, 3, 8, 8), normalised.
        labels: (n,).
    """

    network: ResNetCifar
    gaussians: ClassGaussians
    moments: list[Moments]
    images: Tensor
    labels: Tensor


def digits() -> tuple[Tensor, Tensor]:
    """Return the digits 0 to 4 of scikit-learn: normalised images (901, 3, 8, 8) and labels."""
    from sklearn.datasets import load_digits

    data = load_digits(n_class=5)
    images = torch.from_numpy(data.images).float()[:, None].expand(-1, 3, -1, -1)
    return ((images - images.mean()) / images.std()).contiguous(), torch.from_numpy(data.target).long()


@functools.cache
def trained_on_digits() -> Trained:
    """Train once in a process. Take a ``copy.deepcopy`` of the network to change it."""
    torch.manual_seed(0)
    images, labels = digits()
    network = resnet20()
    network.head.grow(5)
    epochs, batch = 4, 64
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, epochs * (len(images) // batch))
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=seeded(0, "epoch", epoch))
        for rows in order[: len(images) // batch * batch].view(-1, batch):
            loss = F.cross_entropy(network(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval().requires_grad_(False)
    moments = measure_input_moments(network.pieces(), images.split(300))
    return Trained(network, fit_gaussians(network.features(images), labels, 5), moments, images, labels)
