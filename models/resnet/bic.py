"""Correct the bias towards new classes by two numbers, learned on held-out images (BiC).

The method is by Wu, Chen, Wang, Ye, Liu, Guo and Fu, CVPR 2019. Facts are from the paper ([INF]
where they could not be looked up). What differs:

* A batch holds new images and exemplars in proportion (:class:`ExemplarTraining`).
* Alpha and beta are the minimum of the convex problem of stage 2, found by Newton's method. The
  paper approaches it by SGD. A small ridge keeps them finite.
* As in the paper, the pair of a task corrects the logits of its new classes, and the network of the
  next task learns the corrected logits by distillation. So one pair at a time is in use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pmi_cl.inversion.networks.pieces import in_evaluation_mode
from pmi_cl.machine.state_fields import tensor_field
from pmi_cl.models.resnet.exemplar_training import CHUNK, ExemplarOptions, ExemplarTraining
from pmi_cl.models.resnet.exemplars import ExemplarMemory, choose_exemplars
from pmi_cl.models.training.bias_correction import corrected, fit_correction
from pmi_cl.models.training.distillation import soft_distillation
from pmi_cl.options import option
from pmi_cl.seeding import mix, seeded

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset

CORRECTION = "bias_correction"
NONE = (1.0, 0.0)  # alpha and beta that change nothing


@dataclass(frozen=True)
class BicOptions(ExemplarOptions):
    """Hold the paper's values for CIFAR-100 (Sec. 5.1)."""

    n_epochs: int = option(
        250, "epochs of each task", unit="epochs", low=1, high=100_000, source="BiC Sec. 5.1", as_in_mammoth=True
    )
    optim_wd: float = option(2e-4, "weight decay of SGD", low=0, source="BiC Sec. 5.1", as_in_mammoth=True)
    lr_milestones: tuple[float, ...] = option(
        (0.4, 0.6, 0.8),
        "when the rate is multiplied by lr_gamma, as parts of n_epochs; after the first epoch at the earliest",
        low=0,
        high=1,
        source="BiC Sec. 5.1: epochs 100, 150 and 200 of 250",
    )
    lr_gamma: float = option(
        0.1, "what the rate is multiplied by at each milestone", above=0, high=1, source="BiC Sec. 5.1"
    )
    temperature: float = option(2.0, "of the distillation", above=0, source="BiC Sec. 3.1")
    held_out: float = option(
        0.1,
        "part of the exemplars that is not trained on but corrects the bias, with as many images of each new class",
        above=0,
        high=0.5,
        source="BiC Sec. 5.1: training and validation 9:1",
    )


class Bic(ExemplarTraining):
    """BiC: cross-entropy and distillation, then a bias correction on held-out images.

    Attributes:
        correction: alpha and beta of the classes of the current task.
        teacher_correction: those of the task before.
        held: the held-out images of all classes, within a later task.
        trained: the exemplars that are trained on, within a later task.
    """

    NAME = "bic"
    Options = BicOptions
    options: BicOptions

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.correction = self.teacher_correction = NONE
        self.held = self.trained = ExemplarMemory.empty(self.dataset)

    def begin_task(self, dataset: ContinualDataset) -> None:
        """Hold images of all classes out, as many of each."""
        super().begin_task(dataset)
        self.correction, self.held = NONE, ExemplarMemory.empty(dataset)
        if self.current_task > 0 and self._spares(dataset):
            count = max(round(self.options.held_out * len(self.memory) / self.n_past_classes), 1)
            seed = mix(self.args.seed, "held out", self.current_task)
            old = self.memory.some_of_each(count, seeded(seed, "old"))
            self.held = old.joined(choose_exemplars(dataset, self.current_task, count, seed))
        self.trained = self.memory.without(self.held)

    def _spares(self, dataset: ContinualDataset) -> bool:
        """Return whether every class has two images, so that one can be held out."""
        new = dataset.train.labels[dataset.train_indices(self.current_task)]
        return min(torch.cat([self.memory.labels, new]).bincount().tolist()) > 1

    def replayed(self) -> ExemplarMemory:
        """Return the exemplars that are not held out."""
        return self.trained

    def observe(
        self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor, epoch: int = 0, step: int = 0
    ) -> dict[str, Tensor]:
        """Take a step on the new images that are not held out, and on exemplars."""
        if len(self.held):
            kept = ~self.held.contains(not_aug_inputs)
            inputs, labels, not_aug_inputs = inputs[kept], labels[kept], not_aug_inputs[kept]
        return super().observe(inputs, labels, not_aug_inputs, epoch, step)

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return cross-entropy and distillation, weighted by the shares of new and old classes.

        It is Eq. 3. The teacher's logits are corrected.
        """
        logits = self.net(images)
        if self.teacher is None:
            return {"ce": self.loss(logits, labels)}
        with torch.no_grad():
            before = self.n_past_classes - self.dataset.tasks.sizes[self.current_task - 1]
            old = corrected(self.teacher(images), before, *self.teacher_correction)
        share = self.n_past_classes / self.n_seen_classes
        distilled = soft_distillation(logits, old, self.options.temperature)
        return {"ce": (1 - share) * self.loss(logits, labels), "kd": share * distilled}

    def end_task(self, dataset: ContinualDataset) -> None:
        """Fit the correction on the held-out images, and choose exemplars."""
        if len(self.held):
            with torch.no_grad(), in_evaluation_mode([self.net]):
                logits = torch.cat([self.net(images) for images in self._held_images()])
            self.correction = fit_correction(logits, self.held.labels, self.n_past_classes)
        super().end_task(dataset)
        self.teacher_correction = self.correction
        self.held, self.trained = ExemplarMemory.empty(dataset), self.memory

    def _held_images(self) -> list[Tensor]:
        rows = torch.arange(len(self.held)).split(CHUNK)
        return [self.dataset.normalise(part.images, part.labels) for part in (self.held.part(chunk) for chunk in rows)]

    def forward(self, x: Tensor) -> Tensor:
        """Return the corrected logits (b, seen classes)."""
        return corrected(self.net(x), self.n_past_classes, *self.correction)

    def stored(self) -> dict[str, int]:
        """Return the bytes of exemplars and teacher; within a task held-out images, too."""
        own = super().stored()
        return {**own, "real images": own["real images"] + self.held.nbytes}

    def state(self) -> dict[str, Any]:
        """Return the state of the base class, the corrections and the images that are held out."""
        own = {
            CORRECTION: list(self.correction),
            "teacher_correction": list(self.teacher_correction),
            "held": self.held.state(),
        }
        return {**super().state(), **own}

    def load_weights(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state` returns, but for the optimiser."""
        super().load_weights(state)
        self.correction = _pair(state[CORRECTION])
        self.teacher_correction = _pair(state["teacher_correction"])
        self.held = ExemplarMemory.from_state(state["held"], self.dataset, self.n_seen_classes)
        self.trained = self.memory.without(self.held)

    def network_state(self) -> dict[str, Tensor]:
        """Return the network's tensors, and the correction."""
        return {**super().network_state(), CORRECTION: torch.tensor(self.correction, dtype=torch.float64)}

    def load_network(self, state: dict[str, Tensor], task: int) -> None:
        """Restore :meth:`network_state` as it was after ``task``."""
        super().load_network({name: value for name, value in state.items() if name != CORRECTION}, task)
        self.correction = _pair(tensor_field(state[CORRECTION], 2).tolist())


def _pair(values: Any) -> tuple[float, float]:
    """Return alpha and beta. Raise TypeError or ValueError if they are none."""
    alpha, beta = values
    if type(alpha) is not float or type(beta) is not float:
        raise TypeError("two numbers are expected")
    return alpha, beta
