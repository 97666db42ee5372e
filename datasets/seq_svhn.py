"""Present the Street View House Numbers, class-incremental, from their original files."""

from __future__ import annotations

from pathlib import Path

from pmi_cl.datasets.continual_dataset import RawData
from pmi_cl.datasets.digit_names import WORDS
from pmi_cl.datasets.files.array_files import ArrayFiles, verified
from pmi_cl.datasets.files.downloads import Download
from pmi_cl.datasets.files.mat_arrays import read_mat
from pmi_cl.datasets.selection import Split
from pmi_cl.errors import UserError

URL = "http://ufldl.stanford.edu/housenumbers/"
DIGESTS = (  # as in torchvision
    ("train_32x32.mat", "md5:e26dedcc434d2e4c54c9b2d4a06d8373"),
    ("test_32x32.mat", "md5:eb5a983be6a315427106f1b164d9cef3"),
)


class SeqSvhn(ArrayFiles):
    """SVHN: 73,257 training and 26,032 test images of house numbers, 32x32; fetched on first use.

    By default they are shown in 5 tasks of 2 digits. They are read from
    ``<base_path>/{train,test}_32x32.mat``, where torchvision has them. The files call the digit
    zero 10; here its class id is 0. Y. Netzer et al., Reading Digits in Natural Images with
    Unsupervised Feature Learning, 2011.
    """

    NAME = "seq-svhn"
    N_CLASSES = 10
    N_TASKS = 5
    SIZE = (32, 32)
    MEAN = (0.4377, 0.4438, 0.4728)  # of the training images, as is the next line
    STD = (0.1980, 0.2010, 0.1970)
    FLIP = False  # a mirrored 2 is no digit
    PROMPT = "a photo of the house number {}."
    TEMPLATES = ("a photo of the house number {}.", "a photo of the number {}.", "a street sign of the number {}.")
    DOWNLOADS = tuple(Download(f"{URL}{name}", digest, name) for name, digest in DIGESTS)

    @property
    def prompt_names(self) -> list[str]:
        """Return the digits in words, as captions have them."""
        return [WORDS[int(name)] for name in self.class_names]

    def read(self, base_path: Path) -> RawData:
        """Return the images of the two files."""
        train, test = (_split(verified(base_path, download)) for download in self.DOWNLOADS)
        return RawData(train, test, [str(digit) for digit in range(self.N_CLASSES)])


def _split(path: Path) -> Split:
    """Return the images X (32, 32, 3, n) and the labels y (n, 1), 1 to 10, of a file."""
    import numpy
    import torch

    nothing = numpy.empty(0)
    arrays = read_mat(path)
    images, labels = arrays.get("X", nothing), arrays.get("y", nothing)
    if images.dtype != numpy.uint8 or images.shape != (32, 32, 3, labels.size):
        raise UserError(f"{path} does not hold X and y of SVHN: delete it, and the next run fetches it")
    pixels = torch.from_numpy(images.transpose(3, 2, 0, 1).copy())
    return Split(pixels, torch.from_numpy(labels.flatten().astype("int64") % 10))
