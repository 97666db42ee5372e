"""Images between the two worlds: Mammoth's tasks as our methods see a data set, our data sets as Mammoth's, our networks as backbones."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pmi_cl.datasets.continual_dataset import ContinualDataset, ProgressCallback, RawData
from pmi_cl.datasets.selection import PlacedSplit
from pmi_cl.datasets.task_split import TaskSplit
from pmi_cl.errors import UserError
from pmi_cl.mammoth.flags import Flags, run_arguments
from pmi_cl.registry.catalogue import INSTALLED, Entry
from pmi_cl.seeding import global_seed
from pmi_cl.utils.run.runner import build_backbone


def pixels(images: Tensor) -> Tensor:
    """Floats in [0, 1] to uint8; what was read from 8-bit images comes back exactly."""
    return images if images.dtype == torch.uint8 else (images * 255).round().clamp(0, 255).to(torch.uint8)


class TaskData(ContinualDataset):
    """One of Mammoth's data sets as a method of ours sees it: the training images of the current task, out of Mammoth's own loader.

    So everything that Mammoth does to its data (class order, validation, noise, missing labels) has been done to these images.
    """

    def __init__(self, dataset: Any, device: torch.device, seed: int) -> None:
        """Raises UserError for a setting that our methods do not know, or images that our networks do not take."""
        self.NAME = dataset.NAME
        if dataset.SETTING not in ("class-il", "task-il"):
            raise UserError(
                f"{self.NAME} is of the setting {dataset.SETTING}: pmi-cl's methods learn classes, class-il or task-il"
            )
        self._dataset, self.device, self.seed, self.form = dataset, device, seed, None
        sizes = dataset.N_CLASSES_PER_TASK  # a number, or one for each task
        self._set_tasks(
            TaskSplit((sizes,) * int(dataset.N_TASKS) if isinstance(sizes, int) else tuple(map(int, sizes)))
        )
        self.SIZE = tuple(dataset.SIZE)[-2:]
        normal = dataset.get_normalization_transform()
        self.MEAN, self.STD = (
            tuple(map(float, getattr(normal, name, getattr(dataset, name.upper(), ())))) for name in ("mean", "std")
        )
        if len(self.MEAN) != 3:  # known before anything is downloaded
            raise UserError(f"{self.NAME} does not normalise three channels: pmi-cl's networks take images with three")
        self._mean, self._std = torch.tensor(self.MEAN, device=device), torch.tensor(self.STD, device=device)
        self._own = self._mean[:, None, None], self._std[:, None, None]
        self.FLIP, self.PADDING = getattr(dataset, "FLIP", True), getattr(dataset, "PADDING", max(1, self.SIZE[0] // 8))
        self.PROMPT = getattr(dataset, "PROMPT", self.PROMPT)
        self.class_order = list(range(self.N_CLASSES))
        self.forget()

    @functools.cached_property
    def class_names(self) -> list[str]:  # type: ignore[override]
        """The name of each label as Mammoth knows it; its number where Mammoth does not."""
        try:
            return [str(name) for name in self._dataset.get_class_names()]
        except NotImplementedError:
            return [str(label) for label in range(self.N_CLASSES)]

    @property
    def prompt_names(self) -> list[str]:
        """The name of each label as a prompt has it: ours know their own."""
        own = getattr(self._dataset, "ours", None)
        return own.prompt_names if own else super().prompt_names

    @functools.cached_property
    def TEMPLATES(self) -> tuple[str, ...]:  # type: ignore[override]
        """The data set's templates."""
        return tuple(self._dataset.get_prompt_templates())

    def load(self, args: SimpleNamespace, progress: ProgressCallback | None) -> RawData:
        """Raises NotImplementedError: Mammoth loads the images, and :meth:`show` takes them up."""
        raise NotImplementedError

    @classmethod
    def check_data(cls, args: SimpleNamespace) -> None:
        """Checks nothing: Mammoth has loaded its data by then."""

    def show(self, task: int, loader: Any) -> None:
        """Take up the training images of a task. Raises UserError for images that no network of ours takes."""
        with torch.random.fork_rng(devices=[]):  # the loader's transforms draw; the training must not notice
            items = [loader.dataset[row] for row in range(len(loader.dataset))]
        kept = [item for item in items if int(item[1]) >= 0]
        images = torch.stack([pixels(item[2]) for item in kept])
        if images.shape[1] != 3:
            raise UserError(f"{self.NAME} has images of {images.shape[1]} channel(s): pmi-cl's networks take three")
        if self.form is None and kept[0][0].shape != images[0].shape:
            sizes = ["x".join(map(str, tensor.shape[1:])) for tensor in (kept[0][0], images[0])]
            raise UserError(
                f"{self.NAME} trains on {sizes[0]} pixels but keeps {sizes[1]}: choose a method on a CLIP, or another data set"
            )
        if not len(loader):
            raise UserError(
                f"task {task + 1} of {self.NAME} has fewer images than a batch: give --drop_last 0, or a smaller --batch_size"
            )
        self.train = PlacedSplit(
            images.to(self.device), torch.tensor([int(item[1]) for item in kept], device=self.device)
        )
        self._task, self._steps = task, len(loader)

    def forget(self) -> None:
        """Let the images of the task go."""
        self.train = self.test = PlacedSplit(
            torch.zeros(0, 3, *self.SIZE, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64)
        )
        self._task, self._steps = -1, 0

    def plain_batches(
        self, task: int, split: Literal["train", "test"] = "train", batch_size: int = 256
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """All (normalised images, labels) of the task at hand, not augmented."""
        assert split == "train" and task == self._task, "only the current task's training images are known"
        for rows in torch.arange(len(self.train.labels), device=self.device).split(batch_size):
            yield self.normalise(self.train.pixels(rows)), self.train.labels[rows]

    def train_indices(self, task: int) -> Tensor:
        """The numbers of all rows: no other task's images are known."""
        return torch.arange(len(self.train.labels), device=self.device)

    def steps_per_epoch(self, task: int, batch_size: int) -> int:
        """Batches that Mammoth's loader gives in an epoch."""
        return self._steps

    def pixels(self, images: Tensor) -> Tensor:
        """Images that Mammoth has normalised back to uint8."""
        mean, std = self._own
        return pixels(images * std + mean)


class Pictures(torch.utils.data.Dataset[tuple[Any, ...]]):
    """Images in the shape in which Mammoth wants the two splits of a data set: ``data`` and ``targets`` as arrays, PIL transforms."""

    def __init__(self, data: Any, targets: Any, transform: Callable[[Any], Tensor], train: bool) -> None:
        from torchvision.transforms import ToTensor

        self.not_aug_transform = ToTensor()  # iCaRL's replay looks for it
        self.data, self.targets, self.transform, self.train = data, targets, transform, train

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> tuple[Any, ...]:
        """(augmented, label, plain) and, where a method has left logits, these; (image, label) for the test."""
        from PIL import Image

        image, label = Image.fromarray(self.data[row]), self.targets[row]
        if not self.train:
            return self.transform(image), label
        item = self.transform(image), label, self.not_aug_transform(image)
        return (*item, self.logits[row]) if hasattr(self, "logits") else item


class HostedDataset:
    """To be mixed with Mammoth's ``ContinualDataset``, in front of it.

    Attributes:
        ENTRY: the data set's entry in the catalogue.
        FLAGS: the data set's flags.
        store: Mammoth's ``store_masked_loaders``.
        ordered: Mammoth's ``fix_class_names_order``.
        ours: the data set itself.
    """

    NAME: str
    ENTRY: Entry
    FLAGS: Flags
    SETTING = "class-il"
    store: Any
    ordered: Any
    args: Any

    def __init__(self, args: Any, **own: Any) -> None:
        options = run_arguments({**self.FLAGS.values(own), "base_path": args.base_path, "seed": args.seed or 0})
        dataset_class = INSTALLED.load("dataset", self.ENTRY.name)
        dataset_class.check(options)
        self.ours: ContinualDataset = dataset_class(options, "cpu")
        for name in ("N_CLASSES", "N_TASKS", "N_CLASSES_PER_TASK", "SIZE", "MEAN", "STD", "FLIP", "PADDING", "PROMPT"):
            setattr(self, name, getattr(self.ours, name))
        self._arrays = {
            split: (
                part.pixels(torch.arange(len(part.labels))).permute(0, 2, 3, 1).contiguous().numpy(),
                part.labels.numpy(),
            )
            for split, part in (("train", self.ours.train), ("test", self.ours.test))
        }
        self.TRANSFORM, self.TEST_TRANSFORM = self._transforms()
        super().__init__(args)  # type: ignore[call-arg]

    def _transforms(self) -> tuple[Any, Any]:
        """(training, test) as our own runner has them: normalised first, so that the padding of the crops is the mean colour."""
        from torchvision import transforms

        plain = [transforms.ToTensor(), self.get_normalization_transform()]
        varied = [transforms.RandomCrop(self.ours.SIZE, padding=self.ours.PADDING)]
        varied += [transforms.RandomHorizontalFlip()] if self.ours.FLIP else []
        return transforms.Compose([*plain, *varied]), transforms.Compose(plain)

    def get_data_loaders(self) -> Any:
        """The loaders of the next task."""
        train = Pictures(*self._arrays["train"], self.TRANSFORM, train=True)
        test = Pictures(*self._arrays["test"], self.TEST_TRANSFORM, train=False)
        return type(self).store(train, test, self)

    def get_transform(self) -> Any:
        """The training transform, from tensors on."""
        from torchvision import transforms

        return transforms.Compose([transforms.ToPILImage(), self.TRANSFORM])

    @staticmethod
    def get_loss() -> Any:
        """The loss that Mammoth gives a method: cross-entropy."""
        return nn.functional.cross_entropy

    def get_normalization_transform(self) -> Any:
        """Normalises by the data set's mean and standard deviation."""
        from torchvision import transforms

        return transforms.Normalize(self.ours.MEAN, self.ours.STD)

    def get_denormalization_transform(self) -> Any:
        """The inverse of :meth:`get_normalization_transform`."""
        from torchvision import transforms

        mean, std = self.ours.MEAN, self.ours.STD
        return transforms.Normalize([-m / s for m, s in zip(mean, std, strict=True)], [1 / s for s in std])

    def get_class_names(self) -> list[str]:
        """The name of each label."""
        return list(type(self).ordered(self.ours.class_names, self.args))

    def get_prompt_templates(self) -> list[str]:
        """Sentences for the name of a class."""
        return list(self.ours.TEMPLATES)


class HostedBackbone:
    """To be mixed with Mammoth's ``MammothBackbone``, in front of it: one of our networks under a method of Mammoth's, with every class
    from the start.

    Attributes:
        ENTRY: the network's entry in the catalogue.
        FLAGS: the network's flags.
        body: the network, whose own head stays empty.
    """

    ENTRY: Entry
    FLAGS: Flags

    def __init__(self, num_classes: int, **own: Any) -> None:
        super().__init__()
        if self.ENTRY.constants.get("KIND", "resnet") != "resnet":
            raise UserError(f"--backbone {self.ENTRY.name} has no classifier: it serves pmi-cl's methods only")
        with global_seed(torch.initial_seed(), "network"):
            self.body: Any = build_backbone(self.ENTRY, run_arguments(self.FLAGS.values(own)))
        self.num_classes, self.feature_dim = int(num_classes), self.body.feature_dim
        self.classifier = nn.Linear(self.feature_dim, self.num_classes)

    def forward(self, x: Tensor, returnt: str = "out") -> Any:
        """Logits, pooled features, both, or (logits, what each piece gives)."""
        maps: list[Tensor] = []
        for piece in self.body.pieces():
            x = piece(x)
            maps.append(x)
        if returnt == "features":
            return x
        logits = self.classifier(x)
        return {"both": (logits, x), "full": (logits, maps), "all": (logits, maps)}.get(returnt, logits)
