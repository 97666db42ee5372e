"""Present CIFAR-10, class-incremental, from torchvision's files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pmi_cl.datasets.continual_dataset import RawData
from pmi_cl.datasets.files.array_files import ArrayFiles, verified
from pmi_cl.datasets.files.downloads import Download
from pmi_cl.datasets.files.plain_pickles import read_pickle
from pmi_cl.datasets.selection import Split

ARCHIVE = Download(
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    "md5:c58f30108f718f92721af3b95e74349a",
    "cifar-10-python.tar.gz",
    "cifar-10-batches-py",
)
TRAIN = {  # name -> digest, as torchvision checks them
    "data_batch_1": "md5:c99cafc152244af753f735de768cd75f",
    "data_batch_2": "md5:d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "md5:54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "md5:634d18415352ddfa80567beed471001a",
    "data_batch_5": "md5:482c414d41f54cd18b22e5b47cb7c3cb",
}
TEST = {"test_batch": "md5:40351d587109b95175f43aff81a1287e"}
META = {"batches.meta": "md5:5ff9c542aee3614f3951f8cda6e48888"}


class SeqCifar10(ArrayFiles):
    """CIFAR-10: 10 classes of 5,000 training and 1,000 test images of 32x32; fetched on first use.

    By default they are shown in 5 tasks. They are read from
    ``<base_path>/cifar-10-batches-py/{data_batch_1 ...,test_batch,batches.meta}``, the files that
    torchvision downloads. A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images,
    2009.
    """

    NAME = "seq-cifar10"
    N_CLASSES = 10
    N_TASKS = 5
    SIZE = (32, 32)
    MEAN = (0.4914, 0.4822, 0.4465)  # of the training images, as is the next line
    STD = (0.2470, 0.2435, 0.2616)
    DOWNLOADS = (ARCHIVE,)

    def read(self, base_path: Path) -> RawData:
        """Return the images of the batches, in the order of the batches."""
        ((meta, digest),) = META.items()
        names = read_pickle(verified(base_path, ARCHIVE, meta, digest))[b"label_names"]
        splits = [
            _joined([verified(base_path, ARCHIVE, name, known) for name, known in files.items()])
            for files in (TRAIN, TEST)
        ]
        return RawData(splits[0], splits[1], [name.decode() for name in names])


def _joined(paths: Sequence[Path]) -> Split:
    import torch

    parts = [read_pickle(path) for path in paths]
    pixels = torch.cat([torch.from_numpy(part[b"data"]) for part in parts]).view(-1, 3, 32, 32)
    return Split(pixels, torch.tensor([label for part in parts for label in part[b"labels"]]))
