"""The inversion loop as it is commonly written: the engine's objective, none of its savings.

The engine is measured against it.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.backbones.resnet_cifar import ResNetCifar

VARIANCE_FLOOR = 1e-8


class _BatchNormHook:
    """Keeps KL(batch || running), mean over channels, of a BatchNorm's input."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        self.kl = torch.zeros(())
        norm.register_forward_pre_hook(self._compare)

    def _compare(self, norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        values: Tensor = inputs[0]
        mean, var = values.mean(dim=(0, 2, 3)), values.var(dim=(0, 2, 3), unbiased=False) + VARIANCE_FLOOR
        assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
        real_var = norm.running_var.clamp_min(VARIANCE_FLOOR)
        self.kl = 0.5 * (real_var.log() - var.log() - 1 + (var + (mean - norm.running_mean) ** 2) / real_var).mean()


class NaiveInversion:
    """Adam on the images through the plain network.

    It has Python hooks on every BatchNorm, keeps weight gradients, and runs in float32 and NCHW,
    not compiled. The objective is MSE(features, targets) + alpha x the sum of the KLs, as in the
    engine's ``FeatureMatch(1), StatisticsMatch(alpha)``.

    Attributes:
        images: what is optimised (b, 3, h, w).
    """

    def __init__(
        self, network: ResNetCifar, start: Tensor, targets: Tensor, *, lr: float, alpha: float, beta2: float = 0.999
    ) -> None:
        """Copy the network and begin at ``start``.

        Args:
            network: its type of number decides the precision (``network.double()``
                gives exact gradients).
            start: the first images.
            targets: (b, d).
        """
        self.network = copy.deepcopy(network).to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
        self._hooks = [
            _BatchNormHook(module) for module in self.network.modules() if isinstance(module, nn.BatchNorm2d)
        ]
        self._targets, self._alpha = targets, alpha
        self.images = start.contiguous(memory_format=torch.contiguous_format).clone().requires_grad_()
        self._optimizer = torch.optim.Adam([self.images], lr=lr, betas=(0.9, beta2))

    def loss(self) -> Tensor:
        """Return the objective at the images as they are: a scalar."""
        features = self.network.features(self.images)
        return F.mse_loss(features, self._targets) + self._alpha * torch.stack([hook.kl for hook in self._hooks]).sum()

    def step(self) -> Tensor:
        """Take one step of Adam. Return the loss before it."""
        self._optimizer.zero_grad()
        self.network.zero_grad()
        loss = self.loss()
        loss.backward()
        self._optimizer.step()
        return loss.detach()

    def gradient(self) -> Tensor:
        """Return the gradient of the loss with respect to the images, without a step."""
        return torch.autograd.grad(self.loss(), self.images)[0]
