"""Find out, without leaving a trace, whether a folder can be written to and has room."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pmi_cl.errors import UserError

ROOM_MIB = (
    128  # what any run may leave: two checkpoints of small networks, one a task if asked for, events and pictures
)
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def check_writable(folder: Path, room_mib: int = ROOM_MIB, flag: str = "--results_path") -> None:
    """Makes the folder and a file of ``room_mib`` MiB in it, and removes both again; ``flag`` is what named the folder.

    Raises:
        UserError: the folder is a file, may not be written to, or its disk is full.
    """
    try:
        with _temporary_folder(folder), tempfile.TemporaryFile(dir=folder) as file:
            _reserve(file.fileno(), folder, room_mib * 2**20)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{flag} {folder} is or goes through a file: give a folder") from error
    except OSError as error:
        hint = (
            f"make room ({room_mib} MiB), or choose another folder"
            if error.errno in _FULL
            else "choose a folder that you may write to"
        )
        raise UserError(f"cannot write to {flag} {folder} ({error.strerror}): {hint}") from error


@contextlib.contextmanager
def _temporary_folder(folder: Path) -> Iterator[None]:
    """The folder exists in the body; of it and its parents, those that were missing are gone afterwards."""
    missing = []
    for path in (folder, *folder.parents):
        if path.exists():
            break
        missing.append(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for path in missing:
            with contextlib.suppress(OSError):  # not made, or in use by another run that started meanwhile
                path.rmdir()


def _reserve(file: int, folder: Path, size: int) -> None:
    """Asks the system for the blocks of a file: a quota shows here, free space alone would not tell."""
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            if error.errno not in {
                errno.EOPNOTSUPP,
                errno.EINVAL,
            }:  # a file system that cannot reserve is no mistake of the user's
                raise
