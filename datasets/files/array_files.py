"""Define the base of data sets that are published as a few files of arrays."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

from pmi_cl.datasets.continual_dataset import ContinualDataset, ProgressCallback, RawData
from pmi_cl.datasets.dataset_outline import DataArguments
from pmi_cl.datasets.files.downloads import Download, missing
from pmi_cl.datasets.files.fetching import check_digest
from pmi_cl.errors import UserError
from pmi_cl.options import select


class ArrayFiles(ContinualDataset):
    """Read images from published files with known checksums, fetched on first use.

    Attributes:
        DOWNLOADS: the files, with the place below ``base_path`` in which torchvision has them.
    """

    DOWNLOADS: ClassVar[tuple[Download, ...]]

    @classmethod
    def check_data(cls, args: SimpleNamespace) -> None:
        """Raise UserError if files are missing that may not be downloaded. It names all of them."""
        arguments = select(DataArguments, vars(args))
        lacking = missing(cls.DOWNLOADS, Path(arguments.base_path))
        if arguments.offline and lacking:
            names, folder = ", ".join(path.name for _, path in lacking), lacking[0][1].parent
            source = lacking[0][0].rpartition("/")[0]
            by_hand = f"download {names} from {source}/ and put what you get into {folder}"
            raise UserError(f"{cls.NAME} is not in {arguments.base_path}: {by_hand}, or run without --offline")

    @classmethod
    def missing_files(cls, args: SimpleNamespace) -> list[tuple[str, Path]]:
        """Return the files that are neither there nor unpacked."""
        return missing(cls.DOWNLOADS, Path(select(DataArguments, vars(args)).base_path))

    def load(self, args: SimpleNamespace, progress: ProgressCallback | None) -> RawData:
        """Read the files. Fetch them first if they are missing and ``offline`` is off.

        Raises:
            UserError: a file is missing, damaged or of another form.
        """
        self.check_data(args)
        base_path = Path(select(DataArguments, vars(args)).base_path)
        for download in self.DOWNLOADS:
            download.ensure(base_path, progress)
        return self.read(base_path)

    @abstractmethod
    def read(self, base_path: Path) -> RawData:
        """Return the images of files that are there. Their checksums must be right."""


def verified(base_path: Path, download: Download, file: str = "", digest: str = "") -> Path:
    """Return the path of a file whose checksum is right.

    Args:
        base_path: where data lies.
        download: what the file is, or the archive that it comes from.
        file: the name of the file in the archive's folder.
        digest: its checksum, if it is from an archive.

    Raises:
        UserError: it is missing or damaged.
    """
    path = base_path / (download.folder or "") / file if file else base_path / download.file
    again = f"delete {path.parent if file else path}, and the next run fetches it again ({download.url})"
    if not path.is_file():
        raise UserError(f"{path} is missing: {again}")
    check_digest(path, digest or download.digest, again)
    return path
