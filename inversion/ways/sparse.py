"""Sparse model inversion (SMI), on ever fewer patches.

The patches to which the class token attends least are no longer inverted, and the network runs on
the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pmi_cl.inversion.networks.operations import operations
from pmi_cl.inversion.networks.protocol import InvertibleNetwork
from pmi_cl.machine.state_fields import tensor_field, whole_field


@dataclass(frozen=True)
class PruningConfig:
    """When patches are dropped, and how many. The defaults are those of SMI (ICML 2024), 23 % stay.

    Attributes:
        at: the steps before which patches are dropped.
        share: of the patches that are left, dropped each time.
    """

    at: tuple[int, ...] = (50, 100, 200, 300)
    share: float = 0.3


def pruning_of(steps: int) -> PruningConfig:
    """Return the prunings of SMI, scaled from its 4,000 steps to ``steps`` (5 or more)."""
    own = PruningConfig()
    return PruningConfig(
        tuple(max(round(at * steps / 4000), number) for number, at in enumerate(own.at, start=1)), own.share
    )


def patches_left(patches: int, config: PruningConfig) -> list[int]:
    """Return how many patches are left after each pruning.

    Numbers are truncated, as in SMI's code: of 196 patches 137, 95, 66 and 46 stay.
    """
    counts = []
    for _ in config.at:
        patches = max(int(patches * (1 - config.share)), 1)
        counts.append(patches)
    return counts


class Pruning:
    """Which patches of one batch are still inverted.

    The others keep the values that they had when they were dropped. The network no longer sees
    them.

    Attributes:
        kept: (b, k), the numbers of the patches that are left, ascending; None: all.
        frozen: (b, c, h, w), the images at the last pruning; None before the first.
        patches: how many there were at first.
        done: how many prunings there have been.
        cost: of the last step, in full-model steps: of the pass over what was left and, where
            patches were dropped, of the pass that decided which.
        passes: forward passes of the last step.
    """

    def __init__(self, network: InvertibleNetwork, config: PruningConfig, context: Tensor | None = None) -> None:
        self.network, self.config, self.context = network, config, context
        self._operations: dict[int, int] = {}  # of a step of one sample, by the patches that are left; 0: all
        self._reset()

    def _reset(self) -> None:
        self.kept: Tensor | None = None
        self.frozen: Tensor | None = None
        self.patches, self.done = 0, 0
        self.cost, self.passes = 1.0, 1

    def at(self, images: Tensor, step: int) -> Tensor:
        """Return what is optimised (b, c, h, w) with the patches that were dropped held constant.

        Drop patches if it is time to. Step 0 starts anew with all patches.
        """
        if step == 0:
            self._reset()
        images = self.composed(images)
        self.cost, self.passes = 0.0, 1
        if self.done < len(self.config.at) and step == self.config.at[self.done]:
            self.cost += self._prune(images.detach()) / self._step_operations(images, None)
            self.passes += 1
            images = self.composed(images)
        self.cost += self._step_operations(images, self.kept) / self._step_operations(images, None)
        return images

    def composed(self, images: Tensor) -> Tensor:
        """Return ``images`` (b, c, h, w) with each dropped patch as it was when it was dropped."""
        if self.kept is None or self.frozen is None:
            return images
        side = math.isqrt(self.patches)
        mask = torch.zeros(len(images), self.patches, device=images.device).scatter_(1, self.kept, 1.0)
        mask = F.interpolate(mask.view(-1, 1, side, side), size=images.shape[-2:], mode="nearest")
        return torch.where(mask.bool(), images, self.frozen)

    def _prune(self, images: Tensor) -> int:
        """Drop patches. Return the operations, of one sample, of the pass that decided which."""
        shares = self.network.class_attention(images, self.context, self.kept)
        spent = operations(
            lambda: self.network.class_attention(images[:1], self._one(self.context), self._one(self.kept))
        )
        if self.kept is None:
            self.patches = shares.shape[1]
            self.kept = torch.arange(self.patches, device=images.device).expand(len(images), -1)
        left = patches_left(self.patches, self.config)[self.done]
        rows = shares.topk(left, dim=1).indices.sort(dim=1).values
        self.kept, self.frozen, self.done = self.kept.gather(1, rows), images.clone(), self.done + 1
        return spent

    def _step_operations(self, images: Tensor, kept: Tensor | None) -> int:
        """Count the operations of the forward and backward pass of one sample over ``kept``."""
        left = 0 if kept is None else kept.shape[1]
        if left not in self._operations:
            value = torch.zeros_like(images[:1]).requires_grad_()

            def step() -> None:
                features, _ = self.network(value, self._one(self.context), self._one(kept))
                features.sum().backward()

            self._operations[left] = operations(step)
        return self._operations[left]

    @staticmethod
    def _one(rows: Tensor | None) -> Tensor | None:
        """Return the row (1, ...) of the first sample, if there are rows."""
        return None if rows is None else rows[:1]

    def state(self) -> dict[str, Any]:
        """Return plain data for a checkpoint."""
        return {"kept": self.kept, "frozen": self.frozen, "patches": self.patches, "done": self.done}

    def load(self, state: dict[str, Any], device: torch.device) -> None:
        """Go on where :meth:`state` was taken."""
        kept, frozen = state["kept"], state["frozen"]
        self.kept = None if kept is None else tensor_field(kept, None, None, floating=False).to(device)
        self.frozen = None if frozen is None else tensor_field(frozen, None, None, None, None).to(device)
        self.patches, self.done = whole_field(state["patches"]), whole_field(state["done"], high=len(self.config.at))
