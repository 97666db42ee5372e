"""Keeps decoded images in a file that is mapped into memory, so that no epoch and no later run decodes them again."""

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

from pmi_cl.datasets.files.decoding import bicubic_square, in_order
from pmi_cl.datasets.files.fetching import disk_errors, part_file
from pmi_cl.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

VERSION = "1"  # of what a file holds; another one makes old files invalid
_LOOKED_AT = 3  # images that are decoded anew when a file is opened, to see that it holds them


@dataclass(frozen=True)
class DecodedImages:
    """Images of one split, decoded and resized once.

    Attributes:
        paths, root: the files; they are named relative to ``root``.
        size, resize: what each becomes, see :func:`pmi_cl.datasets.files.decoding.bicubic_square`.
        folder, name: the cache is ``<folder>/<name>-<size>-<resize>-<key>.npy``. The key is a hash of the files' names, lengths
            and times of change, so that a changed file makes a new cache; the old one is removed.
    """

    paths: Sequence[Path]
    root: Path
    size: int
    resize: str
    folder: Path
    name: str

    @property
    def path(self) -> Path:
        """Where the cache is, or will be."""
        hasher = hashlib.sha256(VERSION.encode())
        for path in self.paths:
            facts = path.stat()
            hasher.update(f"{path.relative_to(self.root).as_posix()}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
        return self.folder / f"{self._prefix}{hasher.hexdigest()[:16]}.npy"

    @property
    def _prefix(self) -> str:
        return f"{self.name}-{self.size}-{self.resize}-"

    def open(self, report: Callable[[int], None]) -> Tensor:
        """uint8 (n, 3, size, size), mapped: pages are read as they are needed. Writes the file first where there is none.

        Args:
            report: told how many images are decoded, after each.

        Raises:
            UserError: an image that cannot be decoded; no room on the disk. Nothing is left then.
        """
        path = self.path
        found = self._mapped(path)
        if found is None:
            with part_file(path, "decodes") as part:
                if (found := self._mapped(path)) is None:  # no other process was quicker
                    self._write(path, part, report)
                    found = self._mapped(path)
        if found is None:
            raise UserError(f"{path} cannot be read although it was just written: is the disk of --base_path sound?")
        return found

    def _mapped(self, path: Path) -> Tensor | None:
        """The file's content; None where there is none, or it does not hold these images."""
        import numpy
        import torch

        try:
            pixels = numpy.load(path, mmap_mode="c", allow_pickle=False)  # "c": torch wants memory that it may write to
        except (OSError, ValueError, EOFError):
            return None
        if pixels.dtype != numpy.uint8 or pixels.shape != self._shape or not self._holds(pixels):
            return None
        return torch.from_numpy(pixels)

    @property
    def _shape(self) -> tuple[int, int, int, int]:
        return (len(self.paths), 3, self.size, self.size)

    def _holds(self, pixels: Any) -> bool:
        """Whether a few of the images, decoded anew, are those of the file."""
        places = sorted({k * (len(self.paths) - 1) // max(_LOOKED_AT - 1, 1) for k in range(_LOOKED_AT)})
        again = in_order([self.paths[k] for k in places], self._decode)
        return all((pixels[k] == image).all() for k, image in zip(places, again, strict=True))

    def _decode(self, path: Path) -> Any:
        return bicubic_square(path, self.size, self.resize)

    def _write(self, path: Path, part: IO[bytes], report: Callable[[int], None]) -> None:
        """All images to ``part``, which then takes the name; so a reader finds the whole or nothing."""
        try:
            os.ftruncate(part.fileno(), 0)
            self._refuse_small_disk()
            with disk_errors(path):
                _write_header(part, self._shape)
            for done, image in enumerate(in_order(self.paths, self._decode), start=1):
                with disk_errors(path):
                    part.write(image.tobytes())
                report(done)
            with disk_errors(path):
                part.flush()
                os.fsync(part.fileno())
                Path(part.name).replace(path)
        except BaseException:  # an interruption, too: it goes on
            with contextlib.suppress(OSError):
                os.ftruncate(part.fileno(), 0)  # an empty part is removed by whoever made it
            raise
        self._remove_old(path)

    def _refuse_small_disk(self) -> None:
        """Before the first image is decoded, which may be an hour before the last."""
        needed, free = math.prod(self._shape) / 2**20, shutil.disk_usage(self.folder).free / 2**20
        if free < needed:
            raise UserError(
                f"{self.folder} has {free:.0f} MiB of the {needed:.0f} for decoded images: make room, or give another --base_path"
            )

    def _remove_old(self, path: Path) -> None:
        for other in self.folder.glob(f"{self._prefix}*.npy"):
            if other != path:
                with contextlib.suppress(OSError):  # in use on a system that does not allow it
                    other.unlink()


def _write_header(file: IO[bytes], shape: tuple[int, ...]) -> None:
    from numpy.lib import format as npy

    npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
