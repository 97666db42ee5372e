"""Present any folder of images as a data set.

It has a folder for each class, with or without ``train/`` and ``test/`` around them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from pmi_cl.datasets.augmentation import mean_and_std
from pmi_cl.datasets.continual_dataset import ContinualDataset, ProgressCallback, RawData
from pmi_cl.datasets.dataset_outline import tell_user
from pmi_cl.datasets.files.decoding import BadFile
from pmi_cl.datasets.files.file_options import FileOptions
from pmi_cl.datasets.files.image_files import fingerprint
from pmi_cl.datasets.files.image_folder import (
    FolderImages,
    bad_images,
    class_names,
    folder_images,
    measured_reading,
    read_images,
)
from pmi_cl.datasets.files.skipping import as_record, on_bad_image, skipped_note
from pmi_cl.datasets.reading import colour_named
from pmi_cl.datasets.selection import Split, refuse_one_colour
from pmi_cl.errors import UserError
from pmi_cl.machine.plain_text import printable
from pmi_cl.options import option, select

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class FolderOptions(FileOptions):
    """The flags of ``seq-folder``."""

    data_dir: str | None = option(
        None,
        "folder that holds a folder for each class, or train/ and test/ (or val/) with those; required",
        role="protocol",
        path=True,
    )
    test_fraction: float = option(
        0.2,
        "part of each class that is tested on, where there is no train/ and test/",
        above=0,
        high=0.9,
        role="protocol",
        binds="checkpoint",
    )
    image_size: int = option(
        32,
        "side of the square that each image becomes",
        unit="pixels",
        low=8,
        high=512,
        role="protocol",
        binds="checkpoint",
        memory="pixels",
    )


class SeqFolder(ContinualDataset):
    """Your own images: --data_dir DIR with a folder for each class (PNG, JPEG, WebP, BMP).

    Images of any size are read. Class ids are the places of the class folders in alphabetical
    order. All images are read once and kept as pixels. Mean and standard deviation are measured on
    the training images.
    """

    NAME = "seq-folder"
    Options = FolderOptions

    @classmethod
    def check_data(cls, args: SimpleNamespace) -> None:
        """Look at every file, without decoding it whole. Say what is left out of the folder."""
        options = select(FolderOptions, vars(args))
        colour_named(options.background)
        images = _images(options)
        images.without(bad_images(images.train.paths + images.test.paths, on_bad_image(_skips(options), [])))
        tell_user(args, [f"{printable(_root(options))}: {note}" for note in images.notes()])
        tell_user(args, skipped_note(images.skipped))

    @classmethod
    def total_classes(cls, args: SimpleNamespace) -> int:
        """Return the number of class folders."""
        return len(class_names(_root(select(FolderOptions, vars(args)))))

    @classmethod
    def image_size(cls, args: SimpleNamespace) -> int:
        """Return the side of the square that was asked for."""
        return select(FolderOptions, vars(args)).image_size

    @classmethod
    def default_tasks(cls, n_classes: int) -> int:
        """Return a number of equal tasks with at least two classes each.

        It is five if that is possible, else the smallest such number above one. If there is none,
        each class is a task.
        """
        fitting = [n for n in (5, *range(2, n_classes)) if n_classes % n == 0 and n_classes // n >= 2]
        return fitting[0] if fitting else n_classes

    def load(self, args: SimpleNamespace, progress: ProgressCallback | None) -> RawData:
        """Decode every image of the folder."""
        import torch

        options = select(FolderOptions, vars(args))
        images = _images(options)
        self.reading, matters = measured_reading(images, colour_named(options.background))
        pixels = self._pixels(images, args, progress)
        train, test = images.train, images.test
        parts = pixels[: len(train.paths)], pixels[len(train.paths) :]
        refuse_one_colour(parts[0], self.reading)
        self.fingerprint = fingerprint(_root(options), (train, test)) + (f", {self.reading.text}" if matters else "")
        self.SIZE = (options.image_size, options.image_size)
        self.PADDING = max(1, options.image_size // 8)  # 4 of 32 pixels, as for CIFAR
        self.MEAN, self.STD = mean_and_std(parts[0])
        splits = [Split(part, torch.tensor(paths.labels)) for part, paths in zip(parts, (train, test), strict=True)]
        return RawData(splits[0], splits[1], [printable(name) for name in images.layout.names])

    def _pixels(self, images: FolderImages, args: SimpleNamespace, progress: ProgressCallback | None) -> Tensor:
        """Return all images: those to train on, then those to test on. Skip what is to be skipped.

        Raises:
            UserError: a file cannot be read, and is not to be skipped.
        """
        options, bad = select(FolderOptions, vars(args)), list[BadFile]()
        paths = images.train.paths + images.test.paths

        def report(done: int) -> None:
            if progress:
                progress("reading images", done, len(paths))

        pixels = read_images(paths, options.image_size, report, self.reading, on_bad_image(_skips(options), bad))
        images.without(bad)
        told = {
            file.path for file in bad_images([file.path for file in bad], on_bad_image(True, []))
        }  # by check_data()
        tell_user(args, skipped_note([file for file in bad if file.path not in told]))
        self.skipped_images = as_record(images.skipped, _root(options))
        return pixels


def _images(options: FolderOptions) -> FolderImages:
    return folder_images(_root(options), options.test_fraction, _skips(options))


def _skips(options: FolderOptions) -> bool:
    return options.on_bad_image == "skip"


def _root(options: FolderOptions) -> Path:
    if options.data_dir is None:
        raise UserError("seq-folder needs --data_dir DIR: a folder that holds a folder for each class")
    return Path(options.data_dir)
