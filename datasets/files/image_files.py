"""List image files: find them in folders, check the files of a list, take a fingerprint."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pmi_cl.errors import UserError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}  # Windows and macOS create them
MAX_NAMES = 3  # names in an error message


@dataclass(frozen=True)
class ImageList:
    """Hold the image files of one split, and the class id of each."""

    paths: list[Path]
    labels: list[int]


@contextlib.contextmanager
def refuse_unreadable() -> Iterator[None]:
    """Turn a PermissionError in the body into a UserError that names the folder or file."""
    try:
        yield
    except PermissionError as error:
        raise UserError(
            f"cannot read {error.filename} ({error.strerror}): change its permissions, or take it out of the folder"
        ) from error


@refuse_unreadable()
def subfolders(folder: Path) -> list[str]:
    """Return the sorted names of the subfolders, without hidden ones.

    Raises:
        UserError: the folder cannot be read.
    """
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


@refuse_unreadable()
def images_below(folder: Path, at_least: int = 1) -> list[Path]:
    """Return the sorted image files in a folder and its subfolders.

    Hidden files and :data:`SYSTEM_FILES` are ignored.

    Raises:
        UserError: there are fewer than ``at_least``, a file has another ending than
            :data:`ENDINGS`, or a folder cannot be read.
    """
    found = []
    for place, below, names in os.walk(folder, onerror=_raise):  # os.walk() would ignore errors
        below[:] = [name for name in below if not name.startswith(".")]
        found += [Path(place, name) for name in names if not name.startswith(".") and name.lower() not in SYSTEM_FILES]
    found = sorted(path for path in found if path.is_file())
    refuse_non_images([path for path in found if path.suffix.lower() not in ENDINGS])
    if len(found) < at_least:
        amount = "one image" if found else "no image"
        fault = f"{folder} holds {amount} ({', '.join(ENDINGS)}), it needs {at_least} or more"
        raise UserError(f"{fault}: add some or remove the folder")
    return found


def _raise(error: OSError) -> None:
    raise error


def refuse_non_images(paths: Sequence[Path]) -> None:
    """Raise UserError if there is a path: these files are no images."""
    if paths:
        what = "is no image" if len(paths) == 1 else f"and {len(paths) - 1} more are no images"
        fault = f"{paths[0]} {what} of a kind that is read ({', '.join(ENDINGS)})"
        raise UserError(f"{fault}: convert it, or take it out of the folder")


def refuse_missing(paths: Sequence[Path], root: Path, origin: str, remedy: str) -> None:
    """Raise UserError if files of a list are missing.

    Args:
        root: the folder that the names in the message are relative to.
        origin: where the list is from.
        remedy: what to do.
    """
    missing = [path for path in paths if not path.is_file()]
    if missing:
        names = ", ".join(str(path.relative_to(root)) for path in missing[:MAX_NAMES])
        more = ", ..." if len(missing) > MAX_NAMES else ""
        raise UserError(
            f"{len(missing)} of the {len(paths)} images of {origin} are not in {root}: {names}{more}; {remedy}"
        )


def fingerprint(root: Path, lists: Iterable[ImageList]) -> str:
    """Return the number of images and a hash of all names below ``root``, class ids and lengths."""
    hasher, images = hashlib.sha256(), 0
    for split in lists:
        for path, label in zip(split.paths, split.labels, strict=True):
            line = f"{path.relative_to(root).as_posix()}\0{label}\0{path.stat().st_size}\n"
            hasher.update(line.encode("utf-8", "surrogateescape"))  # the bytes of a name that is not UTF-8
        hasher.update(b"\0")
        images += len(split.paths)
    return f"{images} images, {hasher.hexdigest()[:16]}"
