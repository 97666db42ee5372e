"""Read the official CIFAR-100 files without torchvision, and download them on first use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pmi_cl.datasets.files.fetching import ByteProgress, check_digest, fetch
from pmi_cl.datasets.files.plain_pickles import read_pickle
from pmi_cl.datasets.files.unpacking import unpack
from pmi_cl.errors import UserError

URL = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
ARCHIVE_DIGEST = "md5:eb9058c3a382ffc7106e4002c42a8d85"
FOLDER = "cifar-100-python"
ARCHIVE = "cifar-100-python.tar.gz"
FILES = {  # name -> (bytes, digest), as torchvision checks them
    "train": (155249918, "md5:16019d7e3df5f24257cddd939b257f8d"),
    "test": (31049707, "md5:f0ef6b0ae62326f3e7ffdfab6717acfc"),
    "meta": (1473, "md5:7973b15100ade9c7d40fb424638fde48"),
}


def check_files(base_path: Path, offline: bool) -> None:
    """Check that the files are there or may be downloaded, without reading them.

    Raises:
        UserError: a file has the wrong size, or is missing while ``offline``.
    """
    archive = base_path / ARCHIVE
    by_hand = f"download {URL} and put it at {archive}, or run without --offline"
    for name, (size, _) in FILES.items():
        path = base_path / FOLDER / name
        if path.exists() and path.stat().st_size != size:
            then = by_hand if offline and not archive.exists() else "run again to have it replaced"
            raise UserError(f"{path} has {path.stat().st_size} bytes, not {size}: delete it, then {then}")
    if offline and _missing(base_path) and not archive.exists():
        raise UserError(f"{base_path / FOLDER} lacks {', '.join(_missing(base_path))} of CIFAR-100: {by_hand}")


def files_present(base_path: Path) -> bool:
    """Return whether all files are unpacked."""
    return not _missing(base_path)


def ensure_files(base_path: Path, offline: bool, progress: ByteProgress | None = None) -> None:
    """Unpack the archive in ``base_path`` unless the files are there. Download it if it is missing.

    Raises:
        UserError: the download or the archive fails, or the files may not be downloaded.
    """
    check_files(base_path, offline)
    if _missing(base_path):
        archive = base_path / ARCHIVE
        fetch(URL, archive, ARCHIVE_DIGEST, progress=progress)
        unpack(archive, base_path, [f"{FOLDER}/{name}" for name in FILES])


def read_file(base_path: Path, name: str) -> dict[bytes, Any]:
    """Return the content of "train", "test" or "meta". The keys are bytes, as in the files.

    Raises:
        UserError: the checksum is wrong, or the file holds more than plain data.
    """
    path = base_path / FOLDER / name
    check_digest(path, FILES[name][1], f"delete it, and the next run unpacks or downloads it again ({URL})")
    return read_pickle(path)


def _missing(base_path: Path) -> list[str]:
    return [name for name in FILES if not (base_path / FOLDER / name).exists()]
