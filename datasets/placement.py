"""Keep images on the run's device if they fit there, or else gather each batch from the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmi_cl.machine.memory import memory_of_the_machine

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SHARE = 0.25  # the part of a GPU's free memory, or of the machine's memory, for one split
FALLBACK_BYTES = 4 << 30  # the most for one split, where the system does not say its memory


class GatheredImages:
    """Read images from the file that they are mapped from when they are indexed, like a tensor."""

    def __init__(self, images: Tensor, rows: Tensor) -> None:
        """
        Args:
            images: (n, c, h, w) on the CPU.
            rows: the images that belong to the split, int64 (m,).
        """
        self._images, self._rows = images, rows
        self.dtype, self.device = images.dtype, images.device
        self.shape = (len(rows), *images.shape[1:])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: Tensor | slice | int) -> Tensor:
        return self._images[self._rows[rows]]


def place_images(images: Tensor, rows: Tensor, device: torch.device) -> Tensor | GatheredImages:
    """Return the images at ``rows``, on the device if they fit, or else as :class:`GatheredImages`.

    They fit if they take at most :data:`SHARE` of the memory. If the device is the CPU and ``rows``
    has all images, they are returned as they are.

    Args:
        images: uint8 (n, c, h, w) on the CPU.
        rows: ascending, int64 (m,).
    """
    whole = len(rows) == len(images)
    if whole and device.type == "cpu":
        return images
    if len(rows) * images[0].numel() > split_budget(device):
        return GatheredImages(images, rows)
    return (images if whole else images[rows]).to(device)


def split_budget(device: torch.device) -> int:
    """Return the most bytes that one split may take on the device."""
    import torch

    if device.type == "cuda":
        return int(SHARE * torch.cuda.mem_get_info(device)[0])
    memory = memory_of_the_machine()
    return FALLBACK_BYTES if memory is None else int(SHARE * memory)
