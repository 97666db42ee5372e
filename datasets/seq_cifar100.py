"""Present CIFAR-100, class-incremental, from torchvision's files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pmi_cl.datasets.continual_dataset import ContinualDataset, ProgressCallback, RawData
from pmi_cl.datasets.dataset_outline import DataArguments, DatasetOptions
from pmi_cl.datasets.files.cifar100_files import ARCHIVE, URL, check_files, ensure_files, files_present, read_file
from pmi_cl.datasets.files.downloads import report_in_mib
from pmi_cl.datasets.selection import Split
from pmi_cl.options import new_default, select


@dataclass(frozen=True)
class CifarOptions(DatasetOptions):
    """The flags of ``seq-cifar100``."""

    class_order: str = new_default(
        "rdfcil0",
        "R-DFCIL's order 1, the only one in PMI's release",
        help="rdfcil0, rdfcil1, rdfcil2 (R-DFCIL's three), np1993, continualclip, natural, seed:<n>, "
        "or every class id separated by commas",
    )


class SeqCifar100(ContinualDataset):
    """CIFAR-100: 100 classes of 500 training and 100 test images of 32x32; fetched on first use.

    By default they are shown in 10 tasks. They are read from
    ``<base_path>/cifar-100-python/{train,test,meta}``, the files that torchvision downloads. Class
    ids are the fine labels. A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images,
    2009.
    """

    NAME = "seq-cifar100"
    N_CLASSES = 100
    N_TASKS = 10
    SIZE = (32, 32)
    MEAN = (0.5071, 0.4867, 0.4408)  # from R-DFCIL, as are the next line and the crop of 4 pixels
    STD = (0.2675, 0.2565, 0.2761)
    TEMPLATES = (  # the 18 that OpenAI published for CLIP on this data set, which PROOF uses, too
        "a photo of a {}.",
        "a blurry photo of a {}.",
        "a black and white photo of a {}.",
        "a low contrast photo of a {}.",
        "a high contrast photo of a {}.",
        "a bad photo of a {}.",
        "a good photo of a {}.",
        "a photo of a small {}.",
        "a photo of a big {}.",
        "a photo of the {}.",
        "a blurry photo of the {}.",
        "a black and white photo of the {}.",
        "a low contrast photo of the {}.",
        "a high contrast photo of the {}.",
        "a bad photo of the {}.",
        "a good photo of the {}.",
        "a photo of the small {}.",
        "a photo of the big {}.",
    )
    Options = CifarOptions

    @classmethod
    def check_data(cls, args: SimpleNamespace) -> None:
        """Compare the sizes of the files. Their checksums are compared when they are loaded."""
        arguments = select(DataArguments, vars(args))
        check_files(Path(arguments.base_path), arguments.offline)

    @classmethod
    def missing_files(cls, args: SimpleNamespace) -> list[tuple[str, Path]]:
        """Return the archive, unless it or its content is there."""
        base_path = Path(select(DataArguments, vars(args)).base_path)
        return [] if files_present(base_path) or (base_path / ARCHIVE).is_file() else [(URL, base_path / ARCHIVE)]

    def load(self, args: SimpleNamespace, progress: ProgressCallback | None) -> RawData:
        """Read the three files, whose checksums must be right.

        Fetch them if they are missing and ``offline`` is off.
        """
        arguments = select(DataArguments, vars(args))
        base_path = Path(arguments.base_path)
        ensure_files(base_path, arguments.offline, report_in_mib(progress, "CIFAR-100"))
        names = [name.decode() for name in read_file(base_path, "meta")[b"fine_label_names"]]
        return RawData(_split(read_file(base_path, "train")), _split(read_file(base_path, "test")), names)


def _split(content: dict[bytes, Any]) -> Split:
    import torch

    pixels = torch.from_numpy(content[b"data"]).view(-1, 3, 32, 32)  # shares the memory of the file: not copied
    return Split(pixels, torch.tensor(content[b"fine_labels"]))
