"""Define the base of data sets whose images are files, decoded once and then memory-mapped."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from pmi_cl.datasets.class_orders import class_order
from pmi_cl.datasets.continual_dataset import ContinualDataset, ProgressCallback, RawData
from pmi_cl.datasets.dataset_outline import DataArguments, tell_user
from pmi_cl.datasets.files.decoded_cache import DecodedImages
from pmi_cl.datasets.files.downloads import Download, missing
from pmi_cl.datasets.files.file_options import FileOptions
from pmi_cl.datasets.files.find_images import subfolders
from pmi_cl.datasets.files.image_files import ImageList, fingerprint, images_below, refuse_empty_classes
from pmi_cl.datasets.files.skipping import as_record, skipped_note, unreadable_files
from pmi_cl.datasets.reading import Reading, colour_named
from pmi_cl.datasets.selection import Split, refuse_one_colour
from pmi_cl.errors import UserError
from pmi_cl.machine.plain_text import few
from pmi_cl.options import option, select

if TYPE_CHECKING:
    from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
GROUP_SIZE = 10  # classes of a task in a published log


@dataclass(frozen=True)
class Listing:
    """List the files of a data set.

    Attributes:
        name: the name of the split, for the names of the cached files.
        root: the folder that holds all images.
        train: the training images with the data set's own class ids.
        test: the test images.
        class_names: the name of each class id.
    """

    name: str
    root: Path
    train: ImageList
    test: ImageList
    class_names: list[str]


@dataclass(frozen=True)
class DecodeArguments:
    """Say how images are decoded. A method may have these options."""

    image_size: int = 224
    resize: str = "squash"


@dataclass(frozen=True)
class PublishedSplitOptions(FileOptions):
    """The flags of data sets of which PROOF has published a split of its own."""

    allow_other_split: bool = option(
        False, "1: take folders that are not PROOF's split (not comparable with its figures)", role="protocol"
    )
    image_size: int = option(
        224,
        "side of the square that each image becomes",
        unit="pixels",
        low=8,
        high=1024,
        source="PROOF",
        role="protocol",
        binds="checkpoint",
        memory="pixels",
    )


class ListedImages(ContinualDataset):
    """Decode images of any size once to squares of ``image_size``, kept in ``<base_path>/cache/``.

    A method's option ``resize`` decides how they become squares. Without it they are squashed. A
    subclass lists the files in :meth:`listing` and says in :meth:`downloads` where they come from.
    """

    MEAN = IMAGENET_MEAN
    STD = IMAGENET_STD

    @classmethod
    @abstractmethod
    def listing(cls, args: SimpleNamespace) -> Listing:
        """Return the files. It reads lists and folders, but no image.

        Raises:
            UserError: the files do not fit together.
        """

    @classmethod
    def downloads(cls, args: SimpleNamespace) -> Sequence[Download]:
        """Return the downloads that :meth:`listing` needs."""
        return ()

    @classmethod
    def image_size(cls, args: SimpleNamespace) -> int:
        """Return the side of the decoded squares, in pixels."""
        return select(DecodeArguments, vars(args)).image_size

    @classmethod
    def check_data(cls, args: SimpleNamespace) -> None:
        """Raise UserError if a file is missing that may not be downloaded, or files do not fit."""
        arguments = select(DataArguments, vars(args))
        colour_named(select(FileOptions, vars(args)).background)
        base_path = Path(arguments.base_path)
        for download in cls.downloads(args):
            download.check(base_path, arguments.offline)
        if all(download.present(base_path) for download in cls.downloads(args)):
            cls.listing(args)

    @classmethod
    def missing_files(cls, args: SimpleNamespace) -> list[tuple[str, Path]]:
        """Return (address, path) of each file that is neither there nor unpacked."""
        return missing(cls.downloads(args), Path(select(DataArguments, vars(args)).base_path))

    def load(self, args: SimpleNamespace, progress: ProgressCallback | None) -> RawData:
        """Return the decoded images. Download and decode them first if that is not done yet."""
        import torch

        arguments = select(DataArguments, vars(args))
        for download in self.downloads(args):
            download.check(Path(arguments.base_path), arguments.offline)
            download.ensure(Path(arguments.base_path), progress)
        self.reading = Reading(colour_named(select(FileOptions, vars(args)).background))
        listing = self._readable(self.listing(args), args)
        self.fingerprint = fingerprint(listing.root, (listing.train, listing.test))
        pixels = self._decoded(listing, args, progress)
        refuse_one_colour(pixels[0], self.reading)
        size = self.image_size(args)
        self.SIZE, self.PADDING = (size, size), max(1, size // 8)
        self.decoding = select(DecodeArguments, vars(args)).resize
        splits = [
            Split(part, torch.tensor(paths.labels))
            for part, paths in zip(pixels, (listing.train, listing.test), strict=True)
        ]
        return RawData(splits[0], splits[1], listing.class_names)

    def _readable(self, listing: Listing, args: SimpleNamespace) -> Listing:
        """Return the listing without the files that cannot be read, if they are to be skipped.

        Raises:
            UserError: a class has no training or no test image left.
        """
        if select(FileOptions, vars(args)).on_bad_image != "skip":
            return listing
        cache = _cache_folder(args) / f"{self.NAME}-{listing.name}-unreadable.json"
        bad = unreadable_files([*listing.train.paths, *listing.test.paths], listing.root, cache)
        tell_user(args, skipped_note(bad))
        self.skipped_images = as_record(bad, listing.root)
        parts = [images.without({file.path for file in bad}) for images in (listing.train, listing.test)]
        for what, part in zip(("training", "test"), parts, strict=True):
            refuse_empty_classes(part, listing.class_names, what)
        return replace(listing, train=parts[0], test=parts[1])

    def _decoded(self, listing: Listing, args: SimpleNamespace, progress: ProgressCallback | None) -> list[Tensor]:
        """Return the decoded training and test images."""
        resize = select(DecodeArguments, vars(args)).resize
        total, before, pixels = len(listing.train.paths) + len(listing.test.paths), 0, []
        for part, images in (("train", listing.train), ("test", listing.test)):

            def report(done: int, before: int = before) -> None:
                if progress:
                    progress("decoding images", before + done, total)

            name = f"{self.NAME}-{listing.name}-{part}"
            size, folder = self.image_size(args), _cache_folder(args)
            cache = DecodedImages(images.paths, listing.root, size, resize, folder, name, self.reading)
            pixels.append(cache.open(report))
            before += len(images.paths)
        return pixels


def _cache_folder(args: SimpleNamespace) -> Path:
    return Path(select(DataArguments, vars(args)).base_path) / "cache"


def class_folders(root: Path, origin: str) -> tuple[list[str], ImageList, ImageList]:
    """Return the sorted class folders of ``root/train`` and ``root/test``, and the images of both.

    The id of a class is its place among the folders.

    Args:
        origin: where to get the right folders, for the error message.

    Raises:
        UserError: one of the two is missing, or they have different classes.
    """
    parts = [root / "train", root / "test"]
    for part in parts:
        if not part.is_dir():
            raise UserError(f"{part} is missing: {origin}")
    names = subfolders(parts[0])
    if names != subfolders(parts[1]):
        differ = ", ".join(sorted(set(names) ^ set(subfolders(parts[1])))[:3])
        raise UserError(f"{root}: train/ and test/ must hold the same class folders, these do not: {differ}; {origin}")
    lists = []
    for part in parts:
        files = [images_below(part / name) for name in names]
        paths = [path for below in files for path in below]
        lists.append(ImageList(paths, [label for label, below in enumerate(files) for _ in below]))
    return names, lists[0], lists[1]


def refuse_other_split(listing: Listing, expected: Sequence[int], allowed: bool) -> None:
    """Compare the numbers of test images with those of a published log.

    Args:
        expected: the test images of each ten classes in the order np1993.
        allowed: accept another split.

    Raises:
        UserError: the numbers differ, and that is not ``allowed``.
    """
    n_classes = len(listing.class_names)
    counts = [0] * n_classes
    for label in listing.test.labels:
        counts[label] += 1
    order = class_order("np1993", n_classes)
    groups = [order[start : start + GROUP_SIZE] for start in range(0, n_classes, GROUP_SIZE)]
    found = [sum(counts[label] for label in group) for group in groups]
    if found != list(expected) and not allowed:
        images = f"{few(map(str, found), 4)} test images, in the published log {few(map(str, expected), 4)}"
        raise UserError(
            f"{listing.root} is not PROOF's split: ten classes each (order np1993) have {images}; "
            "get its folders, or say --allow_other_split 1 and do not compare"
        )
