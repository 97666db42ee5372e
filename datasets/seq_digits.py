"""Present handwritten digits that come with the package: 1,797 real images, no download."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

from pmi_cl.datasets.continual_dataset import ContinualDataset, ProgressCallback, RawData
from pmi_cl.datasets.digit_names import PROMPT, TEMPLATES, WORDS
from pmi_cl.datasets.selection import Split, evenly_spread
from pmi_cl.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

FILE = Path(__file__).with_name("digits.npz")
TEST_FRACTION = 0.2


class SeqDigits(ContinualDataset):
    """Handwritten digits, 8x8 upscaled to 16x16: 5 tasks of 2 classes, inside the package.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (UCI Machine
    Learning Repository, 1998, CC BY 4.0), the 1,797 images of its test set as scikit-learn (BSD-3)
    ships them. ``tools/make_digits.py`` wrote them. One image in five of each class, evenly spread
    over the file, is a test image, whatever the seed: 1,438 train, 359 test. The file does not name
    the writers, so both parts can hold digits of one writer.
    """

    NAME = "seq-digits"
    N_CLASSES = 10
    N_TASKS = 5
    SIZE = (16, 16)
    MEAN = (0.3047, 0.3047, 0.3047)  # measured on the training images
    STD = (0.3186, 0.3186, 0.3186)
    PADDING = 1
    DEFAULTS: ClassVar[dict[str, Any]] = {"backbone": "resnet20"}  # enough for 16 x 16 pixels, in half the time
    FLIP = False  # a mirrored 2 is no digit
    PROMPT = PROMPT
    TEMPLATES = TEMPLATES

    @classmethod
    def check_data(cls, args: SimpleNamespace) -> None:
        """Check that the file, which is part of the package, is there."""
        if not FILE.is_file():
            raise UserError(f"{FILE} is missing: install pmi-cl again")

    @property
    def prompt_names(self) -> list[str]:
        """Return the digits in words, as captions have them."""
        return [WORDS[int(name)] for name in self.class_names]

    def load(self, args: SimpleNamespace, progress: ProgressCallback | None) -> RawData:
        """Read the file of the package. Nothing is fetched."""
        import numpy
        import torch

        with numpy.load(FILE) as file:
            images, labels = upscaled(torch.from_numpy(file["images"])), torch.from_numpy(file["labels"]).long()
        is_test = torch.zeros(len(labels), dtype=torch.bool)
        for label in range(self.N_CLASSES):
            rows = (labels == label).nonzero().squeeze(1)
            is_test[rows[evenly_spread(len(rows), TEST_FRACTION)]] = True
        train, test = (Split(images[part], labels[part]) for part in (~is_test, is_test))
        return RawData(train, test, [str(digit) for digit in range(self.N_CLASSES)])


def upscaled(images: Tensor) -> Tensor:
    """Return pixels 0..255 (n, 3, 16, 16) of values 0..16 (n, 8, 8), by bilinear interpolation.

    The networks take three channels.
    """
    import torch

    grey = images[:, None].float() * (255 / 16)
    larger = torch.nn.functional.interpolate(grey, size=SeqDigits.SIZE, mode="bilinear", align_corners=False)
    return larger.round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
