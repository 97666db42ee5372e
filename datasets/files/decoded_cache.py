"""Keep decoded images in a memory-mapped file, so that each image is decoded only once."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pmi_cl.datasets.files.decoding import AS_WRITTEN, bicubic_square, map_in_order
from pmi_cl.datasets.files.fetching import disk_errors, part_file
from pmi_cl.datasets.files.image_files import state_of_files
from pmi_cl.datasets.reading import Reading
from pmi_cl.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

VERSION = "2"  # of the file format and of how pixels are made; a new version makes old files invalid
_CHECKED = 3  # images that are decoded again when a file is opened, to check its content


@dataclass(frozen=True)
class DecodedImages:
    """Decode and resize the images of one split once.

    The cache is ``<folder>/<name>-<size>-<resize>-<key>.npy``. The key is a hash of ``reading`` and
    of the names, lengths and modification times of the files. So a changed file makes a new cache,
    and the old cache is removed.

    Attributes:
        paths: the image files.
        root: the folder that the names in the key are relative to.
        size: side of the square images, in pixels.
        resize: "squash" or "crop", see :func:`pmi_cl.datasets.files.decoding.bicubic_square`.
        folder: the folder of the cache.
        name: the start of the cache's file name.
        reading: how the values in the files become 8-bit colours.
    """

    paths: Sequence[Path]
    root: Path
    size: int
    resize: str
    folder: Path
    name: str
    reading: Reading = AS_WRITTEN

    @property
    def path(self) -> Path:
        """The path of the cache."""
        content = f"{VERSION}\0{self.reading.text}\0{state_of_files(self.paths, self.root)}"
        key = hashlib.sha256(content.encode()).hexdigest()[:16]
        return self.folder / f"{self._prefix}{key}.npy"

    @property
    def _prefix(self) -> str:
        return f"{self.name}-{self.size}-{self.resize}-"

    def open(self, report: Callable[[int], None]) -> Tensor:
        """Return the images as uint8 (n, 3, size, size), mapped from the file. Write it if needed.

        Pages are read from the disk when they are needed.

        Args:
            report: called after each decoded image with the number of images so far.

        Raises:
            UserError: an image cannot be decoded, or the disk is full. No file is left then.
        """
        path = self.path
        images = self._map_file(path)
        if images is None:
            with part_file(path, "decodes") as part:
                if (images := self._map_file(path)) is None:  # no other process has written it meanwhile
                    self._write(path, part, report)
                    images = self._map_file(path)
        if images is None:
            raise UserError(f"{path} cannot be read although it was just written: check the disk of --base_path")
        return images

    def _map_file(self, path: Path) -> Tensor | None:
        """Return the content of the file, or None if it is missing or holds other images."""
        import numpy
        import torch

        try:
            pixels = numpy.load(path, mmap_mode="c", allow_pickle=False)  # "c": torch needs writable memory
        except (OSError, ValueError, EOFError):
            return None
        if pixels.dtype != numpy.uint8 or pixels.shape != self._shape or not self._holds_images(pixels):
            return None
        return torch.from_numpy(pixels)

    @property
    def _shape(self) -> tuple[int, int, int, int]:
        return (len(self.paths), 3, self.size, self.size)

    def _holds_images(self, pixels: Any) -> bool:
        """Decode a few images again and return whether they are those of the file."""
        rows = sorted({k * (len(self.paths) - 1) // max(_CHECKED - 1, 1) for k in range(_CHECKED)})
        decoded = map_in_order([self.paths[row] for row in rows], self._decode, skippable=True)
        return all((pixels[row] == image).all() for row, image in zip(rows, decoded, strict=True))

    def _decode(self, path: Path) -> Any:
        return bicubic_square(path, self.size, self.resize, self.reading)

    def _write(self, path: Path, part: IO[bytes], report: Callable[[int], None]) -> None:
        """Write all images to ``part``, then rename it: a reader never finds half a file."""
        try:
            os.ftruncate(part.fileno(), 0)
            self._refuse_small_disk()
            with disk_errors(path):
                _write_header(part, self._shape)
            for done, image in enumerate(map_in_order(self.paths, self._decode, skippable=True), start=1):
                with disk_errors(path):
                    part.write(image.tobytes())
                report(done)
            with disk_errors(path):
                part.flush()
                os.fsync(part.fileno())
                Path(part.name).replace(path)
        except BaseException:  # also an interruption
            with contextlib.suppress(OSError):
                os.ftruncate(part.fileno(), 0)  # part_file() removes an empty file
            raise
        self._remove_old(path)

    def _refuse_small_disk(self) -> None:
        """Raise UserError before the first image is decoded: the last may come an hour later."""
        needed, free = math.prod(self._shape) / 2**20, shutil.disk_usage(self.folder).free / 2**20
        if free < needed:
            fault = f"{self.folder} has {free:.0f} MiB of the {needed:.0f} for decoded images"
            raise UserError(f"{fault}: make room, or give another --base_path")

    def _remove_old(self, path: Path) -> None:
        """Remove caches of these images with another key."""
        for other in self.folder.glob(f"{self._prefix}*.npy"):
            if other != path:
                with contextlib.suppress(OSError):  # some systems cannot remove a file in use
                    other.unlink()


def _write_header(file: IO[bytes], shape: tuple[int, ...]) -> None:
    from numpy.lib import format as npy

    npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
