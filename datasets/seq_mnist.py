"""Present MNIST, class-incremental, from its original files."""

from __future__ import annotations

from typing import ClassVar

from pmi_cl.datasets.digit_names import PROMPT, TEMPLATES, WORDS
from pmi_cl.datasets.files.idx_images import IdxImages, idx_downloads


class SeqMnist(IdxImages):
    """MNIST: 60,000 training and 10,000 test images of ten digits, 28x28; fetched on first use.

    By default they are shown in 5 tasks of 2 classes. They are read from
    ``<base_path>/MNIST/raw/*.gz``, where torchvision has them. Y. LeCun et al., Gradient-Based
    Learning Applied to Document Recognition, 1998.
    """

    NAME = "seq-mnist"
    MEAN = (0.1307, 0.1307, 0.1307)  # of the training images, as is the next line
    STD = (0.3081, 0.3081, 0.3081)
    FLIP = False  # a mirrored 2 is no digit
    PROMPT = PROMPT
    TEMPLATES = TEMPLATES
    DOWNLOADS = idx_downloads(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",  # the copy that torchvision fetches
        "MNIST/raw",
        (
            "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "md5:d53e105ee54ea40749a09fcbcd1e9432",
            "md5:9fb629c4189551a2d022fa330f9573f3",
            "md5:ec29112dd5afa0611ce80d1b7f02629c",
        ),
    )
    CLASSES: ClassVar[tuple[str, ...]] = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")

    @property
    def prompt_names(self) -> list[str]:
        """Return the digits in words, as captions have them."""
        return [WORDS[int(name)] for name in self.class_names]
