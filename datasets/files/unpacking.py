"""Unpacks downloaded archives with suspicion: only the files asked for, none of them outside the folder."""

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
    """Unpacks the named members of a tar archive (any compression) below ``folder``.

    They are written to a temporary folder and renamed when all are there, so that no half a file is ever found.

    Args:
        members: names of ordinary files within the archive, e.g. "cifar-100-python/train"; other ordinary files are left out.

    Raises:
        UserError: a damaged archive; one that lacks a member; one that holds a link, a device, an absolute path or a path
            that leaves the folder, even if nobody asked for it; a full disk.
    """
    with _beside(archive, folder) as temporary:
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
    """Unpacks the ordinary files of one top-level folder of a tar or zip archive to ``folder/wanted``, which appears when it is whole.

    Args:
        report: told (bytes of the archive read, bytes in all) for a tar, (members done, members in all) for a zip.

    Raises:
        UserError: as for :func:`unpack`; an archive without that folder.
    """
    with _beside(archive, folder) as temporary:
        if zipfile.is_zipfile(archive):
            _from_zip(archive, wanted, temporary, report)
        else:
            _from_tar(archive, wanted, temporary, report)
        if not (temporary / wanted).is_dir():
            raise UserError(f"{archive} lacks the folder {wanted}: delete it and download it again")
        (temporary / wanted).replace(folder / wanted)


def _from_zip(archive: Path, wanted: str, target: Path, report: Callable[[int, int], None]) -> None:
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        for number, member in enumerate(members, start=1):
            kind = member.external_attr >> 28  # of a Unix file: 0o10 ordinary, 0o04 folder, 0 not told
            _refuse_unsafe(archive, member.filename, kind in (0o10, 0o04, 0))
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
def _beside(archive: Path, folder: Path) -> Iterator[Path]:
    """A temporary folder in ``folder``; what goes wrong with the archive or the disk meanwhile is a UserError."""
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking-") as temporary:
            yield Path(temporary)
    except _FAILURES as error:
        reason = " ".join(str(error).split())  # tarfile's has a line for each kind of archive that it is not
        raise UserError(f"cannot unpack {archive} ({reason}): make room, or delete it and download it again") from error


def _refuse_unsafe(archive: Path, name: str, ordinary: bool) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    inside = not path.is_absolute() and ".." not in path.parts and ":" not in "".join(path.parts[:1])
    if not (inside and ordinary):
        raise UserError(f"{archive} holds '{name}', which no data set holds, and was not unpacked: delete it")


def _copy(source: IO[bytes] | None, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    assert source is not None, "an ordinary file has content"
    with source, target.open("wb") as file:
        shutil.copyfileobj(source, file)
