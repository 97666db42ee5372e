"""List image files, check the files of a list, take a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pmi_cl.datasets.files.file_names import name_bytes, shown_name
from pmi_cl.datasets.files.find_images import ENDINGS, Found, find_images
from pmi_cl.errors import UserError
from pmi_cl.machine.plain_text import few


@dataclass(frozen=True)
class ImageList:
    """Hold the image files of one split, and the class id of each."""

    paths: list[Path]
    labels: list[int]

    def without(self, gone: Collection[Path]) -> ImageList:
        """Return the list without some files."""
        kept = [k for k, path in enumerate(self.paths) if path not in gone]
        return ImageList([self.paths[k] for k in kept], [self.labels[k] for k in kept])


def images_below(folder: Path, at_least: int = 1, owners: dict[str, Path] | None = None) -> list[Path]:
    """Return the sorted image files in a folder and its subfolders, see :func:`find_images`.

    Raises:
        UserError: there are fewer than ``at_least``, a file has another ending than
            :data:`ENDINGS`, or a file or a folder cannot be read.
    """
    found = find_images(folder, owners)
    refuse_bad(found)
    refuse_few(folder, len(found.images), at_least)
    return found.images


def refuse_bad(found: Found, skippable: bool = False) -> None:
    """Raise UserError for a file that is no image by its ending, or cannot be read.

    Args:
        found: what was found in a folder.
        skippable: whether the command has a flag that skips such files.
    """
    refuse_non_images(found.others, skippable)
    for file in found.bad[:1]:
        file.refuse(skippable)


def refuse_few(folder: Path, images: int, at_least: int) -> None:
    """Raise UserError if a class folder has fewer images than are needed."""
    if images < at_least:
        amount = "one image" if images else "no image"
        fault = f"{shown_name(folder)} holds {amount} ({', '.join(ENDINGS)}), it needs {at_least} or more"
        raise UserError(f"{fault}: add some or remove the folder")


def refuse_non_images(paths: Sequence[Path], skippable: bool = False) -> None:
    """Raise UserError if there is a path: these files are no images.

    Args:
        paths: files with another ending than :data:`ENDINGS`.
        skippable: whether the command has a flag that skips such files.
    """
    if paths:
        what = "is no image" if len(paths) == 1 else f"and {len(paths) - 1} more are no images"
        fault = f"{shown_name(paths[0])} {what} of a kind that is read ({', '.join(ENDINGS)})"
        advice = "convert it, or take it out of the folder" + (", or say --on_bad_image skip" if skippable else "")
        raise UserError(f"{fault}: {advice}")


def refuse_missing(paths: Sequence[Path], root: Path, origin: str, remedy: str) -> None:
    """Raise UserError if files of a list are missing.

    Args:
        root: the folder that the names in the message are relative to.
        origin: where the list is from.
        remedy: what to do.
    """
    missing = [path for path in paths if not path.is_file()]
    if missing:
        names = few(shown_name(path.relative_to(root)) for path in missing)
        raise UserError(f"{len(missing)} of the {len(paths)} images of {origin} are not in {root}: {names}; {remedy}")


def refuse_empty_classes(images: ImageList, names: Sequence[str], what: str) -> None:
    """Raise UserError if a class has no image left after files were skipped.

    Args:
        images: the images of one split.
        names: the name of each class.
        what: "training" or "test".
    """
    empty = sorted(set(range(len(names))) - set(images.labels))
    if empty:
        fault = f"class '{shown_name(names[empty[0]])}' has no {what} image left"
        raise UserError(f"{fault} without those that cannot be read: repair some, or leave the class out")


def fingerprint(root: Path, lists: Iterable[ImageList]) -> str:
    """Return the number of images and a hash of all names below ``root``, class ids and lengths."""
    hasher, images = hashlib.sha256(), 0
    for split in lists:
        for path, label in zip(split.paths, split.labels, strict=True):
            hasher.update(name_bytes(path.relative_to(root).as_posix()))
            hasher.update(f"\0{label}\0{path.stat().st_size}\n".encode())
        hasher.update(b"\0")
        images += len(split.paths)
    return f"{images} images, {hasher.hexdigest()[:16]}"


def state_of_files(paths: Iterable[Path], root: Path) -> str:
    """Return a hash of the names below ``root``, the lengths and the times of change of files."""
    hasher = hashlib.sha256()
    for path in paths:
        stat = path.stat()
        hasher.update(name_bytes(path.relative_to(root).as_posix()))
        hasher.update(f"\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return hasher.hexdigest()
