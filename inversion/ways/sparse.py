"""Sparse model inversion (SMI): the patches that the class token looks at least stop being inverted, and the network runs on the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pmi_cl.inversion.engine.cost import operations
from pmi_cl.inversion.networks.token_network import Invertible, TokenNetwork

if TYPE_CHECKING:
    from pmi_cl.inversion.config import InversionConfig


@dataclass(frozen=True)
class PruningConfig:
    """Before each of the steps ``at``, ``share`` of the patches that are left are dropped: SMI's, which keeps 24 % (ICML 2024)."""

    at: tuple[int, ...] = (50, 100, 200, 300)
    share: float = 0.3


def pruning_of(steps: int) -> PruningConfig:
    """SMI's prunings, which are those of 4,000 steps, at the same parts of ``steps`` (5 or more)."""
    own = PruningConfig()
    return PruningConfig(
        tuple(max(round(at * steps / 4000), number) for number, at in enumerate(own.at, start=1)), own.share
    )


def patches_left(patches: int, config: PruningConfig) -> list[int]:
    """How many patches each pruning leaves, one number for each."""
    counts = []
    for _ in config.at:
        patches = max(round(patches * (1 - config.share)), 1)
        counts.append(patches)
    return counts


def check_pruning(network: Invertible, config: InversionConfig) -> None:
    """Raises ValueError where patches cannot be dropped: says why."""
    if not isinstance(network, TokenNetwork):
        raise ValueError("only a TokenNetwork has patches to drop")
    if network.axis == "token" and network.taps:
        raise ValueError("statistics by position need all patches: measure them by channel")
    if config.transforms.roll or config.transforms.flip:
        raise ValueError("patches that are dropped must stay where they are: no roll, no flip")
    if config.keep_best:
        raise ValueError("losses before and after patches are dropped do not compare: keep_best is not possible")


class Pruning:
    """Which patches of one batch are still inverted.

    The others keep the values that they had when they were dropped; the network does not see them any more.

    Attributes:
        kept: (b, k), the numbers of the patches that are left, ascending; None: all.
        done: prunings so far.
        cost: of the last step, in full-model steps: of the pass over what was left and, where it pruned, of the pass that decided.
        passes: forward passes of the last step.
    """

    def __init__(self, network: TokenNetwork, config: PruningConfig, context: Tensor | None = None) -> None:
        self.network, self.config, self.context = network, config, context
        self._operations: dict[int, int] = {}  # of one sample's step, by the patches that are left; 0: all
        self._reset()

    def _reset(self) -> None:
        self.kept: Tensor | None = None
        self.frozen: Tensor | None = None
        self.patches, self.done = 0, 0
        self.cost, self.passes = 1.0, 1

    def at(self, images: Tensor, step: int) -> Tensor:
        """What is optimised (b, c, h, w) as step ``step`` (from 0) takes it: patches that were dropped are constant.

        Step 0 starts anew with all patches.
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
        """The patches that are left of ``images`` (b, c, h, w), the others as they were when they were dropped."""
        if self.kept is None or self.frozen is None:
            return images
        side = math.isqrt(self.patches)
        mask = torch.zeros(len(images), self.patches, device=images.device).scatter_(1, self.kept, 1.0)
        mask = F.interpolate(mask.view(-1, 1, side, side), size=images.shape[-2:], mode="nearest")
        return torch.where(mask.bool(), images, self.frozen)

    def _prune(self, images: Tensor) -> int:
        """Drop patches; returns the operations, of one sample, of the pass that decided which."""
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
        """Of one sample's forward and backward pass over its patches ``kept``."""
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
        """The first sample's row (1, ...) of ``rows``, if there are any."""
        return None if rows is None else rows[:1]

    def state(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {"kept": self.kept, "frozen": self.frozen, "patches": self.patches, "done": self.done}

    def load(self, state: dict[str, Any], device: torch.device) -> None:
        """Go on where :meth:`state` was taken."""
        self.kept = None if state["kept"] is None else state["kept"].to(device)
        self.frozen = None if state["frozen"] is None else state["frozen"].to(device)
        self.patches, self.done = state["patches"], state["done"]
