"""Find the images in a folder of class folders, and read them as squares of one size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pmi_cl.datasets.files.decoding import (
    AS_WRITTEN,
    BadFile,
    range_and_opacity,
    square,
    try_in_order,
    verify_image,
)
from pmi_cl.datasets.files.find_images import find_images
from pmi_cl.datasets.files.image_files import ImageList, refuse_bad, refuse_empty_classes, refuse_few
from pmi_cl.datasets.files.skipping import OnBad
from pmi_cl.datasets.files.split_folders import Layout, left_out, read_layout
from pmi_cl.datasets.reading import FULL_RANGE, Reading
from pmi_cl.datasets.selection import evenly_spread
from pmi_cl.machine.plain_text import printable

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class FolderImages:
    """The images of a folder of class folders.

    Attributes:
        layout: where the classes lie.
        train: the training images with their class ids, sorted by class, then by path.
        test: the test images in the same way.
        skipped: files that cannot be read, where they are not refused.
        repeated: links to folders or files that were found already.
    """

    layout: Layout
    train: ImageList = field(default_factory=lambda: ImageList([], []))
    test: ImageList = field(default_factory=lambda: ImageList([], []))
    skipped: list[BadFile] = field(default_factory=list)
    repeated: int = 0

    def without(self, bad: Sequence[BadFile]) -> None:
        """Take files that cannot be read out of the lists.

        Raises:
            UserError: a class has no training or no test image left.
        """
        self.skipped.extend(bad)
        gone = {file.path for file in bad}
        self.train, self.test = self.train.without(gone), self.test.without(gone)
        for what, part in (("training", self.train), ("test", self.test)):
            refuse_empty_classes(part, self.layout.names, what)

    def notes(self) -> list[str]:
        """Say what a user should know of the folder: what is tested on, and what is left out."""
        said, test = [], self.layout.test
        if test is not None and self.layout.tested_on == "val":
            said.append(f"tested on {printable(test.relative_to(self.layout.root))}/, as there is no test folder")
        out = left_out(self.layout)
        if self.repeated:
            out.append(f"{self.repeated} links to what is read already")
        return said + ([f"left out: {'; '.join(out)}"] if out else [])


def class_names(root: Path) -> list[str]:
    """Return the sorted class folders in ``root``, or in its training folder.

    Only folders are read, no files.

    Raises:
        UserError: as in :func:`pmi_cl.datasets.files.split_folders.read_layout`.
    """
    return read_layout(root).names


def list_images(root: Path, names: Sequence[str], test_fraction: float) -> tuple[ImageList, ImageList]:
    """Return the training and test images of the classes ``names``, see :func:`folder_images`."""
    images = folder_images(root, test_fraction)
    assert list(names) == images.layout.names, "the names are those of class_names()"
    return images.train, images.test


def folder_images(root: Path, test_fraction: float, skip: bool = False) -> FolderImages:
    """Return the training and test images of a folder, sorted by class, then by path.

    Without a split, the fraction of each class is the test split. It is spread evenly over the
    sorted paths, and does not depend on the seed. Links are followed, each to its end once.

    Args:
        root: the folder that holds the class folders, or the splits.
        test_fraction: part of each class that is tested on.
        skip: skip what cannot be read.

    Raises:
        UserError: a class has no image, too few images to split, or a file that cannot be read.
    """
    layout = read_layout(root)
    images = FolderImages(layout)
    if layout.test is not None:
        for split, folder in ((images.train, layout.train), (images.test, layout.test)):
            for label, paths in enumerate(_by_class(images, folder, 1, skip)):
                _extend(split, paths, label)
        return images
    for label, paths in enumerate(_by_class(images, layout.root, 2, skip)):
        places = set(evenly_spread(len(paths), test_fraction))
        for split, is_test in ((images.train, False), (images.test, True)):
            _extend(split, [path for k, path in enumerate(paths) if (k in places) == is_test], label)
    return images


def _by_class(images: FolderImages, folder: Path, at_least: int, skip: bool) -> list[list[Path]]:
    """Return the images of each class in a folder. Note what is skipped and repeated."""
    owners: dict[str, Path] = {}
    paths = []
    for name in images.layout.names:
        found = find_images(folder / name, owners)
        if skip:
            images.skipped += [*found.bad, *(BadFile(path, "no image by its ending") for path in found.others)]
        else:
            refuse_bad(found, skippable=True)
        refuse_few(folder / name, len(found.images), at_least)
        images.repeated += found.repeated
        paths.append(found.images)
    return paths


def _extend(split: ImageList, paths: Sequence[Path], label: int) -> None:
    split.paths.extend(paths)
    split.labels.extend([label] * len(paths))


def bad_images(paths: Sequence[Path], on_bad: OnBad) -> list[BadFile]:
    """Return the files that are no images. Some damage is found only by decoding them.

    ``on_bad`` is called with each as soon as it is found.
    """
    found = []
    for result in try_in_order(paths, verify_image):
        if isinstance(result, BadFile):
            on_bad(result)
            found.append(result)
    return found


def measured_reading(images: FolderImages, background: tuple[int, int, int]) -> tuple[Reading, bool]:
    """Return how the files of a folder become 8-bit colours, and whether that matters for any.

    In files with 16 bits for each channel, white is the highest value of all training images,
    rounded up to a power of two less one: 4,095 for 12-bit images.
    """
    facts = [
        [fact for fact in try_in_order(split.paths, range_and_opacity) if not isinstance(fact, BadFile)]
        for split in (images.train, images.test)
    ]
    highest = max((value for value, _ in facts[0]), default=0)
    special = any(value or opacity for part in facts for value, opacity in part)
    return Reading(background, (1 << highest.bit_length()) - 1 if highest else FULL_RANGE), special


def read_images(
    paths: Sequence[Path],
    size: int,
    report: Callable[[int], None],
    reading: Reading = AS_WRITTEN,
    on_bad: OnBad = BadFile.refuse,
) -> Tensor:
    """Return the resized central squares of any image files as uint8 (n, 3, size, size).

    A folder of images is read in this way, too.

    Args:
        paths: image files.
        size: side of the squares, in pixels.
        report: called after each image with the number of images so far.
        reading: how the values in the files become 8-bit colours.
        on_bad: called with each file that is no image or is damaged. It is left out.

    Raises:
        UserError: a file cannot be read, and ``on_bad`` is not given. The message names it.
    """
    import numpy
    import torch

    pixels, good = numpy.empty((len(paths), 3, size, size), dtype=numpy.uint8), 0
    squares = try_in_order(paths, lambda path: square(path, size, "upright", reading))
    for number, result in enumerate(squares, start=1):
        if isinstance(result, BadFile):
            on_bad(result)
        else:
            pixels[good] = result
            good += 1
        report(number)
    return torch.from_numpy(pixels[:good])
