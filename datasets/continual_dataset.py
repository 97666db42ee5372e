"""Define the base of every data set.

Each split is one uint8 tensor, on the device if it fits. Each task has index arrays. Batches are
seeded.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Literal

from pmi_cl.datasets import augmentation
from pmi_cl.datasets.colour_jitter import JITTER, Jitter, jittered_crops
from pmi_cl.datasets.dataset_outline import DataArguments, DatasetOptions, DatasetOutline, check_amounts
from pmi_cl.datasets.input_form import InputForm, random_crops, resized
from pmi_cl.datasets.reading import Reading
from pmi_cl.datasets.selection import PlacedSplit, Split, first_of_each, hold_out, pick, rows_of
from pmi_cl.datasets.task_split import TaskSplit
from pmi_cl.options import select
from pmi_cl.seeding import seeded

if TYPE_CHECKING:
    import torch
    from torch import Generator, Tensor

__all__ = [
    "ContinualDataset",
    "DataArguments",
    "DatasetOptions",
    "ProgressCallback",
    "RawData",
]  # for data sets of others

ProgressCallback = Callable[[str, int, int], None]  # (phase, done, total)


@dataclass(frozen=True)
class RawData:
    """The data set as it lies on the disk.

    It has both splits under the data set's own class ids, and the name of each id.
    """

    train: Split
    test: Split
    class_names: list[str]


class ContinualDataset(DatasetOutline):
    """A labelled image set that is shown in tasks. Each task has classes of its own.

    Attributes:
        tasks: which classes each task has.
        train, test: the images of the run, on the device if they fit, with labels in task order:
            task t holds ``task_classes(t)``.
        class_order: the data set's own class ids in the order in which they are shown. Label k is
            class ``class_order[k]``.
        class_names: the name of each label.
        form: how a network wants the images (:meth:`present_as`). None: as the data set has them.
        uncut: the number of training images that there would be without ``train_per_class``.
        seed: the seed of the batches and of the held-out part.
        device: the device of the batches.
    """

    MEAN: tuple[float, ...]
    STD: tuple[float, ...]
    PADDING = 4  # pixels, zeros after normalisation, on each side before the random crop
    FLIP = True  # whether the mirror image of a class belongs to the class
    PROMPT = "a bad photo of a {}."  # for training by CLIP methods, from PMI's released code
    TEMPLATES: tuple[str, ...] = ("a photo of a {}.",)  # their features are averaged for the evaluation
    # Identifies files of the user: a resumed run must find the same. Empty: a checksum fixes them.
    fingerprint = ""
    reading = Reading()  # how image files became pixels
    skipped_images: Mapping[str, str] = MappingProxyType({})  # why files were left out (--on_bad_image skip)
    flip_typed: bool | None = None  # what --flip says, if anything
    augmentation = "rdfcil"  # what --augment says
    # How an image file that is not of the data set becomes a square, for a network that learned it.
    # See pmi_cl.datasets.files.decoding.square.
    decoding = "upright"

    def __init__(
        self, args: SimpleNamespace, device: torch.device | str, progress: ProgressCallback | None = None
    ) -> None:
        """Read the images, and fetch them first if they are missing.

        Args:
            args: the run's arguments. See :class:`DataArguments` and ``Options`` for those that are
                read.
            device: where the images are put.
            progress: called with the progress of a download or of the decoding of images.

        Raises:
            UserError: a value does not fit, or data is missing or damaged.
        """
        import torch

        arguments = select(DataArguments, vars(args))
        check_amounts(arguments)
        self.class_order = self.shown_classes(args)
        tasks = self.task_split(args)
        self.seed = arguments.seed
        self.device = torch.device(device)
        own = select(DatasetOptions, vars(args))
        self.flip_typed, self.augmentation = own.flip, own.augment
        self.FLIP = type(self).FLIP if self.flip_typed is None else self.flip_typed
        self._read(args, progress)
        self._set_tasks(tasks)  # only now: load() reads the class's own numbers
        self._indices = {"train": self._rows_by_task(self.train), "test": self._rows_by_task(self.test)}
        self._mean = torch.tensor(self.MEAN, device=self.device)
        self._std = torch.tensor(self.STD, device=self.device)
        self.form: InputForm | None = None

    def _read(self, args: SimpleNamespace, progress: ProgressCallback | None) -> None:
        """Set ``class_names``, ``train`` and ``test`` for the classes of ``class_order``."""
        raw = self.load(args, progress)
        self.class_names = [raw.class_names[label] for label in self.class_order]
        self.train, self.test = self._select_splits(raw, select(DataArguments, vars(args)))

    @abstractmethod
    def load(self, args: SimpleNamespace, progress: ProgressCallback | None) -> RawData:
        """Read the images (CPU). Fetch them first if they are missing and may be fetched.

        A data set whose ``SIZE``, ``MEAN`` or ``STD`` is known only from its images sets them here.
        """

    def _set_tasks(self, tasks: TaskSplit) -> None:
        self.tasks, self.N_CLASSES, self.N_TASKS = tasks, tasks.n_classes, tasks.n_tasks

    def _select_splits(self, raw: RawData, arguments: DataArguments) -> tuple[PlacedSplit, PlacedSplit]:
        """Return the two splits. If a part is held out, it is the test split."""
        order = self.class_order
        kept, held = hold_out(raw.train.labels, order, arguments.validation, self.seed)
        self.uncut = len(kept)
        if arguments.train_per_class is not None:
            kept = first_of_each(raw.train.labels, kept, arguments.train_per_class)
        test = (raw.train, held) if len(held) else (raw.test, rows_of(raw.test.labels, order))
        return pick(raw.train, kept, order, self.device), pick(*test, order, self.device)

    def _rows_by_task(self, split: PlacedSplit) -> list[Tensor]:
        tasks = self.tasks.tasks_of(split.labels)
        return [(tasks == task).nonzero().squeeze(1) for task in range(self.N_TASKS)]

    def without_effect(self, args: SimpleNamespace) -> list[str]:
        """Return the options that were to make the run smaller, and take nothing away here.

        A comparison passes over them.
        """
        asked = select(DataArguments, vars(args))
        idle = {
            "train_per_class": asked.train_per_class is not None and len(self.train.labels) == self.uncut,
            "n_classes": asked.n_classes is not None and asked.n_classes >= self.total_classes(args),
        }
        return [name for name, nothing in idle.items() if nothing]

    @property
    def weighs_images(self) -> bool:
        """Return whether the headline is the accuracy over all images, not the mean over tasks.

        It is where tasks differ in size, or bring their own data sets.
        """
        return self.OWN_TASKS or not self.tasks.equal

    @property
    def N_CLASSES_PER_TASK(self) -> int | list[int]:
        """Return the classes of each task as Mammoth's data sets do.

        They are a number, or a list if tasks differ.
        """
        return self.tasks.sizes[0] if self.tasks.equal else list(self.tasks.sizes)

    def task_classes(self, task: int) -> range:
        """Return the labels of a task."""
        return self.tasks.classes(task)

    def as_one_task(self, tasks: int) -> ContinualDataset:
        """Return the images of the first ``tasks`` tasks as a single one, for joint training."""
        whole = copy.copy(self)
        whole._set_tasks(self.tasks.joined(tasks))
        whole._indices = {"train": whole._rows_by_task(self.train), "test": whole._rows_by_task(self.test)}
        return whole

    def with_fewer_images(self, per_class: int) -> ContinualDataset:
        """Return the data set with so many training images of each class, for a quick look."""
        fewer = copy.copy(self)
        rows = [first_of_each(self.train.labels, task, per_class) for task in self._indices["train"]]
        fewer._indices = {**self._indices, "train": rows}
        return fewer

    def train_indices(self, task: int) -> Tensor:
        """Return the rows of ``train`` that belong to a task: int64, ascending, on the device."""
        return self._indices["train"][task]

    def test_indices(self, task: int) -> Tensor:
        """Return the rows of ``test`` that belong to a task: int64, ascending, on the device."""
        return self._indices["test"][task]

    def present_as(self, form: InputForm) -> None:
        """Resize and normalise images as a network wants them from now on.

        ``SIZE``, ``MEAN`` and ``STD`` change with it.
        """
        import torch

        self.form = form
        self.SIZE, self.MEAN, self.STD = (form.size, form.size), form.mean, form.std
        self._mean = torch.tensor(form.mean, device=self.device)
        self._std = torch.tensor(form.std, device=self.device)

    def prompt_of(self, label: int) -> str:
        """Return the sentence that a class is trained by, with ``{}`` for its name."""
        return self.PROMPT

    def templates_of(self, label: int) -> tuple[str, ...]:
        """Return the sentences for a class whose features are averaged for the evaluation."""
        return self.TEMPLATES

    @property
    def prompt_names(self) -> list[str]:
        """Return the name of each label as a prompt has it."""
        return [name.replace("_", " ") for name in self.class_names]

    def normalise(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return uint8 (b, c, h, w) as float32, channels_last, ready for a network.

        Size, mean and deviation are those that the network gets.

        Args:
            images: uint8 pixels.
            labels: (b,), needed only if tasks bring data sets of their own.
        """
        return augmentation.normalise(self._resized(images), self._mean, self._std)

    def _resized(self, images: Tensor) -> Tensor:
        return resized(images, self.form.size, self.form.resize) if self.form else images

    def denormalise(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return normalised (b, c, h, w) as floats in [0, 1], for pictures.

        ``labels`` are as in :meth:`normalise`.
        """
        return augmentation.denormalise(images, self._mean, self._std)

    def augment(self, images: Tensor, generator: Generator) -> Tensor:
        """Return the images varied as ``--augment`` says, mirrored at random if ``FLIP`` allows it.

        They are float32 (b, c, h, w), normalised, channels_last. Under a form (:meth:`present_as`)
        they are the form's own crops, or the images are not cropped. They are mirrored then if
        ``--flip 1`` was typed.

        Args:
            images: uint8 pixels, or floats that are normalised already (synthetic images).
            generator: a CPU generator (:func:`pmi_cl.seeding.seeded`): the crops are the same on
                every device.
        """
        if self.form and self.form.augment != "own":
            images = random_crops(images, self.form, generator) if self.form.augment == "crop" else images
            images = augmentation.mirrored(images, generator) if self.flip_typed else images
            return images if images.is_floating_point() else self.normalise(images)
        if self.augmentation in JITTER:
            return self._jittered(images, JITTER[self.augmentation], generator)
        floats = images if images.is_floating_point() else self.normalise(images)
        if self.augmentation == "none":
            return augmentation.mirrored(floats, generator) if self.flip_typed else floats
        crops = augmentation.draw_crops(len(images), self.PADDING, self.FLIP, generator)
        return augmentation.crop_and_flip(floats, crops, self.PADDING)

    def augment_pixels(self, pixels: Tensor, labels: Tensor, generator: Generator) -> Tensor:
        """Return :meth:`augment` of uint8 images (b, c, h, w) of any classes, such as exemplars.

        They have the size that the network gets. ``labels`` (b,) tell which data set each is of.
        """
        return self.augment(pixels, generator)

    def _jittered(self, images: Tensor, jitter: Jitter, generator: Generator) -> Tensor:
        """Vary the colours of pixels, too, and normalise them at last.

        Floats become pixels first: values of synthetic images that no pixel can show are cut off.
        """
        floats = images.is_floating_point()
        pixels = (self.denormalise(images) * 255).round().byte() if floats else self._resized(images)
        varied = jittered_crops(pixels, self.PADDING, self.FLIP, jitter, generator)
        return augmentation.normalise(varied, self._mean, self._std)

    def plain_batches(
        self, task: int, split: Literal["train", "test"] = "train", batch_size: int = 256
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all (normalised images, labels) of a task, not augmented.

        They come in the order of the split. The last batch may be short.
        """
        source = self.train if split == "train" else self.test
        for rows in self._indices[split][task].split(batch_size):
            yield self._normalised(source, rows), source.labels[rows]

    def _normalised(self, split: PlacedSplit, rows: Tensor) -> Tensor:
        """Return the images at ``rows``, normalised."""
        return self.normalise(split.pixels(rows))

    def _augmented(self, rows: Tensor, *key: int) -> tuple[Tensor, Tensor]:
        """Return the training images at ``rows``, augmented, and as uint8 pixels.

        ``key`` decides the random numbers.
        """
        images = self.train.pixels(rows)
        return self.augment(images, seeded(self.seed, "augment", *key)), images

    def steps_per_epoch(self, task: int, batch_size: int) -> int:
        """Return the number of full batches of one epoch. The rest is left out.

        A task smaller than a batch has one.
        """
        images = len(self.train_indices(task))
        return images // batch_size or min(images, 1)

    def train_batches(
        self, task: int, epoch: int, batch_size: int, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield the shuffled, augmented batches of one epoch (:meth:`steps_per_epoch`).

        The order depends on (seed, task, epoch) and each augmentation on (seed, task, epoch, step),
        so a run that resumes at step k sees what an uninterrupted one sees.

        Args:
            task: the number of the task.
            epoch: the number of the epoch in the task.
            batch_size: images of a batch.
            start: the first step.

        Yields:
            (inputs, labels, not_aug_inputs): float32 normalised and augmented, int64, and the same
                images as uint8 pixels, which :meth:`normalise` makes ready for a network.
        """
        import torch

        rows = self.train_indices(task)
        shuffle = torch.randperm(len(rows), generator=seeded(self.seed, "order", task, epoch))
        rows = rows[shuffle.to(self.device, non_blocking=True)]
        # Once for all steps: a copy from the GPU for each batch would make every step wait for it.
        places = rows.to(self.train.place)
        for step in range(start, self.steps_per_epoch(task, batch_size)):
            batch = slice(step * batch_size, (step + 1) * batch_size)
            inputs, pixels = self._augmented(places[batch], task, epoch, step)
            yield inputs, self.train.labels[rows[batch]], pixels
