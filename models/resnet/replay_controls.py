"""Put controls in place of synthetic images: real images, noise, or other labels.

``--replay`` chooses. ``synthetic`` is the method itself. The others are controls:

* ``real``: stored images of the old classes, as many, chosen at random. They are exemplars. The
  result is the most that better images could reach in the same loop.
* ``noise``: normal noise with the mean and the deviation of the data set's pixels, labelled evenly
  as the method labels its own. The result is what the losses reach without images.
* ``shuffled``: the method's own images, each under the label of another class: all of a class go
  to the same other class. Where nothing of the classes has reached the images, it changes nothing.
  Nor does it in a method whose losses take no labels of synthetic images (``dcmi``,
  ``deepinversion``).

Teacher's logits are always those of the images that are replayed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pmi_cl.inversion.ways.buffer import SyntheticBuffer
from pmi_cl.models.resnet.exemplars import ExemplarMemory, choose_exemplars
from pmi_cl.models.storage import bytes_of
from pmi_cl.seeding import seeded

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset
    from pmi_cl.models.resnet.controlled_replay import ControlledReplay


def exchanged_classes(n_classes: int, generator: torch.Generator) -> Tensor:
    """Return another class (n_classes,) for each class, every class once.

    It is a random cycle through all classes, so that none keeps its own. A single class has no
    other.
    """
    cycle = torch.randperm(n_classes, generator=generator)
    others = torch.empty_like(cycle)
    others[cycle] = cycle.roll(-1)
    return others


class ReplayControl:
    """What a method replays under ``--replay``.

    Attributes:
        method: the method. It makes its synthetic images itself.
        memory: the stored real images. None: they are not replayed, or there are none yet.
        samples: the images of the current task that stand in for synthetic ones. None: there are
            none. They are made again after a resumption.
    """

    def __init__(self, method: ControlledReplay) -> None:
        self.method, self.kind = method, method.options.replay
        self.memory: ExemplarMemory | None = None
        self.samples: SyntheticBuffer | None = None

    @property
    def replaces(self) -> bool:
        """Return whether other images stand in for the method's own, which then makes none."""
        return self.kind in ("real", "noise")

    def prepare(self) -> None:
        """Let the method make its synthetic images, or make what stands in for them."""
        if self.replaces:
            self.samples = self._new_samples()
        else:
            self.method.prepare_replay()

    def draw(self, n: int, epoch: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return images, labels and teacher's logits of a step, as ``draw_replay`` does."""
        if self.replaces:
            generator = seeded(self.method.args.seed, "draw", self.method.current_task, epoch, step)
            return self._current().draw(n, generator)
        images, labels, logits = self.method.draw_replay(n, epoch, step)
        return images, self.labels(labels), logits

    def labels(self, labels: Tensor) -> Tensor:
        """Return the labels (n,) under which synthetic images of the classes (n,) are replayed."""
        if self.kind != "shuffled":
            return labels
        generator = seeded(self.method.args.seed, "exchanged classes", self.method.current_task)
        return exchanged_classes(self.method.n_past_classes, generator).to(labels.device)[labels]

    def replayed(self, own: SyntheticBuffer | None) -> tuple[Tensor, Tensor] | None:
        """Return all images (n, c, h, w) of the task's old classes, and their labels (n,).

        Args:
            own: the method's synthetic images. None in the first task.
        """
        if self.method.current_task == 0:
            return None
        samples = self._current() if self.replaces else own
        return None if samples is None else (samples.images, self.labels(samples.labels))

    def _current(self) -> SyntheticBuffer:
        self.samples = self._new_samples() if self.samples is None else self.samples
        return self.samples

    def _new_samples(self) -> SyntheticBuffer:
        method = self.method
        if self.kind == "real":
            assert self.memory is not None, "end_task() has stored some"
            labels = self.memory.labels
            images = method.dataset.normalise(self.memory.images, labels)
        else:
            labels = method.sample_labels()
            generator = seeded(method.args.seed, "noise images", method.current_task)
            shape = (len(labels), len(method.dataset.MEAN), *method.dataset.SIZE)
            images = torch.randn(shape, generator=generator).to(method.device)
        return SyntheticBuffer(images, labels, method.teacher_logits(images))

    def end_task(self, dataset: ContinualDataset) -> None:
        """Store real images of the task's classes, and fewer of the older ones, for the next task.

        Every class has the same part of as many images as the next task would make.
        """
        self.samples, method = None, self.method
        if self.kind != "real" or method.current_task + 1 == method.dataset.N_TASKS:
            return
        count = max(method.images_for(method.current_task + 1) // method.n_seen_classes, 1)
        new = choose_exemplars(dataset, method.current_task, count, method.args.seed)
        self.memory = new if self.memory is None else self.memory.first_of_each(count).joined(new)

    def stored(self) -> dict[str, int]:
        """Return the bytes of the real images, or of the noise."""
        noise = bytes_of(self.samples) if self.kind == "noise" else 0
        return {"real images": bytes_of(self.memory), "synthetic images": noise}

    def state(self) -> dict[str, Any]:
        """Return the stored images under ``exemplars``, where there may be any."""
        return {"exemplars": self.memory and self.memory.state()} if self.kind == "real" else {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state`. The method's task and network are loaded.

        Raises:
            Exception: one of Python's own, if it is not the state of this run.
        """
        method = self.method
        if self.kind != "real":
            return
        kept = state["exemplars"]
        if kept is None and method.current_task > 0:
            raise ValueError("there are no stored images of the tasks before")
        self.memory = kept and ExemplarMemory.from_state(kept, method.dataset, method.n_seen_classes)
