"""Lists of image files: those of a folder, those that a list names, and a fingerprint by which to know them again."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pmi_cl.errors import UserError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
SYSTEM_FILES = {
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "icon\r",
}  # which Windows and macOS leave without being asked
SHOWN = 3  # names in an error


@dataclass(frozen=True)
class ImageList:
    """The image files of one split, each with the number of its class."""

    paths: list[Path]
    labels: list[int]


@contextlib.contextmanager
def refuse_unreadable() -> Iterator[None]:
    """Turns a lack of permission in the body into a UserError that names the folder or file."""
    try:
        yield
    except PermissionError as error:
        raise UserError(
            f"cannot read {error.filename} ({error.strerror}): change its permissions, or take it out of the folder"
        ) from error


@refuse_unreadable()
def subfolders(folder: Path) -> list[str]:
    """The names of the folders in a folder, sorted, without hidden ones. Raises UserError for one that may not be read."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


@refuse_unreadable()
def images_below(folder: Path, at_least: int = 1) -> list[Path]:
    """The image files in a folder and in those below it, sorted; hidden files and those that a system leaves are passed over.

    Raises:
        UserError: fewer than ``at_least``, a file that is no image of a kind that is read, or a folder that may not be read.
    """
    found = []
    for place, below, names in os.walk(folder, onerror=_raise):  # which it would pass over
        below[:] = [name for name in below if not name.startswith(".")]
        found += [Path(place, name) for name in names if not name.startswith(".") and name.lower() not in SYSTEM_FILES]
    found = sorted(path for path in found if path.is_file())
    refuse_others([path for path in found if path.suffix.lower() not in ENDINGS])
    if len(found) < at_least:
        amount = "one image" if found else "no image"
        raise UserError(
            f"{folder} holds {amount} ({', '.join(ENDINGS)}), it needs {at_least} or more: add some or remove the folder"
        )
    return found


def _raise(error: OSError) -> None:
    raise error


def refuse_others(paths: Sequence[Path]) -> None:
    """Raises UserError for files among the images that are none."""
    if paths:
        what = "is no image" if len(paths) == 1 else f"and {len(paths) - 1} more are no images"
        raise UserError(
            f"{paths[0]} {what} of a kind that is read ({', '.join(ENDINGS)}): convert it, or take it out of the folder"
        )


def refuse_missing(paths: Sequence[Path], root: Path, origin: str, remedy: str) -> None:
    """Raises UserError if files of a list are not there: how many, the first few, where the list is from, and what to do."""
    missing = [path for path in paths if not path.is_file()]
    if missing:
        names = ", ".join(str(path.relative_to(root)) for path in missing[:SHOWN])
        more = ", ..." if len(missing) > SHOWN else ""
        raise UserError(
            f"{len(missing)} of the {len(paths)} images of {origin} are not in {root}: {names}{more}; {remedy}"
        )


def fingerprint(root: Path, lists: Iterable[ImageList]) -> str:
    """The number of images and a hash of what each is called below ``root``, of its class and of its length, split by split."""
    hasher, images = hashlib.sha256(), 0
    for split in lists:
        for path, label in zip(split.paths, split.labels, strict=True):
            hasher.update(f"{path.relative_to(root).as_posix()}\0{label}\0{path.stat().st_size}\n".encode())
        hasher.update(b"\0")
        images += len(split.paths)
    return f"{images} images, {hasher.hexdigest()[:16]}"
