"""Check that a folder can be written to and has room, without leaving a trace."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pmi_cl.errors import UserError

# What any run may leave: checkpoints of a small network, TensorBoard events and pictures.
ROOM_MIB = 128
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def check_writable(folder: Path, room_mib: int = ROOM_MIB, flag: str = "--results_path") -> None:
    """Create the folder and a file of ``room_mib`` MiB in it, then remove both.

    Args:
        flag: the flag that named the folder, for the error message.

    Raises:
        UserError: the folder is a file, cannot be written to, or its disk is full.
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
    """Create the folder for the body, then remove it and every parent that was missing before."""
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
            with contextlib.suppress(OSError):  # not created, or already in use by another run
                path.rmdir()


def _reserve(file: int, folder: Path, size: int) -> None:
    """Reserve the blocks of a file. This finds a quota that the free space does not show."""
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            # Some file systems cannot reserve blocks. That is not an error of the user.
            if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL}:
                raise
