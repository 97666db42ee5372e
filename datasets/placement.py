"""Decides where images live: on the run's device where they fit, else where they are, and batches are gathered from there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmi_cl.machine.memory import memory_of_the_machine

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SHARE = 0.25  # of the memory that is free on a GPU, or that the CPU has at all, for one split
WITHOUT_TELLING = 4 << 30  # bytes, where the system does not tell its memory


class GatheredImages:
    """Images that stay in the file they are mapped from: rows are read when they are asked for. A tensor as far as indexing goes."""

    def __init__(self, images: Tensor, rows: Tensor) -> None:
        """``images``: (n, c, h, w) on the CPU. ``rows``: which of them, int64 (m,)."""
        self._images, self._rows = images, rows
        self.dtype, self.device = images.dtype, images.device
        self.shape = (len(rows), *images.shape[1:])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: Tensor | slice | int) -> Tensor:
        return self._images[self._rows[rows]]


def placed(images: Tensor, rows: Tensor, device: torch.device) -> Tensor | GatheredImages:
    """The images at the ascending ``rows``: on the device if they take at most :data:`SHARE` of its memory, else gathered as needed.

    Args:
        images: uint8 (n, c, h, w) on the CPU. Where ``rows`` is all of them and the device is the CPU, they are returned as they are.
    """
    whole = len(rows) == len(images)
    if whole and device.type == "cpu":
        return images
    if len(rows) * images[0].numel() > budget(device):
        return GatheredImages(images, rows)
    return (images if whole else images[rows]).to(device)


def budget(device: torch.device) -> int:
    """The most bytes that one split may take."""
    import torch

    if device.type == "cuda":
        return int(SHARE * torch.cuda.mem_get_info(device)[0])
    there = memory_of_the_machine()
    return WITHOUT_TELLING if there is None else int(SHARE * there)
