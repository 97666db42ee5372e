"""Files that a data set needs and a run may fetch: said when they are missing, fetched and unpacked when they are used."""

from __future__ import annotations

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
    """A file with a known checksum, put below ``base_path``.

    Attributes:
        url, digest: where it is, and "md5:<hex>" or "sha256:<hex>".
        file: its name in ``base_path``.
        folder: for an archive, the folder that is unpacked from it into ``base_path``; None: the file itself is used.
    """

    url: str
    digest: str
    file: str
    folder: str | None = None

    def present(self, base_path: Path) -> bool:
        """Whether there is nothing to do."""
        return (base_path / self.folder).is_dir() if self.folder else (base_path / self.file).is_file()

    def check(self, base_path: Path, offline: bool) -> None:
        """Raises UserError if it is not there and may not be fetched."""
        if offline and not self.present(base_path) and not (base_path / self.file).is_file():
            target = base_path / (self.folder or self.file)
            raise UserError(
                f"{target} is missing: download {self.url} and put it at {base_path / self.file}, or run without --offline"
            )

    def ensure(self, base_path: Path, progress: ProgressCallback | None = None) -> None:
        """Fetches the file, unless it lies there, and unpacks it. Raises UserError where that fails; nothing half is left."""
        if self.present(base_path):
            return
        fetch(self.url, base_path / self.file, self.digest, progress=in_mebibytes(progress, self.file))
        if self.folder:
            told = progress or (lambda phase, done, total: None)
            unpack_folder(
                base_path / self.file,
                base_path,
                self.folder,
                lambda done, total: told(f"unpacking {self.file}", done, total),
            )


def in_mebibytes(progress: ProgressCallback | None, name: str) -> ByteProgress:
    """Tells ``progress`` how many MiB of a download, called ``name``, are there."""

    def told(done: int, total: int) -> None:
        if progress:
            progress(f"downloading {name} (MiB)", -(-done // 2**20), -(-total // 2**20))

    return told
