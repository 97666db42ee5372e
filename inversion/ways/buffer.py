"""The synthetic samples that a task replays: images, labels and the logits of the teacher."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pmi_cl.machine.state_fields import tensor_field

OPTIONAL = {"contexts", "kept"}


@dataclass(frozen=True)
class SyntheticBuffer:
    """Synthetic samples in the space they are replayed in.

    Attributes:
        images: (n, c, h, w), float, normalised; of a CLIP the maps of the patch convolution.
        labels: (n,), int64.
        logits: (n, old classes), those of the teacher, float32.
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
        """Return row numbers sorted by class, where each class starts, and how many rows it has.

        They are on the CPU, where draws are made.
        """
        labels = self.labels.cpu()
        order = labels.argsort(stable=True)
        counts = labels[order].unique_consecutive(return_counts=True)[1]
        return order, counts.cumsum(0) - counts, counts

    def part(self, rows: Tensor) -> SyntheticBuffer:
        """Return the samples with these row numbers (b,), as they are stored."""
        own = (self.images, self.labels, self.logits, self.contexts, self.kept)
        return SyntheticBuffer(*(value if value is None else value[rows] for value in own))  # type: ignore[arg-type]

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draw ``n`` samples with replacement, as :meth:`rows`: (images, labels, logits)."""
        rows = self.rows(n, generator)
        return self.images[rows].float(), self.labels[rows], self.logits[rows]

    def rows(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw the row numbers (n,) of samples, every class equally often to within one.

        Which classes come once more, and which image of a class is taken, is drawn from
        ``generator`` (on the CPU).
        """
        order, first, counts = self._by_class
        rounds = -(-n // len(counts))
        shares = torch.cat([torch.randperm(len(counts), generator=generator) for _ in range(rounds)])[:n]
        within = (torch.rand(n, generator=generator) * counts[shares]).long()
        return order[first[shares] + within].to(self.labels.device, non_blocking=True)

    def state(self) -> dict[str, Any]:
        """Return plain data for a checkpoint."""
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
        """Return the buffer that :meth:`state` describes."""
        n = len(tensor_field(state["labels"], None, floating=False))
        shapes: dict[str, tuple[Any, ...]] = {"images": (n, ...), "logits": (n, None), "contexts": (n, None)}
        for name in shapes.keys() & state.keys():
            tensor_field(state[name], *shapes[name])
        if "kept" in state:
            tensor_field(state["kept"], n, None, floating=False)
        return cls(
            **{name: state[name].to(device) for name in ("images", "labels", "logits", *(OPTIONAL & state.keys()))}
        )
