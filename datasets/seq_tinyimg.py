"""Present Tiny-ImageNet, class-incremental, from the folder in the official archive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from pmi_cl.datasets.dataset_outline import DataArguments
from pmi_cl.datasets.files.downloads import Download
from pmi_cl.datasets.files.file_names import read_text
from pmi_cl.datasets.files.file_options import FileOptions
from pmi_cl.datasets.files.image_files import ImageList, images_below, refuse_missing
from pmi_cl.datasets.files.listed_images import ListedImages, Listing
from pmi_cl.errors import UserError
from pmi_cl.machine.plain_text import few, printable
from pmi_cl.options import new_default, select

FOLDERS = ("tiny-imagenet-200", "tiny-imagenet200")  # the name in the archive, and R-DFCIL's name
ARCHIVE = Download(
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    "md5:90528d7ca1a48142e341f4ef8d21d0de",
    "tiny-imagenet-200.zip",
    FOLDERS[0],
)
SIDE = 64
AGAIN = "unpack the archive again"


@dataclass(frozen=True)
class TinyOptions(FileOptions):
    """The flags of ``seq-tinyimg``."""

    class_order: str = new_default(
        "rdfcil0",
        "R-DFCIL's order 1",
        help="rdfcil0, rdfcil1, rdfcil2 (R-DFCIL's three), np1993, natural, seed:<n>, or every class id "
        "separated by commas",
    )


class SeqTinyImageNet(ListedImages):
    """Tiny-ImageNet: 200 classes of 500 training and 50 test images of 64x64; fetched on first use.

    The test images are the validation images of the archive. Files are read from
    ``<base_path>/tiny-imagenet-200/{train,val,wnids.txt,words.txt}``. Class ids are the lines of
    ``wnids.txt``, as in R-DFCIL. If the file lists fewer classes, there are fewer. ``val/`` may
    have a folder for each class instead, as some scripts leave it. Y. Le and X. Yang, Tiny ImageNet
    Visual Recognition Challenge, CS 231N, Stanford, 2015.
    """

    NAME = "seq-tinyimg"
    N_TASKS = 10
    SIZE = (SIDE, SIDE)
    MEAN = (0.4803, 0.4481, 0.3976)  # from R-DFCIL, as is the next line
    STD = (0.2764, 0.2688, 0.2816)
    Options = TinyOptions

    @classmethod
    def downloads(cls, args: SimpleNamespace) -> Sequence[Download]:
        """Return the official archive, unless one of the folders is there."""
        return () if _root(args).is_dir() else (ARCHIVE,)

    @classmethod
    def total_classes(cls, args: SimpleNamespace) -> int:
        """Return the number of lines of ``wnids.txt``, or the official 200 before a download."""
        return len(_wnids(_root(args))) if _root(args).is_dir() else 200

    @classmethod
    def image_size(cls, args: SimpleNamespace) -> int:
        """Return the side of the images. A network that wants more enlarges them on the device."""
        return SIDE

    @classmethod
    def listing(cls, args: SimpleNamespace) -> Listing:
        """Return the sorted images of the training folders and those of ``val_annotations.txt``."""
        root = _root(args)
        wnids = _wnids(root)
        train = ImageList([], [])
        for label, wnid in enumerate(wnids):
            folder = root / "train" / wnid / "images"
            if not folder.is_dir():
                raise UserError(f"{folder} is missing, though wnids.txt has {wnid}: {AGAIN}")
            paths = images_below(folder)
            train.paths.extend(paths)
            train.labels.extend([label] * len(paths))
        return Listing("val", root, train, _validation(root, wnids), _names(root, wnids))


def _root(args: SimpleNamespace) -> Path:
    """Return the folder that is there, or else the one that the archive makes."""
    folders = [Path(select(DataArguments, vars(args)).base_path) / name for name in FOLDERS]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def _wnids(root: Path) -> list[str]:
    wnids = _lines(root / "wnids.txt")
    if len(set(wnids)) < max(len(wnids), 2):
        raise UserError(f"{root / 'wnids.txt'} must hold two or more different classes, a line each: {AGAIN}")
    return wnids


def _names(root: Path, wnids: Sequence[str]) -> list[str]:
    """Return the first name that ``words.txt`` has for each class."""
    words = dict(line.split("\t", 1) for line in _lines(root / "words.txt") if "\t" in line)
    unnamed = [wnid for wnid in wnids if wnid not in words]
    if unnamed:
        raise UserError(
            f"{root / 'words.txt'} has no name for {', '.join(unnamed[:3])}: take the file of {ARCHIVE.url}"
        )
    return [words[wnid].partition(",")[0].strip() for wnid in wnids]


def _validation(root: Path, wnids: Sequence[str]) -> ImageList:
    """Return the images of the classes of ``wnids``, in the order of the annotations."""
    together = root / "val" / "images"
    is_sorted = any((root / "val" / wnid).is_dir() for wnid in wnids)
    if is_sorted and not (together.is_dir() and any(together.iterdir())):
        return _sorted_validation(root / "val", wnids)
    file, labels = root / "val" / "val_annotations.txt", {wnid: label for label, wnid in enumerate(wnids)}
    rows = [line.split("\t") for line in _lines(file)]
    if any(len(row) < 2 for row in rows):
        raise UserError(f"{file} must have an image and its class on each line: {AGAIN}")
    names = [row[0] for row in rows]
    _refuse_names(file, names)
    images = ImageList([], [])
    for name, wnid, *_ in rows:
        if wnid in labels:
            images.paths.append(together / name)
            images.labels.append(labels[wnid])
    refuse_missing(images.paths, root, "val_annotations.txt", AGAIN)
    without = sorted(set(labels.values()) - set(images.labels))
    if without:
        raise UserError(f"{file} has no image of {wnids[without[0]]}: {AGAIN}")
    _refuse_left_out(together, file, set(names))
    return images


def _refuse_names(file: Path, names: Sequence[str]) -> None:
    """Raise UserError if annotations name an image twice, or a path."""
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise UserError(f"{file} names {_shown(outside)}, which is no name of an image: {AGAIN}")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"{file} has {_shown(twice)} more than once: {AGAIN}")


def _refuse_left_out(folder: Path, file: Path, names: Collection[str]) -> None:
    """Raise UserError if annotations leave out an image of the folder."""
    left = [path.name for path in images_below(folder) if path.name not in names]
    if left:
        raise UserError(f"{file} leaves out {len(left)} of the images in {folder}: {_shown(left)}; {AGAIN}")


def _shown(names: Sequence[str]) -> str:
    """Return the first of the names, printable."""
    return few(printable(name) for name in names)


def _sorted_validation(folder: Path, wnids: Sequence[str]) -> ImageList:
    """Return the images of ``val/`` if it has a folder for each class.

    Their numbers give them the order of the annotations.
    """
    missing = [wnid for wnid in wnids if not (folder / wnid).is_dir()]
    if missing:
        raise UserError(f"{folder} has folders for classes, but none for {', '.join(missing[:3])}: {AGAIN}")
    rows = [(path, label) for label, wnid in enumerate(wnids) for path in images_below(folder / wnid)]
    rows.sort(key=lambda row: (len(row[0].name), row[0].name, row[0]))
    return ImageList([path for path, _ in rows], [label for _, label in rows])


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"{path} is missing: {AGAIN} ({ARCHIVE.url})")
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]
