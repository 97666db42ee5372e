"""Put the images of several data sets behind one row of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pmi_cl.datasets.selection import PlacedSplit
from pmi_cl.datasets.task_split import TaskSplit

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class DomainImages(PlacedSplit):
    """The splits of several data sets, one after the other.

    Attributes:
        parts: the split of each data set, labels from 0.
        labels: int64 (n,), of all parts. Those of a later part follow on those before it.
    """

    parts: tuple[PlacedSplit, ...] = ()

    @classmethod
    def joined(cls, parts: Sequence[PlacedSplit], classes: TaskSplit) -> DomainImages:
        """Join splits. ``classes`` says how many classes each has."""
        import torch

        labels = [part.labels + classes.past(number) for number, part in enumerate(parts)]
        return cls(parts[0].images, torch.cat(labels), tuple(parts))

    @property
    def place(self) -> torch.device:
        """Return the CPU: the rows are distributed over the parts there."""
        import torch

        return torch.device("cpu")

    def by_domain(self, rows: Tensor) -> list[tuple[int, Tensor, Tensor]]:
        """Distribute rows (b,) over the parts.

        Return (number of the part, places in the batch, rows of the part) of each part that has
        some.
        """
        rows = rows.to(self.place)
        ends = TaskSplit(tuple(len(part.labels) for part in self.parts))
        owners = ends.tasks_of(rows)
        places = [(number, (owners == number).nonzero().squeeze(1)) for number in owners.unique().tolist()]
        return [(number, place, rows[place] - ends.past(number)) for number, place in places]

    def pixels(self, rows: Tensor) -> Tensor:
        """Return the images at ``rows``, which must be of one part: uint8 (b, c, h, w)."""
        ((number, _, local),) = self.by_domain(rows)
        return self.parts[number].pixels(local)
