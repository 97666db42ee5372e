"""Offer our data sets to Mammoth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pmi_cl.datasets.continual_dataset import ContinualDataset
from pmi_cl.datasets.multi_domain import MultiDomain
from pmi_cl.errors import UserError
from pmi_cl.machine.user_paths import user_path
from pmi_cl.mammoth.equal_tasks import refuse_equal_tasks_only
from pmi_cl.mammoth.flags import Flags, run_arguments
from pmi_cl.registry.catalogue import INSTALLED, Entry


class ArrayImages(torch.utils.data.Dataset[tuple[Any, ...]]):
    """Hold the images of a split as Mammoth wants them.

    ``data`` and ``targets`` are arrays, and transforms take a PIL image.
    """

    def __init__(self, data: Any, targets: Any, transform: Callable[[Any], Tensor], train: bool) -> None:
        from torchvision.transforms import ToTensor

        self.not_aug_transform = ToTensor()  # iCaRL's replay needs it
        self.data, self.targets, self.transform, self.train = data, targets, transform, train

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> tuple[Any, ...]:
        """Return (augmented, label, plain), or (image, label) of a test split.

        Logits that a method has stored follow as a fourth item.
        """
        from PIL import Image

        image, label = Image.fromarray(self.data[row]), self.targets[row]
        if not self.train:
            return self.transform(image), label
        item = self.transform(image), label, self.not_aug_transform(image)
        return (*item, self.logits[row]) if hasattr(self, "logits") else item


class HostedDataset:
    """Offer one of our data sets to Mammoth.

    This is a mixin, to stand in front of Mammoth's ``ContinualDataset``.

    Attributes:
        ENTRY: the data set's entry in the catalogue.
        FLAGS: the data set's flags.
        store_loaders: Mammoth's ``store_masked_loaders``.
        order_names: Mammoth's ``fix_class_names_order``.
        ours: the data set itself.
    """

    NAME: str
    ENTRY: Entry
    FLAGS: Flags
    SETTING = "class-il"
    store_loaders: Any
    order_names: Any
    args: Any

    def __init__(self, args: Any, **own: Any) -> None:
        base_path = str(user_path(args.base_path, "--base_path"))
        options = run_arguments({**self.FLAGS.values(own), "base_path": base_path, "seed": args.seed or 0})
        dataset_class = INSTALLED.load("dataset", self.ENTRY.name)
        if issubclass(dataset_class, MultiDomain):
            raise UserError(
                f"{self.NAME} does not run inside Mammoth, which has one image size and one normalisation for all "
                f"tasks: run it without Mammoth, pmi-cl --model MODEL --dataset {self.ENTRY.name} --domains ..."
            )
        dataset_class.check(options)
        refuse_equal_tasks_only(dataset_class.task_split(options), args)
        self.ours: ContinualDataset = dataset_class(options, "cpu")
        for name in ("N_CLASSES", "N_TASKS", "N_CLASSES_PER_TASK", "SIZE", "MEAN", "STD", "FLIP", "PADDING", "PROMPT"):
            setattr(self, name, getattr(self.ours, name))
        self._train_arrays, self._test_arrays = _arrays(self.ours.train), _arrays(self.ours.test)
        self.TRANSFORM, self.TEST_TRANSFORM = self._transforms()
        super().__init__(args)  # type: ignore[call-arg]

    def _transforms(self) -> tuple[Any, Any]:
        """Return the (training, test) transforms of our own runner.

        Images are normalised before they are cropped, so that the padding has the mean colour.
        """
        from torchvision import transforms

        plain = [transforms.ToTensor(), self.get_normalization_transform()]
        augmentation = [transforms.RandomCrop(self.ours.SIZE, padding=self.ours.PADDING)]
        augmentation += [transforms.RandomHorizontalFlip()] if self.ours.FLIP else []
        return transforms.Compose([*plain, *augmentation]), transforms.Compose(plain)

    def get_data_loaders(self) -> Any:
        """Return the loaders of the next task."""
        train = ArrayImages(*self._train_arrays, self.TRANSFORM, train=True)
        test = ArrayImages(*self._test_arrays, self.TEST_TRANSFORM, train=False)
        return type(self).store_loaders(train, test, self)

    def get_transform(self) -> Any:
        """Return the training transform for tensors."""
        from torchvision import transforms

        return transforms.Compose([transforms.ToPILImage(), self.TRANSFORM])

    @staticmethod
    def get_loss() -> Any:
        """Return the loss that Mammoth gives a method: cross-entropy."""
        return nn.functional.cross_entropy

    def get_normalization_transform(self) -> Any:
        """Return the normalisation by the data set's mean and standard deviation."""
        from torchvision import transforms

        return transforms.Normalize(self.ours.MEAN, self.ours.STD)

    def get_denormalization_transform(self) -> Any:
        """Return the inverse of :meth:`get_normalization_transform`."""
        from torchvision import transforms

        mean, std = self.ours.MEAN, self.ours.STD
        return transforms.Normalize([-m / s for m, s in zip(mean, std, strict=True)], [1 / s for s in std])

    def get_class_names(self) -> list[str]:
        """Return the name of each label."""
        return list(type(self).order_names(self.ours.class_names, self.args))

    def get_prompt_templates(self) -> list[str]:
        """Return the prompt templates."""
        return list(self.ours.TEMPLATES)


def _arrays(split: Any) -> tuple[Any, Any]:
    """Return a placed split as arrays: uint8 images (n, h, w, 3) and int64 labels (n,)."""
    images = split.pixels(torch.arange(len(split.labels))).permute(0, 2, 3, 1)
    return images.contiguous().numpy(), split.labels.numpy()
