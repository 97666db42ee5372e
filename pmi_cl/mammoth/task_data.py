"""Show the tasks of Mammoth's data sets to our methods."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from pmi_cl.datasets.continual_dataset import ContinualDataset, ProgressCallback, RawData
from pmi_cl.datasets.selection import PlacedSplit
from pmi_cl.datasets.task_split import TaskSplit
from pmi_cl.errors import UserError

# What our own data sets know beside what every data set of Mammoth has.
OWN = ("FLIP", "PADDING", "PROMPT", "flip_typed", "augmentation")


def to_uint8(images: Tensor) -> Tensor:
    """Convert floats in [0, 1] to uint8. Images that were read from 8 bits come back exactly."""
    return images if images.dtype == torch.uint8 else (images * 255).round().clamp(0, 255).to(torch.uint8)


class TaskData(ContinualDataset):
    """Hold the training images of the current task of a data set of Mammoth.

    The images come from Mammoth's own loader. So Mammoth's class order, validation split, noise and
    missing labels apply to them.
    """

    def __init__(self, dataset: Any, device: torch.device, seed: int) -> None:
        """Read the data set's figures.

        Raises:
            UserError: our methods do not know its setting, or our networks do not take its images.
        """
        self.NAME, setting = dataset.NAME, dataset.SETTING
        if setting not in ("class-il", "task-il"):
            known = "pmi-cl's methods learn classes, class-il or task-il"
            raise UserError(f"{self.NAME} is of the setting {setting}: {known}")
        self._dataset, self.device, self.seed, self.form = dataset, device, seed, None
        sizes = dataset.N_CLASSES_PER_TASK  # a number, or one for each task
        sizes = [sizes] * int(dataset.N_TASKS) if isinstance(sizes, int) else sizes
        self._set_tasks(TaskSplit(tuple(map(int, sizes))))
        self.SIZE = tuple(dataset.SIZE)[-2:]
        normal = dataset.get_normalization_transform()
        self.MEAN, self.STD = (
            tuple(map(float, getattr(normal, name, getattr(dataset, name.upper(), ())))) for name in ("mean", "std")
        )
        if len(self.MEAN) != 3:  # checked before anything is downloaded
            raise UserError(f"{self.NAME} does not normalise three channels: pmi-cl's networks take images with three")
        self._mean, self._std = torch.tensor(self.MEAN, device=device), torch.tensor(self.STD, device=device)
        # A method with an input form of its own replaces _mean and _std. These stay.
        self._loader_mean, self._loader_std = self._mean[:, None, None], self._std[:, None, None]
        self.PADDING, self.TEMPLATES = max(1, self.SIZE[0] // 8), tuple(dataset.get_prompt_templates())
        for name in OWN:
            setattr(self, name, getattr(dataset, name, getattr(self, name)))
        self.class_order = list(range(self.N_CLASSES))
        self.drop_task()

    @functools.cached_property
    def class_names(self) -> list[str]:  # type: ignore[override]
        """The name of each label, or its number where Mammoth has no names.

        It is asked for only where it is needed: a data set of Mammoth may read its files for it.
        """
        try:
            return [str(name) for name in self._dataset.get_class_names()]
        except NotImplementedError:
            return [str(label) for label in range(self.N_CLASSES)]

    @property
    def prompt_names(self) -> list[str]:
        """The name of each label in a prompt. Our own data sets know theirs."""
        return getattr(self._dataset, "prompt_names", None) or super().prompt_names

    def load(self, args: SimpleNamespace, progress: ProgressCallback | None) -> RawData:
        """Raise NotImplementedError: Mammoth loads the images, and :meth:`load_task` reads them."""
        raise NotImplementedError

    @classmethod
    def check_data(cls, args: SimpleNamespace) -> None:
        """Check nothing: Mammoth has loaded its data before."""

    def load_task(self, task: int, loader: Any, trained: bool = True) -> None:
        """Read the images of a task from Mammoth's loader.

        Args:
            trained: whether the method trains on them, so that there must be a batch.

        Raises:
            UserError: the images do not fit our networks, or they are fewer than a batch.
        """
        # The loader's transforms draw random numbers. Training must draw the same as without them.
        with torch.random.fork_rng(devices=[]):
            items = [loader.dataset[row] for row in range(len(loader.dataset))]
        kept = [item for item in items if int(item[1]) >= 0]
        images, augmented = torch.stack([to_uint8(item[2]) for item in kept]), kept[0][0]
        if images.shape[1] != 3:
            raise UserError(f"{self.NAME} has images of {images.shape[1]} channel(s): pmi-cl's networks take three")
        if self.form is None and augmented.shape != images[0].shape:
            trained_on, stored = ("x".join(map(str, tensor.shape[1:])) for tensor in (augmented, images[0]))
            advice = "choose a method on a CLIP, or another data set"
            raise UserError(f"{self.NAME} trains on {trained_on} pixels but keeps {stored}: {advice}")
        if trained and not len(loader):
            advice = "give --drop_last 0, or a smaller --batch_size"
            raise UserError(f"task {task + 1} of {self.NAME} has fewer images than a batch: {advice}")
        labels = torch.tensor([int(item[1]) for item in kept], device=self.device)
        self.train, self._steps = PlacedSplit(images.to(self.device), labels), len(loader)
        self._indices = {"train": {task: torch.arange(len(kept), device=self.device)}}  # type: ignore[dict-item]

    def drop_task(self) -> None:
        """Drop the images of the task."""
        nothing = torch.zeros(0, 3, *self.SIZE, dtype=torch.uint8)
        self.train = self.test = PlacedSplit(nothing, torch.zeros(0, dtype=torch.int64))
        self._indices, self._steps = {"train": {}, "test": {}}, 0  # type: ignore[dict-item]

    def steps_per_epoch(self, task: int, batch_size: int) -> int:
        """Return the number of batches of Mammoth's loader."""
        return self._steps

    def loader_pixels(self, images: Tensor) -> Tensor:
        """Convert images that Mammoth's loader has normalised back to uint8."""
        return to_uint8(images * self._loader_std + self._loader_mean)
