"""Unpack downloaded archives safely: only files that are asked for, none outside the folder."""

from __future__ import annotations

import contextlib
import lzma
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from pmi_cl.errors import UserError

_FAILURES = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError, NotImplementedError)


def unpack(archive: Path, folder: Path, members: Collection[str]) -> None:
    """Unpack the named members of a tar archive (any compression) into ``folder``.

    The members are written to a temporary folder and then renamed, so that a reader never finds
    half a file.

    Args:
        members: names of regular files in the archive, such as "cifar-100-python/train". Other
            regular files are skipped.

    Raises:
        UserError: the archive is damaged or lacks a member, the disk is full, or any member is
            unsafe: a link, a device, an absolute path or a path that leaves the folder.
    """
    with _temporary_folder(archive, folder) as temporary:
        with tarfile.open(archive) as tar:
            for member in tar:
                _refuse_unsafe(archive, member.name, member.isfile() or member.isdir())
                if member.isfile() and member.name in members:
                    _copy(tar.extractfile(member), temporary / member.name)
        lacking = [name for name in members if not (temporary / name).exists()]
        if lacking:
            raise UserError(f"{archive} lacks {', '.join(lacking)}: delete it and download it again")
        for name in members:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).replace(folder / name)


def unpack_folder(archive: Path, folder: Path, wanted: str, report: Callable[[int, int], None]) -> None:
    """Unpack one top-level folder of a tar or zip archive to ``folder/wanted``.

    Only its regular files are unpacked. The folder appears when it is complete.

    Args:
        report: called with (bytes read, total bytes) of a tar archive, or with (members done, total
            members) of a zip archive.

    Raises:
        UserError: as in :func:`unpack`, or the archive lacks the folder.
    """
    with _temporary_folder(archive, folder) as temporary:
        if zipfile.is_zipfile(archive):
            _from_zip(archive, wanted, temporary, report)
        elif archive.suffix == ".zip":
            raise zipfile.BadZipFile("no whole zip file: its end is missing")
        else:
            _from_tar(archive, wanted, temporary, report)
        if not (temporary / wanted).is_dir():
            raise UserError(f"{archive} lacks the folder {wanted}: delete it and download it again")
        (temporary / wanted).replace(folder / wanted)


def _from_zip(archive: Path, wanted: str, target: Path, report: Callable[[int, int], None]) -> None:
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        for number, member in enumerate(members, start=1):
            kind = member.external_attr >> 28  # Unix file type: 0o10 regular, 0o04 folder, 0 unknown
            _refuse_unsafe(archive, member.filename, kind in (0o10, 0o04, 0))
            if member.flag_bits & 1:
                raise UserError(f"{archive} is encrypted, which no data set is: delete it and download it again")
            if not member.is_dir() and _is_below(member.filename, wanted):
                _copy(file.open(member), target / member.filename)
            report(number, len(members))


def _from_tar(archive: Path, wanted: str, target: Path, report: Callable[[int, int], None]) -> None:
    size = archive.stat().st_size
    with archive.open("rb") as raw, tarfile.open(fileobj=raw) as tar:
        for member in tar:
            _refuse_unsafe(archive, member.name, member.isfile() or member.isdir())
            if member.isfile() and _is_below(member.name, wanted):
                _copy(tar.extractfile(member), target / member.name)
            report(min(raw.tell(), size), size)


def _is_below(name: str, folder: str) -> bool:
    parts = PurePosixPath(name).parts
    return len(parts) > 1 and parts[0] == folder


@contextlib.contextmanager
def _temporary_folder(archive: Path, folder: Path) -> Iterator[Path]:
    """Create a temporary folder in ``folder``. Turn errors of archive and disk into UserError."""
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking-") as temporary:
            yield Path(temporary)
    except _FAILURES as error:
        reason = " ".join(str(error).split())  # tarfile's message has several lines
        raise UserError(f"cannot unpack {archive} ({reason}): make room, or delete it and download it again") from error


def _refuse_unsafe(archive: Path, name: str, regular: bool) -> None:
    """Raise UserError for a member that leaves the folder or is neither a file nor a folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    inside = not path.is_absolute() and ".." not in path.parts and ":" not in "".join(path.parts[:1])
    if not (inside and regular):
        raise UserError(f"{archive} holds '{name}', which no data set holds, and was not unpacked: delete it")


def _copy(source: IO[bytes] | None, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    assert source is not None, "a regular file has content"
    with source, target.open("wb") as file:
        shutil.copyfileobj(source, file)
