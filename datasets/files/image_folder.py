"""Find the images in a folder of class folders, and read them as squares of one size."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pmi_cl.datasets.files.decoding import map_in_order, upright_square, verify_image
from pmi_cl.datasets.files.image_files import ImageList, images_below, refuse_unreadable, subfolders
from pmi_cl.datasets.selection import evenly_spread
from pmi_cl.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

_PARTS = {"train", "test", "val", "valid", "validation"}


@refuse_unreadable()
def class_names(root: Path) -> list[str]:
    """Return the sorted class folders in ``root``, or in its ``train/`` and ``test/``.

    Only folders are read, no files.

    Raises:
        UserError: there is no such folder, there are fewer than two classes, or ``train/`` and
            ``test/`` do not hold the same classes.
    """
    if not root.is_dir():
        raise UserError(f"--data_dir {root}: there is no such folder; give one that holds a folder for each class")
    names = subfolders(root)
    if _has_split(root):
        names = subfolders(root / "train")
        _refuse_mismatch(root, names, subfolders(root / "test"))
    elif names and set(names) <= _PARTS and any(subfolders(root / name) for name in names):
        found = ", ".join(f"{name}/" for name in names)
        raise UserError(f"{root} has {found}: it needs both train/ and test/, or the class folders themselves")
    if len(names) < 2:
        found = f"one class folder ('{names[0]}')" if names else "no class folder"
        raise UserError(
            f"--data_dir {root} holds {found}: give a folder with at least two, each with the images of one class"
        )
    return names


@refuse_unreadable()
def list_images(root: Path, names: Sequence[str], test_fraction: float) -> tuple[ImageList, ImageList]:
    """Return the training and test images of the classes ``names``, sorted by path.

    Without ``train/`` and ``test/``, the fraction of each class is the test split. It is spread
    evenly over the sorted paths, and does not depend on the seed.

    Raises:
        UserError: a class has no image, too few images to split, or a file that is no image.
    """
    train, test = ImageList([], []), ImageList([], [])
    for label, name in enumerate(names):
        if _has_split(root):
            parts = [images_below(root / part / name, at_least=1) for part in ("train", "test")]
        else:
            files = images_below(root / name, at_least=2)
            places = set(evenly_spread(len(files), test_fraction))
            parts = [[path for k, path in enumerate(files) if (k in places) == is_test] for is_test in (False, True)]
        for split, paths in zip((train, test), parts, strict=True):
            split.paths.extend(paths)
            split.labels.extend([label] * len(paths))
    return train, test


def check_images(paths: Sequence[Path]) -> None:
    """Raise UserError for a file that is no image. Some damage is found only by decoding it."""
    deque(map_in_order(paths, verify_image), maxlen=0)


def read_images(paths: Sequence[Path], size: int, report: Callable[[int], None]) -> Tensor:
    """Return the resized central squares of the images as one uint8 tensor (n, 3, size, size).

    Args:
        report: called after each image with the number of images so far.

    Raises:
        UserError: a file is no image or is damaged. The message names it.
    """
    import numpy
    import torch

    pixels = numpy.empty((len(paths), 3, size, size), dtype=numpy.uint8)
    for number, square in enumerate(map_in_order(paths, lambda path: upright_square(path, size))):
        pixels[number] = square
        report(number + 1)
    return torch.from_numpy(pixels)


def _has_split(root: Path) -> bool:
    return (root / "test").is_dir() and (root / "train").is_dir() and bool(subfolders(root / "train"))


def _refuse_mismatch(root: Path, train: list[str], test: list[str]) -> None:
    """Raise UserError unless ``train/`` and ``test/`` hold the same class folders."""
    only = {"train": sorted(set(train) - set(test)), "test": sorted(set(test) - set(train))}
    faults = [f"only in {part}/: {', '.join(names)}" for part, names in only.items() if names]
    if faults:
        raise UserError(f"{root}: train/ and test/ must hold the same class folders; {'; '.join(faults)}")
