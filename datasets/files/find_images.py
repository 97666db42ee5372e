"""Find the image files below a folder, behind links too, and tell what is left out.

Each folder and each file is found once, so that links in a circle end.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pmi_cl.datasets.files.decoding import BadFile
from pmi_cl.errors import UserError
from pmi_cl.machine.plain_text import printable

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
# What systems leave: Windows, macOS, Synology's and other file servers. Compared in lower case.
SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
SYSTEM_FOLDERS = {
    *("@eadir", "#recycle", "__macosx", "lost+found", "$recycle.bin", "recycler"),
    "system volume information",
}
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


@dataclass
class Found:
    """What is below a folder.

    Attributes:
        images: image files, by their endings, sorted.
        bad: what cannot be read: links to nothing, pipes, devices, files without permission.
        others: files with another ending, sorted.
        repeated: links to folders or files that were found already.
    """

    images: list[Path] = field(default_factory=list)
    bad: list[BadFile] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    repeated: int = 0

    def sort(self) -> None:
        """Sort all by path."""
        self.images.sort()
        self.others.sort()
        self.bad.sort(key=lambda file: file.path)


@contextlib.contextmanager
def refuse_unreadable() -> Iterator[None]:
    """Turn a PermissionError in the body into a UserError that names the folder or file."""
    try:
        yield
    except PermissionError as error:
        name = printable(str(error.filename))
        raise UserError(
            f"cannot read {name} ({error.strerror}): change its permissions, or take it out of the folder"
        ) from error


def is_passed_over(name: str, folder: bool) -> bool:
    """Return whether a file or folder is hidden, or one that a system leaves."""
    return name.startswith(".") or name.lower() in (SYSTEM_FOLDERS if folder else SYSTEM_FILES)


@refuse_unreadable()
def subfolders(folder: Path) -> list[str]:
    """Return the sorted names of the subfolders, links to folders among them.

    Hidden folders and :data:`SYSTEM_FOLDERS` are left out.

    Raises:
        UserError: the folder cannot be read.
    """
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not is_passed_over(entry.name, True) and is_folder(entry))


@refuse_unreadable()
def find_images(folder: Path, owners: dict[str, Path] | None = None) -> Found:
    """Return what is below a folder. Hidden and system files and folders are passed over.

    Args:
        folder: the folder of a class.
        owners: where each folder of the disk was found before, for other classes. Those of this
            search are added.

    Raises:
        UserError: a folder cannot be read, or is one of ``owners``.
    """
    return _Search(folder, {} if owners is None else owners).run()


class _Search:
    """One search below a folder. What links lead to comes last, so that files keep their names."""

    def __init__(self, folder: Path, owners: dict[str, Path]) -> None:
        self.folder, self.owners, self.found = folder, owners, Found()
        self.above = {str(path) for path in Path(os.path.realpath(folder)).parents}
        self.folders: deque[Path] = deque([folder])
        self.linked_folders: deque[Path] = deque()
        self.linked_files: list[Path] = []
        self.seen: set[str] = set()  # the folders and files that were found, as they lie on the disk

    def run(self) -> Found:
        while self.folders or self.linked_folders:
            place = (self.folders or self.linked_folders).popleft()
            real = os.path.realpath(place)
            if real in self.above or real in self.seen:
                self.found.repeated += 1
                continue
            owner = self.owners.setdefault(real, place)
            if owner != place:
                both = f"{printable(owner)} and {printable(place)} are one folder, but belong to two classes"
                raise UserError(f"{both}: remove one of them")
            self.seen.add(real)
            self._look_into(place, real)
        for path in sorted(self.linked_files):
            self._add(path, os.path.realpath(path))
        self.found.sort()
        return self.found

    def _look_into(self, place: Path, real: str) -> None:
        with os.scandir(place) as entries:
            for entry in entries:
                path = place / entry.name
                if is_folder(entry):
                    if not is_passed_over(entry.name, True):
                        (self.linked_folders if entry.is_symlink() else self.folders).append(path)
                elif not is_passed_over(entry.name, False):
                    if entry.is_symlink():
                        self.linked_files.append(path)
                    else:
                        self._add(path, f"{real}{os.sep}{entry.name}")

    def _add(self, path: Path, real: str) -> None:
        reason = why_unreadable(path)
        if reason:
            self.found.bad.append(BadFile(path, reason))
        elif real in self.seen:
            self.found.repeated += 1
        else:
            self.seen.add(real)
            (self.found.images if path.suffix.lower() in ENDINGS else self.found.others).append(path)


def why_unreadable(path: Path) -> str:
    """Say why a path is no file that can be read; empty if it is one. The file is not opened."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if not path.is_symlink():
            return error.strerror or type(error).__name__
        gone = "which is not there" if isinstance(error, FileNotFoundError) else error.strerror
        return f"a link to {printable(path.readlink())}, {gone}"
    if not stat.S_ISREG(mode):
        return _KINDS.get(stat.S_IFMT(mode), "no file")
    return "" if os.access(path, os.R_OK) else "Permission denied"


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or one that leads to where nobody may look
        return False
