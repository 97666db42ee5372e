"""Train on new images and on exemplars, real images of earlier tasks (iCaRL, UCIR, BiC)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pmi_cl.errors import UserError
from pmi_cl.inversion.networks.pieces import in_evaluation_mode
from pmi_cl.models.continual_model import TrainingOptions
from pmi_cl.models.resnet.exemplars import ExemplarMemory, choose_exemplars
from pmi_cl.models.run_outline import RunOutline
from pmi_cl.models.with_teacher import WithTeacher
from pmi_cl.options import option
from pmi_cl.seeding import seeded

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset

CHUNK = 256  # exemplars that pass the network together; only memory depends on it


@dataclass(frozen=True)
class ExemplarOptions(TrainingOptions):
    """Hold how many real images are stored, and which."""

    buffer_size: int = option(
        2000,
        "real images of earlier tasks that are stored, in equal parts for all classes seen",
        unit="images",
        low=1,
        high=100_000_000,
        source="iCaRL Sec. 4; BiC Sec. 6.1",
        memory="images",
        as_in_mammoth=True,
    )
    exemplars_per_class: int | None = option(
        None,
        "real images that are stored of each class, in place of buffer_size; none: buffer_size decides",
        unit="images",
        low=1,
        high=1_000_000,
        source="UCIR Sec. 4.1 has 20",
        memory="images",
    )
    exemplar_choice: str = option(
        "herding",
        "how exemplars are chosen: so that their mean feature is that of the class, or at random",
        choices=("herding", "random"),
        source="iCaRL Alg. 4",
    )


class ExemplarTraining(WithTeacher):
    """Train every batch on new images and exemplars, in the proportion of the two sets.

    The methods train on the union of both sets. Here each batch holds both in its proportion, and
    exemplars of all classes alike, so that an epoch shows about every image once. A subclass says
    what is minimised (:meth:`losses`).

    Attributes:
        memory: the exemplars of the classes of earlier tasks.
    """

    KEEPS_IMAGES = True
    Options: type = ExemplarOptions
    options: Any

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.memory = ExemplarMemory.empty(self.dataset)

    @classmethod
    def check(cls, args: SimpleNamespace, outline: RunOutline) -> None:
        """Raise UserError if there is not one exemplar for each class."""
        super().check(args, outline)
        if args.exemplars_per_class is None and args.buffer_size < outline.n_classes:
            fault = f"--buffer_size {args.buffer_size} is less than one image for each of {outline.n_classes} classes"
            raise UserError(f"{fault}: give {outline.n_classes} or more")

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the losses by name, weighted, of new images and exemplars.

        Args:
            images: (b, c, h, w), normalised and augmented. Exemplars come last.
            labels: (b,), global.
        """
        raise NotImplementedError(f"{type(self).__name__} has no losses()")

    def exemplars_with(self, n: int) -> int:
        """Return how many exemplars go with ``n`` new images."""
        new = len(self.dataset.train_indices(self.current_task))
        stored = len(self.memory)
        return max(round(n * stored / new), 1) if stored and new else 0

    def _new_in_batch(self) -> int:
        """Return how many of the ``batch_size`` images of a batch are new."""
        size, new = self.options.batch_size, len(self.dataset.train_indices(self.current_task))
        return max(round(size * new / (new + len(self.memory))), min(size, 2)) if new else size

    def steps_per_epoch(self) -> int:
        """Return the number of steps of an epoch of the current task."""
        return self.dataset.steps_per_epoch(self.current_task, self._new_in_batch())

    def train_batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Any, Tensor, Any]]:
        """Yield the new images of each batch. :meth:`observe` adds the exemplars."""
        return self.dataset.train_batches(self.current_task, epoch, self._new_in_batch(), start=start)

    def observe(
        self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor, epoch: int = 0, step: int = 0
    ) -> dict[str, Tensor]:
        """Take a step on the new images and on exemplars."""
        if count := self.exemplars_with(len(inputs)):
            key = (self.current_task, epoch, step)
            drawn = self.memory.draw(count, seeded(self.args.seed, "exemplars", *key))
            augment = seeded(self.args.seed, "augment exemplars", *key)
            images = self.dataset.augment_pixels(drawn.images, drawn.labels, augment)
            inputs, labels = torch.cat([inputs, images]), torch.cat([labels, drawn.labels])
        return self.descend(self.losses(inputs.contiguous(memory_format=torch.channels_last), labels))

    def per_class(self) -> int:
        """Return how many exemplars each class has after the current task (iCaRL, Alg. 2)."""
        return self._stored_of_each(self.n_seen_classes)

    def _stored_of_each(self, classes: int) -> int:
        """Return how many images of each of ``classes`` classes are stored."""
        o = self.options
        return int(o.exemplars_per_class or max(o.buffer_size // classes, 1))

    def features(self, images: Tensor) -> Tensor:
        """Return the features (b, d) of normalised images, in evaluation mode."""
        with torch.no_grad(), in_evaluation_mode([self.net]):
            return self.net(images, returnt="features").float()

    def end_task(self, dataset: ContinualDataset) -> None:
        """Store exemplars of the task's classes, fewer of the others, and copy the teacher."""
        count, encode = self.per_class(), self.features if self.options.exemplar_choice == "herding" else None
        with self.host.phase("exemplars"):
            chosen = choose_exemplars(dataset, self.current_task, count, self.args.seed, encode)
            self.memory = self.memory.first_of_each(count).joined(chosen)
            self.with_exemplars(dataset)
        super().end_task(dataset)

    def with_exemplars(self, dataset: ContinualDataset) -> None:
        """Do what a method does with exemplars of all classes, before the teacher is copied."""

    def exemplar_features(self, mirror: bool = False) -> Tensor:
        """Return the features (n, d) of all exemplars; with ``mirror`` their mirror images follow.

        The network is in evaluation mode, and the images are not augmented.
        """
        parts = [
            self.dataset.normalise(part.images, part.labels)
            for part in (self.memory.part(rows) for rows in torch.arange(len(self.memory)).split(CHUNK))
        ]
        views = [parts, [part.flip(-1) for part in parts]] if mirror else [parts]
        return torch.cat([self.features(part) for view in views for part in view])

    def stored(self) -> dict[str, int]:
        """Return the bytes of the exemplars with their labels, and of the teacher."""
        return {**super().stored(), "real images": self.memory.nbytes}

    def state(self) -> dict[str, Any]:
        """Return the state of the base class, and the exemplars."""
        return {**super().state(), "memory": self.memory.state()}

    def load_weights(self, state: dict[str, Any]) -> None:
        """Load the network, the teacher and the exemplars of :meth:`state`."""
        super().load_weights(state)
        self.memory = ExemplarMemory.from_state(state["memory"], self.dataset, self.n_seen_classes)
