"""Read the official lists of CUB-200-2011, and PROOF's folders of the same images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pmi_cl.datasets.files.file_names import read_text
from pmi_cl.datasets.files.find_images import subfolders
from pmi_cl.datasets.files.image_files import ImageList, refuse_missing
from pmi_cl.datasets.files.listed_images import Listing, class_folders
from pmi_cl.errors import UserError

FOLDER, PROOF_FOLDER = "CUB_200_2011", "cub"
URL = "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz"
PROOF = "unpack the archive cub.zip that the README of github.com/zhoudw-zdw/PROOF links to"
# Test images of each ten classes in the order np1993, recovered from the accuracies in PROOF's log.
# They are 2,358 in all.
PROOF_COUNTS = (118, 129, 97, 110, 107, 111, 106, 141, 133, 136, 115, 113, 107, 118, 126, 124, 134, 103, 132, 98)


def official(root: Path) -> Listing:
    """Return the official split, from the four lists in ``root``.

    The lists are ``images.txt``, ``image_class_labels.txt``, ``train_test_split.txt`` and
    ``classes.txt``.

    Raises:
        UserError: the lists do not fit together, or an image is missing.
    """
    names = class_names(root)
    images = _table(root / "images.txt", str)
    labels = _table(root / "image_class_labels.txt", int)
    is_train = _table(root / "train_test_split.txt", int)
    _refuse_other_images(root, images, "image_class_labels.txt", labels)
    _refuse_other_images(root, images, "train_test_split.txt", is_train)
    _refuse_unknown_classes(root, labels, len(names))
    folder, remedy = root / "images", f"unpack {URL} again"
    refuse_missing([folder / path for path in images.values()], folder, "images.txt", remedy)
    parts = []
    for part, flag in (("training", 1), ("test", 0)):
        rows = [row for row in images if is_train[row] == flag]
        parts.append(ImageList([folder / images[row] for row in rows], [labels[row] - 1 for row in rows]))
        empty = sorted(set(range(len(names))) - set(parts[-1].labels))
        if empty:
            raise UserError(f"{root}: {names[empty[0]]} has no {part} image: {remedy}")
    return Listing("official", folder, parts[0], parts[1], names)


def _refuse_other_images(root: Path, images: dict[int, str], file: str, table: dict[int, int]) -> None:
    """Raise UserError unless a list has the images of ``images.txt``."""
    differ = sorted(images.keys() ^ table.keys())
    if differ:
        fault = f"images.txt and {file} do not list the same images (number {differ[0]})"
        raise UserError(f"{root}: {fault}: unpack {URL} again")


def _refuse_unknown_classes(root: Path, labels: dict[int, int], n_classes: int) -> None:
    """Raise UserError for a label that is not one of 1..n_classes."""
    wrong = [row for row, label in labels.items() if not 1 <= label <= n_classes]
    if wrong:
        fault = f"image {wrong[0]} has the class {labels[wrong[0]]}, there are {n_classes}"
        raise UserError(f"{root / 'image_class_labels.txt'}: {fault}: unpack {URL} again")


def class_names(root: Path) -> list[str]:
    """Return the names in ``classes.txt``, in its order, such as "Black footed Albatross"."""
    folders = _table(root / "classes.txt", str)
    if len(folders) < 2 or list(folders) != list(range(1, len(folders) + 1)):
        raise UserError(f"{root / 'classes.txt'} must number two or more classes from 1: unpack {URL} again")
    return [_name(folder) for folder in folders.values()]


def proof(root: Path) -> Listing:
    """Return PROOF's split: ``train/`` and ``test/`` with a folder for each class."""
    folders, train, test = class_folders(root, PROOF)
    return Listing("proof", root, train, test, [_name(folder) for folder in folders])


def proof_classes(root: Path) -> int:
    """Return the number of PROOF's class folders."""
    return len(subfolders(root / "train"))


def _name(folder: str) -> str:
    """Turn a folder's name, "001.Black_footed_Albatross", into "Black footed Albatross"."""
    return folder.partition(".")[2].replace("_", " ") or folder.replace("_", " ")


def _table(path: Path, kind: Callable[[str], str] | Callable[[str], int]) -> dict[int, Any]:
    """Read a file of lines with a number and a value."""
    if not path.is_file():
        raise UserError(f"{path} is missing: unpack {URL} again")
    table = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        try:
            key, value = words
            table[int(key)] = kind(value)
        except ValueError:
            raise UserError(
                f"{path}, line {number}: it must be a number and a value, not '{line[:40]}': unpack {URL} again"
            ) from None
    return table
