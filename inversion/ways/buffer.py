"""The synthetic samples of a task: images, labels and the teacher's logits, drawn from in equal shares of the classes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

OPTIONAL = {"contexts", "kept"}


@dataclass(frozen=True)
class SyntheticBuffer:
    """Synthetic samples in the space they are replayed in.

    Attributes:
        images: (n, c, h, w), float, normalised; on a CLIP the maps of the patch convolution.
        labels: (n,), int64.
        logits: (n, old classes), the teacher's, float32.
        contexts: (n, dq), what goes with each sample into the network, if anything does.
        kept: (n, k), the patches of each sample that were inverted, where not all were.
    """

    images: Tensor
    labels: Tensor
    logits: Tensor
    contexts: Tensor | None = None
    kept: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def _by_class(self) -> tuple[Tensor, Tensor, Tensor]:
        """Row numbers sorted by class, and where each class starts and how many rows it has; on the CPU, where draws are made."""
        labels = self.labels.cpu()
        order = labels.argsort(stable=True)
        counts = labels[order].unique_consecutive(return_counts=True)[1]
        return order, counts.cumsum(0) - counts, counts

    def part(self, rows: Tensor) -> SyntheticBuffer:
        """The samples with these numbers (b,), as they are stored."""
        own = (self.images, self.labels, self.logits, self.contexts, self.kept)
        return SyntheticBuffer(*(value if value is None else value[rows] for value in own))  # type: ignore[arg-type]

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """``n`` samples with replacement, every class equally often to within one: (images, labels, logits)."""
        rows = self.rows(n, generator)
        return self.images[rows].float(), self.labels[rows], self.logits[rows]

    def rows(self, n: int, generator: torch.Generator) -> Tensor:
        """The numbers (n,) of such samples.

        Which classes get one more, and which image stands for a class, is drawn from ``generator`` (on the CPU).
        """
        order, first, counts = self._by_class
        rounds = -(-n // len(counts))
        shares = torch.cat([torch.randperm(len(counts), generator=generator) for _ in range(rounds)])[:n]
        within = (torch.rand(n, generator=generator) * counts[shares]).long()
        return order[first[shares] + within].to(self.labels.device, non_blocking=True)

    def state(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        own = {
            "images": self.images,
            "labels": self.labels,
            "logits": self.logits,
            "contexts": self.contexts,
            "kept": self.kept,
        }
        return {name: value for name, value in own.items() if value is not None}

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device | None = None) -> SyntheticBuffer:
        """The inverse of :meth:`state`."""
        return cls(
            **{name: state[name].to(device) for name in ("images", "labels", "logits", *(OPTIONAL & state.keys()))}
        )
