"""Keep real images of earlier tasks, the exemplars, and choose them by herding (iCaRL, Alg. 4).

Pixels are stored as the data set has them, in 8 bits. Where tasks bring data sets of different
sizes, they are stored in the common size that the network gets.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pmi_cl.datasets.input_form import resized
from pmi_cl.inversion.ways.buffer import RowsByClass
from pmi_cl.machine.state_fields import tensor_field
from pmi_cl.seeding import seeded

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset


def herding(features: Tensor, count: int) -> Tensor:
    """Return the row numbers (count,) whose mean stays closest to the mean of all (iCaRL, Alg. 4).

    Rows are chosen one after the other, without repetition. Each choice minimises the distance of
    the mean of all chosen rows to the mean of all rows. So the first k rows are the best k of this
    greedy search, for every k. It is herding in the sense of Welling (ICML 2009).

    Args:
        features: (n, d) of one class. The paper normalises them to length 1.
        count: at most n.
    """
    mean, chosen_sum = features.mean(0), torch.zeros_like(features[0])
    squares, free = features.square().sum(1), torch.zeros(len(features), device=features.device)
    rows = []
    for k in range(1, count + 1):
        # |k mean - chosen_sum - f|^2 without the part that is the same for all rows f
        cost = squares - 2 * features @ (k * mean - chosen_sum) + free
        row = cost.argmin()
        chosen_sum, free[row] = chosen_sum + features[row], torch.inf
        rows.append(row)
    return torch.stack(rows) if rows else torch.zeros(0, dtype=torch.int64, device=features.device)


@dataclass(frozen=True)
class ExemplarMemory:
    """Hold exemplars. Those of a class come in the order in which they were chosen.

    Attributes:
        images: uint8 (n, c, h, w), on the device of the data set.
        labels: (n,), int64.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def _rows(self) -> RowsByClass:
        return RowsByClass(self.labels)

    @property
    def nbytes(self) -> int:
        """Return the bytes of images and labels."""
        return self.images.nbytes + self.labels.nbytes

    def first_of_each(self, count: int) -> ExemplarMemory:
        """Return the first ``count`` exemplars of each class, all of a class that has fewer."""
        order, first, counts = self._rows.order, self._rows.first, self._rows.counts
        within = torch.arange(len(self)) - first.repeat_interleave(counts)
        kept = order[within < count].sort().values.to(self.labels.device)
        return self.part(kept)

    def without(self, other: ExemplarMemory) -> ExemplarMemory:
        """Return the exemplars that are not among the others."""
        return self.part(~other.contains(self.images))

    def part(self, rows: Tensor) -> ExemplarMemory:
        """Return the exemplars with these row numbers (b,), or where a mask (n,) is true."""
        return ExemplarMemory(self.images[rows], self.labels[rows])

    def joined(self, other: ExemplarMemory) -> ExemplarMemory:
        """Return these exemplars, then the others."""
        return ExemplarMemory(torch.cat([self.images, other.images]), torch.cat([self.labels, other.labels]))

    def draw(self, n: int, generator: torch.Generator) -> ExemplarMemory:
        """Draw ``n`` exemplars with replacement, every class equally often to within one.

        ``generator`` is on the CPU. The images are pixels: the data set's ``augment_pixels`` makes
        them ready for the network.
        """
        return self.part(self._rows.draw(n, generator))

    def contains(self, pixels: Tensor) -> Tensor:
        """Return which of the images uint8 (b, c, h, w) are among the exemplars: bool (b,).

        Images are compared by a 64-bit number each, which is the same only by a rare accident.
        """
        return torch.isin(self._numbers(pixels), self._own_numbers)

    @cached_property
    def _own_numbers(self) -> Tensor:
        return self._numbers(self.images)

    @cached_property
    def _factors(self) -> Tensor:
        size = math.prod(self.images.shape[1:])
        return torch.randint(-(2**62), 2**62, (size,), generator=seeded(0, "numbers of images")).to(self.images.device)

    def _numbers(self, images: Tensor) -> Tensor:
        """Return a number int64 (n,) for each of the images uint8 (n, c, h, w)."""
        return (images.flatten(1).long() * self._factors).sum(1)

    def state(self) -> dict[str, Tensor]:
        """Return plain data for a checkpoint."""
        return {"images": self.images, "labels": self.labels}

    @classmethod
    def from_state(cls, state: Any, dataset: ContinualDataset, n_classes: int) -> ExemplarMemory:
        """Return the memory that :meth:`state` describes.

        Args:
            state: the state.
            dataset: the data set of the run.
            n_classes: the classes that have been seen.

        Raises:
            TypeError, ValueError: it does not hold images of these classes and of this size.
        """
        labels, images = tensor_field(state["labels"], None, floating=False), state["images"]
        if not isinstance(images, Tensor) or images.dtype != torch.uint8:
            raise TypeError("exemplars of 8-bit pixels are expected")
        shape = (len(labels), len(dataset.MEAN), *dataset.SIZE)
        if images.shape != shape:
            raise ValueError(f"exemplars of the shape {shape} are expected, not {tuple(images.shape)}")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < n_classes:
            raise ValueError("the exemplars are not of the classes that were learned")
        return cls(images.to(dataset.device), labels.to(dataset.device))

    @classmethod
    def empty(cls, dataset: ContinualDataset) -> ExemplarMemory:
        """Return a memory without exemplars, for images of a data set."""
        images = torch.zeros(0, len(dataset.MEAN), *dataset.SIZE, dtype=torch.uint8, device=dataset.device)
        return cls(images, torch.zeros(0, dtype=torch.int64, device=dataset.device))


def choose_exemplars(
    dataset: ContinualDataset, task: int, count: int, seed: int, encode: Callable[[Tensor], Tensor] | None = None
) -> ExemplarMemory:
    """Choose ``count`` training images of each class of a task, or all of a class that has fewer.

    Args:
        dataset: it has the task's images.
        task: the task.
        count: exemplars of each class.
        seed: the seed of the run. The random choice of a class depends on it and on the class.
        encode: from normalised images (b, c, h, w) to features (b, d), in evaluation mode. With it
            the choice is herding on features of length 1. None: it is random.
    """
    rows = dataset.train_indices(task)
    labels = dataset.train.labels[rows]
    features = None if encode is None else features_of(dataset, task, encode)
    chosen = []
    for label in labels.unique().tolist():
        own = (labels == label).nonzero().squeeze(1)
        n = min(count, len(own))
        if features is None:
            within = torch.randperm(len(own), generator=seeded(seed, "exemplars", label))[:n].to(own.device)
        else:
            within = herding(features[own], n)
        chosen.append(rows[own[within]])
    return exemplars_at(dataset, torch.cat(chosen))


@torch.no_grad()
def features_of(dataset: ContinualDataset, task: int, encode: Callable[[Tensor], Tensor]) -> Tensor:
    """Return features (n, d) of length 1 of all training images of a task, in the data set's order.

    ``encode`` is as in :func:`choose_exemplars`.
    """
    return torch.cat([F.normalize(encode(images).float()) for images, _ in dataset.plain_batches(task)])


def exemplars_at(dataset: ContinualDataset, rows: Tensor) -> ExemplarMemory:
    """Return the training images at ``rows`` (n,), all of one task, as exemplars."""
    images = dataset.train.pixels(rows)
    if tuple(images.shape[-2:]) != tuple(dataset.SIZE):  # of one of several data sets
        images = resized(images, dataset.SIZE[0], "squash")
    return ExemplarMemory(images.contiguous(), dataset.train.labels[rows])
