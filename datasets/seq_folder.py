"""Present any folder of images as a data set.

It has a folder for each class, with or without ``train/`` and ``test/`` around them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from pmi_cl.datasets.augmentation import mean_and_std
from pmi_cl.datasets.continual_dataset import ContinualDataset, ProgressCallback, RawData
from pmi_cl.datasets.dataset_outline import DatasetOptions
from pmi_cl.datasets.files.image_files import fingerprint
from pmi_cl.datasets.files.image_folder import check_images, class_names, list_images, read_images
from pmi_cl.datasets.selection import Split
from pmi_cl.errors import UserError
from pmi_cl.options import option, select


@dataclass(frozen=True)
class FolderOptions(DatasetOptions):
    """The flags of ``seq-folder``."""

    data_dir: str | None = option(
        None,
        "folder that holds a folder for each class, or train/ and test/ with those; required",
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
        """Look at every file, without decoding it whole."""
        options = select(FolderOptions, vars(args))
        for split in list_images(_root(options), class_names(_root(options)), options.test_fraction):
            check_images(split.paths)

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
        names = class_names(_root(options))
        train, test = list_images(_root(options), names, options.test_fraction)
        total = len(train.paths) + len(test.paths)

        def report(done: int) -> None:
            if progress:
                progress("reading images", done, total)

        images = read_images(train.paths + test.paths, options.image_size, report)
        pixels = images[: len(train.paths)], images[len(train.paths) :]
        self.fingerprint = fingerprint(_root(options), (train, test))
        self.SIZE = (options.image_size, options.image_size)
        self.PADDING = max(1, options.image_size // 8)  # 4 of 32 pixels, as for CIFAR
        self.MEAN, self.STD = mean_and_std(pixels[0])
        splits = [Split(part, torch.tensor(paths.labels)) for part, paths in zip(pixels, (train, test), strict=True)]
        return RawData(splits[0], splits[1], names)


def _root(options: FolderOptions) -> Path:
    if options.data_dir is None:
        raise UserError("seq-folder needs --data_dir DIR: a folder that holds a folder for each class")
    return Path(options.data_dir)
