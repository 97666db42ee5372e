"""Reads CUB-200-2011's own lists, and PROOF's folders of the same images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pmi_cl.datasets.files.image_files import ImageList, refuse_missing, subfolders
from pmi_cl.datasets.files.listed_images import Listing, class_folders
from pmi_cl.errors import UserError

FOLDER, PROOF_FOLDER = "CUB_200_2011", "cub"
URL = "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz"
PROOF = "unpack the archive cub.zip that the README of github.com/zhoudw-zdw/PROOF links to"
# Test images of each ten classes in the order np1993, recovered from the accuracies of PROOF's log: 2,358 in all.
PROOF_COUNTS = (118, 129, 97, 110, 107, 111, 106, 141, 133, 136, 115, 113, 107, 118, 126, 124, 134, 103, 132, 98)


def official(root: Path) -> Listing:
    """The official split, from ``images.txt``, ``image_class_labels.txt``, ``train_test_split.txt`` and ``classes.txt``."""
    names = class_names(root)
    images = _table(root / "images.txt", str)
    labels = _table(root / "image_class_labels.txt", int)
    is_train = _table(root / "train_test_split.txt", int)
    for file, table in (("image_class_labels.txt", labels), ("train_test_split.txt", is_train)):
        differ = sorted(images.keys() ^ table.keys())
        if differ:
            raise UserError(
                f"{root}: images.txt and {file} do not list the same images (number {differ[0]}): unpack {URL} again"
            )
    wrong = [number for number, label in labels.items() if not 1 <= label <= len(names)]
    if wrong:
        raise UserError(
            f"{root / 'image_class_labels.txt'}: image {wrong[0]} has the class {labels[wrong[0]]}, there are {len(names)}"
        )
    refuse_missing(
        [root / "images" / path for path in images.values()], root / "images", "images.txt", f"unpack {URL} again"
    )
    parts = []
    for wanted in (1, 0):
        numbers = [number for number in images if is_train[number] == wanted]
        parts.append(
            ImageList(
                [root / "images" / images[number] for number in numbers], [labels[number] - 1 for number in numbers]
            )
        )
        without = sorted(set(range(len(names))) - set(parts[-1].labels))
        if without:
            raise UserError(
                f"{root}: {names[without[0]]} has no {'training' if wanted else 'test'} image: unpack {URL} again"
            )
    return Listing("official", root / "images", parts[0], parts[1], names)


def class_names(root: Path) -> list[str]:
    """The names in ``classes.txt``, in its order, without their numbers: "Black footed Albatross"."""
    folders = _table(root / "classes.txt", str)
    if len(folders) < 2 or list(folders) != list(range(1, len(folders) + 1)):
        raise UserError(f"{root / 'classes.txt'} must number two or more classes from 1: unpack {URL} again")
    return [_name(folder) for folder in folders.values()]


def proof(root: Path) -> Listing:
    """PROOF's split: ``train/`` and ``test/`` with a folder for each class."""
    folders, train, test = class_folders(root, PROOF)
    return Listing("proof", root, train, test, [_name(folder) for folder in folders])


def proof_classes(root: Path) -> int:
    """The number of PROOF's class folders."""
    return len(subfolders(root / "train"))


def _name(folder: str) -> str:
    """ "001.Black_footed_Albatross" to "Black footed Albatross"."""
    return folder.partition(".")[2].replace("_", " ") or folder.replace("_", " ")


def _table(path: Path, kind: Callable[[str], str] | Callable[[str], int]) -> dict[int, Any]:
    """Lines of a number and a value."""
    if not path.is_file():
        raise UserError(f"{path} is missing: unpack {URL} again")
    table = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
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
