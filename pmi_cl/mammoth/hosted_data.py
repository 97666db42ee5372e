"""Offer our data sets and networks to Mammoth. Import this only once Mammoth is imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from pmi_cl.datasets.colour_jitter import JITTER
from pmi_cl.datasets.continual_dataset import ContinualDataset
from pmi_cl.mammoth.checkout import part
from pmi_cl.mammoth.flags import HostedEntry, run_arguments
from pmi_cl.mammoth.task_data import OWN
from pmi_cl.seeding import global_seed
from pmi_cl.utils.run.building import build_backbone

MammothBackbone: Any = part("backbone").MammothBackbone
MammothDataset: Any = part("datasets.utils.continual_dataset").ContinualDataset
store_masked_loaders: Any = part("datasets.utils.continual_dataset").store_masked_loaders
in_order: Any = part("datasets.utils.continual_dataset").fix_class_names_order


class ArrayImages(torch.utils.data.Dataset[tuple[Any, ...]]):
    """Hold the images of a split as Mammoth wants them: arrays, and transforms of a PIL image."""

    def __init__(self, split: Any, transform: Callable[[Any], Tensor], train: bool) -> None:
        self.not_aug_transform = transforms.ToTensor()  # iCaRL's replay needs it
        self.data, self.targets = split
        self.transform, self.train = transform, train

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> tuple[Any, ...]:
        """Return (augmented, label, plain), or (image, label) of a test split.

        Logits that a method has stored follow as a fourth item.
        """
        image, label = Image.fromarray(self.data[row]), self.targets[row]
        if not self.train:
            return self.transform(image), label
        item = self.transform(image), label, self.not_aug_transform(image)
        return (*item, self.logits[row]) if hasattr(self, "logits") else item


class HostedDataset(MammothDataset):
    """Offer one of our data sets to Mammoth.

    Attributes:
        HOSTED: the data set's entry.
        BRIDGE: what is registered beside it.
        ours: the data set itself.
    """

    HOSTED: HostedEntry
    BRIDGE: Any
    SETTING = "class-il"

    def __init__(self, args: Any, **own: Any) -> None:
        self.ours: ContinualDataset = self.HOSTED.entry.load()(self.BRIDGE.run_options(args), "cpu")
        for name in ("N_CLASSES", "N_TASKS", "N_CLASSES_PER_TASK", "SIZE", "MEAN", "STD", *OWN):
            setattr(self, name, getattr(self.ours, name))
        self._train, self._test = _arrays(self.ours.train), _arrays(self.ours.test)
        self.TRANSFORM = transforms.Compose(self._training_transforms())
        self.TEST_TRANSFORM = transforms.Compose(self._plain_transforms())
        super().__init__(args)

    def _plain_transforms(self) -> list[Any]:
        return [transforms.ToTensor(), self.get_normalization_transform()]

    def _training_transforms(self) -> list[Any]:
        """Return ``--augment`` in torchvision's transforms."""
        flip = [transforms.RandomHorizontalFlip()] if self.ours.FLIP else []
        crop = transforms.RandomCrop(self.ours.SIZE, padding=self.ours.PADDING)
        if self.ours.augmentation == "none":
            return [*(flip if self.ours.flip_typed else []), *self._plain_transforms()]
        if jitter := JITTER.get(self.ours.augmentation):
            colours = transforms.ColorJitter(jitter.brightness, jitter.contrast)
            return [colours, *flip, crop, *self._plain_transforms()]
        # Images are normalised before they are cropped, so that the padding has the mean colour.
        return [*self._plain_transforms(), crop, *flip]

    def get_data_loaders(self) -> Any:
        """Return the loaders of the next task."""
        train = ArrayImages(self._train, self.TRANSFORM, train=True)
        test = ArrayImages(self._test, self.TEST_TRANSFORM, train=False)
        return store_masked_loaders(train, test, self)

    def get_transform(self) -> Any:
        """Return the training transform for tensors."""
        return transforms.Compose([transforms.ToPILImage(), self.TRANSFORM])

    @staticmethod
    def get_loss() -> Any:
        """Return the loss that Mammoth gives a method: cross-entropy."""
        return nn.functional.cross_entropy

    def get_normalization_transform(self) -> Any:
        """Return the normalisation by the data set's mean and standard deviation."""
        return transforms.Normalize(self.ours.MEAN, self.ours.STD)

    def get_denormalization_transform(self) -> Any:
        """Return the inverse of :meth:`get_normalization_transform`."""
        mean, std = self.ours.MEAN, self.ours.STD
        return transforms.Normalize([-m / s for m, s in zip(mean, std, strict=True)], [1 / s for s in std])

    def get_class_names(self) -> list[str]:
        """Return the name of each label, in Mammoth's order of the classes."""
        return list(in_order(self.ours.class_names, self.args))

    @property
    def prompt_names(self) -> list[str]:
        """Return the name of each label as a prompt has it, in the same order."""
        return list(in_order(self.ours.prompt_names, self.args))

    def get_prompt_templates(self) -> list[str]:
        """Return the prompt templates."""
        return list(self.ours.TEMPLATES)


def _arrays(split: Any) -> tuple[Any, Any]:
    """Return a placed split as arrays: uint8 images (n, h, w, 3) and int64 labels (n,)."""
    images = split.pixels(torch.arange(len(split.labels))).permute(0, 2, 3, 1)
    return images.contiguous().numpy(), split.labels.numpy()


class HostedBackbone(MammothBackbone):
    """Put one of our ResNets under a method of Mammoth, with all classes from the start.

    Attributes:
        HOSTED: the network's entry.
        body: the network. Its own head stays empty.
    """

    HOSTED: HostedEntry

    def __init__(self, num_classes: int, **own: Any) -> None:
        super().__init__()
        with global_seed(torch.initial_seed(), "network"):
            self.body: Any = build_backbone(self.HOSTED.entry, run_arguments(self.HOSTED.values(own)))
        self.num_classes, self.feature_dim = int(num_classes), self.body.feature_dim
        self.classifier = nn.Linear(self.feature_dim, self.num_classes)

    def forward(self, x: Tensor, returnt: str = "out") -> Any:
        """Return logits, pooled features, both, or (logits, output of each piece).

        Args:
            x: images (b, 3, h, w).
            returnt: "out", "features", "both", or "full" and "all" for the outputs of the pieces.
        """
        outputs: list[Tensor] = []
        for piece in self.body.pieces():
            x = piece(x)
            outputs.append(x)
        if returnt == "features":
            return x
        logits = self.classifier(x)
        return {"both": (logits, x), "full": (logits, outputs), "all": (logits, outputs)}.get(returnt, logits)
