"""Which images a run uses: those of its classes, less a held-out part, and at most so many of each class."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pmi_cl.datasets.placement import GatheredImages, placed
from pmi_cl.errors import UserError
from pmi_cl.seeding import seeded

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels, as a data set loads them.

    Attributes:
        images: uint8 (n, c, h, w), on the CPU.
        labels: int64 (n,), the data set's own class ids.
    """

    images: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class PlacedSplit:
    """The images of a run, where :func:`pmi_cl.datasets.placement.placed` has put them.

    Attributes:
        images: uint8 (n, c, h, w), on the run's device or, where they are too many, on the CPU.
        labels: int64 (n,), on the run's device; label k is the k-th class of the class order.
    """

    images: Tensor | GatheredImages
    labels: Tensor

    @property
    def place(self) -> torch.device:
        """Return the device on which rows are looked up without waiting."""
        return self.images.device

    @property
    def channels(self) -> int:
        """Return the number of channels of the images."""
        return int(self.images.shape[1])

    def pixels(self, rows: Tensor) -> Tensor:
        """The images at ``rows`` (int64, on any device): uint8 (b, c, h, w) on the run's device."""
        return self.images[rows.to(self.images.device)].to(self.labels.device, non_blocking=True)


def pick(split: Split, rows: Tensor, order: Sequence[int], device: torch.device) -> PlacedSplit:
    """The images at ``rows``, on the device if they fit, each class id replaced by its place in ``order``."""
    import torch

    place = torch.zeros(max(order) + 1, dtype=torch.int64)
    place[torch.tensor(order)] = torch.arange(len(order))
    return PlacedSplit(placed(split.images, rows, device), place[split.labels[rows]].to(device))


def rows_of(labels: Tensor, classes: Iterable[int]) -> Tensor:
    """The rows whose label is one of ``classes``, ascending."""
    import torch

    return torch.isin(labels, torch.tensor(list(classes))).nonzero().squeeze(1)


def hold_out(labels: Tensor, classes: Iterable[int], fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Splits the rows of ``classes`` into (kept, held out): of each class the fraction, rounded up, is drawn at random.

    The draw depends on the seed and the class alone, not on the order or the number of classes.

    Raises:
        UserError: a class would keep no image.
    """
    import torch

    kept, held = [], []
    for label in classes:
        rows = (labels == label).nonzero().squeeze(1)
        count = math.ceil(round(fraction * len(rows), 9))  # rounded first: 0.07 * 100 is a little more than 7
        if count and count == len(rows):
            amount, advice = (
                ("the only training image", "say --validation 0")
                if count == 1
                else (f"all {count} training images", "give less")
            )
            raise UserError(f"--validation {fraction:g} would hold out {amount} of a class: {advice}")
        shuffled = rows[torch.randperm(len(rows), generator=seeded(seed, "validation", label))]
        held.append(shuffled[:count])
        kept.append(shuffled[count:])
    return torch.cat(kept).sort().values, torch.cat(held).sort().values


def first_of_each(labels: Tensor, rows: Tensor, count: int) -> Tensor:
    """The first ``count`` of the ascending ``rows`` of each class, ascending."""
    import torch

    kept = [rows[labels[rows] == label][:count] for label in labels[rows].unique().tolist()]
    return torch.cat(kept).sort().values


def evenly_spread(count: int, fraction: float) -> list[int]:
    """The places of the test images among ``count`` images of a class: evenly spread, at least one, never all.

    No seed is involved, so every run tests on the same images. One fifth of ten: places 4 and 9.
    """
    chosen = min(max(round(fraction * count), 1), count - 1)
    return [(k + 1) * count // chosen - 1 for k in range(chosen)]
