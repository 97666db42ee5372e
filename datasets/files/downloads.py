"""Describe the files that a data set needs, and download and unpack them when they are missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pmi_cl.datasets.files.fetching import ByteProgress, fetch
from pmi_cl.datasets.files.unpacking import unpack_folder
from pmi_cl.errors import UserError

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ProgressCallback


@dataclass(frozen=True)
class Download:
    """Describe a file with a known checksum.

    Attributes:
        url: its address.
        digest: its checksum, "md5:<hex>" or "sha256:<hex>".
        file: its name in ``base_path``.
        folder: the folder that is unpacked from an archive into ``base_path``. None if the file
            itself is used.
    """

    url: str
    digest: str
    file: str
    folder: str | None = None

    def present(self, base_path: Path) -> bool:
        """Return whether the file, or the unpacked folder, is there."""
        return (base_path / self.folder).is_dir() if self.folder else (base_path / self.file).is_file()

    def check(self, base_path: Path, offline: bool) -> None:
        """Raise UserError if the file is missing and may not be downloaded."""
        if offline and not self.present(base_path) and not (base_path / self.file).is_file():
            target = base_path / (self.folder or self.file)
            by_hand = f"download {self.url} and put it at {base_path / self.file}"
            raise UserError(f"{target} is missing: {by_hand}, or run without --offline")

    def ensure(self, base_path: Path, progress: ProgressCallback | None = None) -> None:
        """Download the file if it is missing, and unpack it.

        Raises:
            UserError: one of these failed. No partial file is left.
        """
        if self.present(base_path):
            return
        fetch(self.url, base_path / self.file, self.digest, progress=report_in_mib(progress, self.file))
        if self.folder:
            self._unpack(base_path, self.folder, progress)

    def _unpack(self, base_path: Path, folder: str, progress: ProgressCallback | None) -> None:
        def report(done: int, total: int) -> None:
            if progress:
                progress(f"unpacking {self.file}", done, total)

        unpack_folder(base_path / self.file, base_path, folder, report)


def missing(downloads: Sequence[Download], base_path: Path) -> list[tuple[str, Path]]:
    """Return (address, path) of each file that is neither there nor unpacked."""
    needed = [each for each in downloads if not each.present(base_path)]
    places = [(download.url, base_path / download.file) for download in needed]
    return [(url, file) for url, file in places if not file.is_file()]


def report_in_mib(progress: ProgressCallback | None, name: str) -> ByteProgress:
    """Return a callback that reports the bytes of a download to ``progress`` in MiB."""

    def report(done: int, total: int) -> None:
        if progress:
            progress(f"downloading {name} (MiB)", -(-done // 2**20), -(-total // 2**20))

    return report
