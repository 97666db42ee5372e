"""Define the base of data sets in the four files of MNIST: images and labels of each split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pmi_cl.datasets.continual_dataset import RawData
from pmi_cl.datasets.files.array_files import ArrayFiles, verified
from pmi_cl.datasets.files.downloads import Download
from pmi_cl.datasets.files.idx_arrays import read_idx
from pmi_cl.datasets.selection import Split
from pmi_cl.errors import UserError

if TYPE_CHECKING:
    import numpy

FILES = (  # images and labels of the training images, then of the test images
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


class IdxImages(ArrayFiles):
    """Read grey images of 28x28 in ten classes, which get three equal channels for the networks.

    They keep their size: the ResNets take any.

    Attributes:
        CLASSES: the names of the classes.
    """

    N_CLASSES = 10
    N_TASKS = 5
    SIZE = (28, 28)
    PADDING = 2
    DEFAULTS: ClassVar[dict[str, Any]] = {"backbone": "resnet20"}
    CLASSES: ClassVar[tuple[str, ...]]

    def read(self, base_path: Path) -> RawData:
        """Return the images of the four files. Raise UserError if they do not belong together."""
        train, test = (self._split(base_path, *self.DOWNLOADS[start : start + 2]) for start in (0, 2))
        return RawData(train, test, list(self.CLASSES))

    def _split(self, base_path: Path, of_images: Download, of_labels: Download) -> Split:
        images, labels = (read_idx(verified(base_path, download)) for download in (of_images, of_labels))
        if images.shape[1:] != self.SIZE or labels.shape != images.shape[:1]:
            shapes = f"{images.shape} and {labels.shape}"
            raise UserError(f"{base_path / of_images.file} and its labels have the shapes {shapes}: delete both")
        return _grey_split(images, labels)


def idx_downloads(url: str, folder: str, digests: tuple[str, str, str, str]) -> tuple[Download, ...]:
    """Return the four files, with their digests in the order of :data:`FILES`.

    Args:
        url: the folder that they are fetched from.
        folder: their place below ``base_path``.
        digests: "md5:<hex>" each.
    """
    return tuple(
        Download(f"{url}{name}", digest, f"{folder}/{name}") for name, digest in zip(FILES, digests, strict=True)
    )


def _grey_split(images: numpy.ndarray, labels: numpy.ndarray) -> Split:
    """Return images uint8 (n, h, w) as a split whose three channels share memory."""
    import torch

    return Split(torch.from_numpy(images)[:, None].expand(-1, 3, -1, -1), torch.from_numpy(labels).long())
