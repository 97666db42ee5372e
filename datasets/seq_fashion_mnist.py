"""Present Fashion-MNIST, class-incremental, from its original files."""

from __future__ import annotations

from typing import ClassVar

from pmi_cl.datasets.files.idx_images import IdxImages, idx_downloads


class SeqFashionMnist(IdxImages):
    """Fashion-MNIST: 60,000 training and 10,000 test images of ten clothes; fetched on first use.

    It has MNIST's sizes and files, in ``<base_path>/FashionMNIST/raw/*.gz``. Clothes are mirrored.
    H. Xiao et al., Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
    Algorithms, 2017.
    """

    NAME = "seq-fashion-mnist"
    MEAN = (0.2860, 0.2860, 0.2860)  # of the training images, as is the next line
    STD = (0.3530, 0.3530, 0.3530)
    DOWNLOADS = idx_downloads(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "FashionMNIST/raw",
        (
            "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "md5:25c81989df183df01b3e8a0aad5dffbe",
            "md5:bef4ecab320f06d8554ea6380940ec79",
            "md5:bb300cfdad3c16e7a12a480ee83cd310",
        ),
    )
    CLASSES: ClassVar[tuple[str, ...]] = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )

    @property
    def prompt_names(self) -> list[str]:
        """Return the names as captions have them."""
        return [name.lower() for name in self.class_names]
