"""Finds the images in a folder of class folders and reads them as squares of one size."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmi_cl.datasets.selection import evenly_spread
from pmi_cl.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_PARTS = {"train", "test", "val", "valid", "validation"}


@dataclass(frozen=True)
class ImageList:
    """The image files of one split, each with the number of its class."""

    paths: list[Path]
    labels: list[int]


def class_names(root: Path) -> list[str]:
    """The class folders in ``root``, or in its ``train/`` and ``test/``, sorted. Looks at folders only.

    Raises:
        UserError: no such folder, fewer than two classes, one of ``train/`` and ``test/`` without the other, or classes that
            only one of them has.
    """
    if not root.is_dir():
        raise UserError(f"--data_dir {root}: there is no such folder; give one that holds a folder for each class")
    names = _subfolders(root)
    if _has_split(root):
        names = _subfolders(root / "train")
        _refuse_mismatch(root, names, _subfolders(root / "test"))
    elif names and set(names) <= _PARTS and any(_subfolders(root / name) for name in names):
        raise UserError(
            f"{root} has {', '.join(f'{name}/' for name in names)}: it needs both train/ and test/, or the class folders themselves"
        )
    if len(names) < 2:
        found = f"one class folder ('{names[0]}')" if names else "no class folder"
        raise UserError(f"--data_dir {root} holds {found}: give a folder with at least two, each with the images of one class")
    return names


def list_images(root: Path, names: Sequence[str], test_fraction: float) -> tuple[ImageList, ImageList]:
    """The train and test images of the classes ``names``, sorted by path; files with other endings are passed over.

    Without ``train/`` and ``test/`` the fraction of each class, evenly spread over its sorted paths, is the test split,
    whatever the seed.

    Raises:
        UserError: a class without an image, or with too few to split.
    """
    train, test = ImageList([], []), ImageList([], [])
    for label, name in enumerate(names):
        if _has_split(root):
            parts = [_images_below(root / part / name, at_least=1) for part in ("train", "test")]
        else:
            files = _images_below(root / name, at_least=2)
            places = set(evenly_spread(len(files), test_fraction))
            parts = [[path for k, path in enumerate(files) if (k in places) == is_test] for is_test in (False, True)]
        for split, paths in zip((train, test), parts, strict=True):
            split.paths.extend(paths)
            split.labels.extend([label] * len(paths))
    return train, test


def check_images(paths: Sequence[Path]) -> None:
    """Raises UserError, which names the file, for one that is no image; what is damaged further in shows when it is read."""
    from PIL import Image

    def verify(path: Path) -> None:
        with Image.open(path) as image:
            image.verify()

    _for_each(paths, verify, lambda done: None)


def read_images(paths: Sequence[Path], size: int, report: Callable[[int], None]) -> Tensor:
    """The images as one uint8 tensor (n, 3, size, size): of each the central square, resized.

    Args:
        report: told how many are read, after each.

    Raises:
        UserError: a file that is no image or is damaged; its name is in the text.
    """
    import numpy
    import torch

    pixels = numpy.empty((len(paths), 3, size, size), dtype=numpy.uint8)
    places = {path: k for k, path in enumerate(paths)}

    def read(path: Path) -> None:
        pixels[places[path]] = _square(path, size)

    _for_each(paths, read, report)
    return torch.from_numpy(pixels)


def _for_each(paths: Sequence[Path], work: Callable[[Path], None], report: Callable[[int], None]) -> None:
    """Calls ``work`` on every path, in threads (image decoders let others run meanwhile)."""
    from PIL import UnidentifiedImageError

    def guarded(path: Path) -> None:
        try:
            work(path)
        except Exception as error:  # a damaged file can raise almost anything in a decoder
            unknown = isinstance(error, UnidentifiedImageError)
            reason = "of no known format" if unknown else " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"{path} is not a readable image ({reason}): repair it, or take it out of the folder") from error

    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        for done, _ in enumerate(pool.map(guarded, paths), start=1):
            report(done)


def _square(path: Path, size: int) -> Any:
    """The central square of an image file as a uint8 array (3, size, size), turned upright as its EXIF data tells."""
    import numpy
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        image.draft(None, (2 * size, 2 * size))  # a JPEG is decoded at the smallest scale that is still twice as large
        upright = _rgb(ImageOps.exif_transpose(image))
    square = ImageOps.fit(upright, (size, size), Image.Resampling.BILINEAR)
    return numpy.asarray(square).transpose(2, 0, 1)


def _rgb(image: Image) -> Image:
    import numpy
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits of grey, which convert() would cut off at 255
        image = Image.fromarray((numpy.asarray(image).astype(numpy.int64) >> 8).clip(0, 255).astype(numpy.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the way that Pillow asks for, with the same colours
    return image.convert("RGB")


def _has_split(root: Path) -> bool:
    return (root / "test").is_dir() and (root / "train").is_dir() and bool(_subfolders(root / "train"))


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _images_below(folder: Path, at_least: int) -> list[Path]:
    files = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and not path.name.startswith(".") and path.is_file()
    )
    if len(files) < at_least:
        found = "one image" if files else "no image"
        raise UserError(f"{folder} holds {found} ({', '.join(ENDINGS)}), it needs {at_least} or more: add some or remove the folder")
    return files


def _refuse_mismatch(root: Path, train: list[str], test: list[str]) -> None:
    only = {"train": sorted(set(train) - set(test)), "test": sorted(set(test) - set(train))}
    faults = [f"only in {part}/: {', '.join(names)}" for part, names in only.items() if names]
    if faults:
        raise UserError(f"{root}: train/ and test/ must hold the same class folders; {'; '.join(faults)}")
