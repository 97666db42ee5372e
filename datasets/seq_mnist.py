"""Present MNIST, class-incremental, from its original files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pmi_cl.datasets.continual_dataset import RawData
from pmi_cl.datasets.files.array_files import ArrayFiles, grey_split, verified
from pmi_cl.datasets.files.downloads import Download
from pmi_cl.datasets.files.idx_arrays import read_idx
from pmi_cl.datasets.seq_digits import WORDS, SeqDigits
from pmi_cl.errors import UserError

URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"  # the copy that torchvision fetches
DIGESTS = (  # of training images and labels, and of test images and labels, as in torchvision
    ("train-images-idx3-ubyte.gz", "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873"),
    ("train-labels-idx1-ubyte.gz", "md5:d53e105ee54ea40749a09fcbcd1e9432"),
    ("t10k-images-idx3-ubyte.gz", "md5:9fb629c4189551a2d022fa330f9573f3"),
    ("t10k-labels-idx1-ubyte.gz", "md5:ec29112dd5afa0611ce80d1b7f02629c"),
)


class SeqMnist(ArrayFiles):
    """MNIST: 60,000 training and 10,000 test images of ten digits, 28x28; fetched on first use.

    By default they are shown in 5 tasks of 2 classes. They are read from
    ``<base_path>/MNIST/raw/*.gz``, where torchvision has them. The grey images get three equal
    channels, which the networks take, and keep their size: the ResNets take any. Y. LeCun et al.,
    Gradient-Based Learning Applied to Document Recognition, 1998.
    """

    NAME = "seq-mnist"
    N_CLASSES = 10
    N_TASKS = 5
    SIZE = (28, 28)
    MEAN = (0.1307, 0.1307, 0.1307)  # of the training images, as is the next line
    STD = (0.3081, 0.3081, 0.3081)
    PADDING = 2
    FLIP = False  # a mirrored 2 is no digit
    PROMPT = SeqDigits.PROMPT
    TEMPLATES = SeqDigits.TEMPLATES
    DEFAULTS: ClassVar[dict[str, Any]] = {"backbone": "resnet20"}
    DOWNLOADS = tuple(Download(f"{URL}{name}", digest, f"MNIST/raw/{name}") for name, digest in DIGESTS)
    CLASSES: ClassVar[tuple[str, ...]] = tuple("0123456789")

    @property
    def prompt_names(self) -> list[str]:
        """Return the digits in words, as captions have them."""
        return [WORDS[int(name)] for name in self.class_names]

    def read(self, base_path: Path) -> RawData:
        """Return the images of the four files. Raise UserError if they do not belong together."""
        arrays = [read_idx(verified(base_path, download)) for download in self.DOWNLOADS]
        for images, labels, download in ((*arrays[:2], self.DOWNLOADS[0]), (*arrays[2:], self.DOWNLOADS[2])):
            if images.shape[1:] != self.SIZE or labels.shape != images.shape[:1]:
                shapes = f"{images.shape} and {labels.shape}"
                raise UserError(f"{base_path / download.file} and its labels have the shapes {shapes}: delete both")
        return RawData(grey_split(*arrays[:2]), grey_split(*arrays[2:]), list(self.CLASSES))
