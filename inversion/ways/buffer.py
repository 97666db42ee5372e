"""The synthetic samples that a task replays: images, labels and the logits of the teacher."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pmi_cl.machine.state_fields import tensor_field

OPTIONAL = {"contexts", "kept"}


class RowsByClass:
    """Know where the samples of each class are, and draw samples of all classes alike.

    Attributes:
        order: (n,), the row numbers sorted by class. Those of a class ascend.
        first: (classes,), where each class starts in ``order``.
        counts: (classes,), how many rows each class has.
    """

    def __init__(self, labels: Tensor) -> None:
        self._device, labels = labels.device, labels.cpu()  # draws are made on the CPU
        self.order = labels.argsort(stable=True)
        self.counts = labels[self.order].unique_consecutive(return_counts=True)[1]
        self.first = self.counts.cumsum(0) - self.counts

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw row numbers (n,) with replacement, every class equally often to within one.

        Which classes come once more, and which row of a class is taken, is drawn from
        ``generator`` (on the CPU).
        """
        rounds = -(-n // len(self.counts))
        shares = torch.cat([torch.randperm(len(self.counts), generator=generator) for _ in range(rounds)])[:n]
        within = (torch.rand(n, generator=generator) * self.counts[shares]).long()
        return self.order[self.first[shares] + within].to(self._device, non_blocking=True)


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
    def _by_class(self) -> RowsByClass:
        return RowsByClass(self.labels)

    def part(self, rows: Tensor) -> SyntheticBuffer:
        """Return the samples with these row numbers (b,), as they are stored."""
        own = (self.images, self.labels, self.logits, self.contexts, self.kept)
        return SyntheticBuffer(*(value if value is None else value[rows] for value in own))  # type: ignore[arg-type]

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draw ``n`` samples with replacement, as :meth:`rows`: (images, labels, logits)."""
        rows = self.rows(n, generator)
        return self.images[rows].float(), self.labels[rows], self.logits[rows]

    def rows(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw the row numbers (n,) of samples. See :meth:`RowsByClass.draw`."""
        return self._by_class.draw(n, generator)

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
