"""Unpacks downloaded tar archives with suspicion: only the files asked for, none of them outside the folder."""

from __future__ import annotations

import lzma
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from pmi_cl.errors import UserError


def unpack(archive: Path, folder: Path, members: Collection[str]) -> None:
    """Unpacks the named members of a tar archive (any compression) below ``folder``.

    They are written to a temporary folder and renamed when all are there, so that no half a file is ever found.

    Args:
        members: names of ordinary files within the archive, e.g. "cifar-100-python/train"; other ordinary files are left out.

    Raises:
        UserError: a damaged archive; one that lacks a member; one that holds a link, a device, an absolute path or a path
            that leaves the folder, even if nobody asked for it; a full disk.
    """
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking-") as temporary:
            with tarfile.open(archive) as tar:
                for member in tar:
                    _refuse_unsafe(archive, member)
                    if member.isfile() and member.name in members:
                        _extract(tar, member, Path(temporary) / member.name)
            lacking = [name for name in members if not (Path(temporary) / name).exists()]
            if lacking:
                raise UserError(f"{archive} lacks {', '.join(lacking)}: delete it and download it again")
            for name in members:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (Path(temporary) / name).replace(folder / name)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        raise UserError(f"cannot unpack {archive} ({error}): make room, or delete it and download it again") from error


def _refuse_unsafe(archive: Path, member: tarfile.TarInfo) -> None:
    path = PurePosixPath(member.name.replace("\\", "/"))
    inside = not path.is_absolute() and ".." not in path.parts and ":" not in path.parts[0]
    if not (inside and (member.isfile() or member.isdir())):
        raise UserError(f"{archive} holds '{member.name}', which no data set holds, and was not unpacked: delete it")


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    source = tar.extractfile(member)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        shutil.copyfileobj(source, file)  # type: ignore[arg-type]  # an ordinary file has content
