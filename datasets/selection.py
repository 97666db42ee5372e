"""Select the images of a run: by class, without a held-out part, at most so many of each class."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pmi_cl.datasets.placement import GatheredImages, place_images
from pmi_cl.datasets.reading import Reading, hex_of
from pmi_cl.errors import UserError
from pmi_cl.seeding import seeded

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Split:
    """Hold images with their labels, as a data set loads them.

    Attributes:
        images: uint8 (n, c, h, w), on the CPU.
        labels: int64 (n,), the data set's own class ids.
    """

    images: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class PlacedSplit:
    """Hold the images of a run, see :func:`pmi_cl.datasets.placement.place_images`.

    Attributes:
        images: uint8 (n, c, h, w), on the run's device, or on the CPU if they do not fit.
        labels: int64 (n,), on the run's device. Label k is the k-th class of the class order.
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
        """Return the images at ``rows`` (int64, any device) as uint8 (b, c, h, w) on the device."""
        return self.images[rows.to(self.images.device)].to(self.labels.device, non_blocking=True)


def refuse_one_colour(images: Tensor, reading: Reading) -> None:
    """Raise UserError if all pixels of all images uint8 (n, 3, h, w) have one colour.

    It looks no further than at the first difference.
    """
    first = images[0, :, :1, :1]
    if all(bool((images[row] == first[0]).all()) for row in range(len(images))):
        red, green, blue = first.flatten().tolist()
        seen = f"all {len(images)} training images are of one colour, {hex_of((red, green, blue))}"
        cure = "black" if reading.background != (0, 0, 0) else "white"
        advice = f"look at the files, or say --background {cure} if they are transparent"
        raise UserError(f"{seen} (transparent images are laid on {hex_of(reading.background)}): {advice}")


def pick(split: Split, rows: Tensor, order: Sequence[int], device: torch.device) -> PlacedSplit:
    """Return the images at ``rows``, and replace each class id by its place in ``order``."""
    import torch

    place = torch.zeros(max(order) + 1, dtype=torch.int64)
    place[torch.tensor(order)] = torch.arange(len(order))
    return PlacedSplit(place_images(split.images, rows, device), place[split.labels[rows]].to(device))


def rows_of(labels: Tensor, classes: Iterable[int]) -> Tensor:
    """Return the ascending rows whose label is one of ``classes``."""
    import torch

    return torch.isin(labels, torch.tensor(list(classes))).nonzero().squeeze(1)


def hold_out(labels: Tensor, classes: Iterable[int], fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split the rows of ``classes`` into (kept, held out).

    The fraction of each class, rounded up, is drawn at random. The draw depends on the seed and the
    class alone, not on the order or the number of classes.

    Raises:
        UserError: a class would keep no image.
    """
    import torch

    kept, held = [], []
    for label in classes:
        rows = (labels == label).nonzero().squeeze(1)
        count = math.ceil(round(fraction * len(rows), 9))  # round() because 0.07 * 100 > 7
        if count and count == len(rows):
            amount = "the only training image" if count == 1 else f"all {count} training images"
            advice = "say --validation 0" if count == 1 else "give less"
            raise UserError(f"--validation {fraction:g} would hold out {amount} of a class: {advice}")
        shuffled = rows[torch.randperm(len(rows), generator=seeded(seed, "validation", label))]
        held.append(shuffled[:count])
        kept.append(shuffled[count:])
    return torch.cat(kept).sort().values, torch.cat(held).sort().values


def first_of_each(labels: Tensor, rows: Tensor, count: int) -> Tensor:
    """Return the first ``count`` of the ascending ``rows`` of each class, ascending."""
    import torch

    kept = [rows[labels[rows] == label][:count] for label in labels[rows].unique().tolist()]
    return torch.cat(kept).sort().values


def evenly_spread(count: int, fraction: float) -> list[int]:
    """Return the places of the test images among ``count`` images of a class.

    They are evenly spread, at least one and never all. One fifth of ten images are places 4 and 9.
    No seed is involved, so every run tests on the same images.
    """
    chosen = min(max(round(fraction * count), 1), count - 1)
    return [(k + 1) * count // chosen - 1 for k in range(chosen)]
