"""Correct the bias towards new classes by two numbers, learned on held-out images (BiC).

The method is by Wu, Chen, Wang, Ye, Liu, Guo and Fu, CVPR 2019. Facts are from the paper, whose
sections are quoted from FACIL's port (``e0563c7``), and from the authors' released code
(``wuyuebupt/LargeScaleIncrementalLearning``, ``739b628``; ImageNet alone). As in both programs, no
task trains on the images that correct the bias. As in the released code, the pair of a task
corrects the logits of its new classes, and the network of the next task learns the corrected logits
by distillation. So one pair at a time is in use. What differs:

* A batch holds new images and exemplars in proportion (:class:`ExemplarTraining`).
* Alpha and beta are the minimum of the convex problem of stage 2, found by Newton's method. The
  paper approaches it by SGD. The penalty of beta is the released code's; the paper prints none. A
  small one of alpha is ours: it keeps alpha finite.
* In each task, as many images of a new class are held out as of an old one. The released code holds
  as many of every class out as the first task needs.
* The weight decay is the same in all tasks. The released code multiplies it by the number of tasks
  over the number of the task.
* The head has no bias (R-DFCIL's head).
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
from pmi_cl.options import new_default, option
from pmi_cl.seeding import mix

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset

CORRECTION = "bias_correction"
NONE = (1.0, 0.0)  # alpha and beta that change nothing


@dataclass(frozen=True)
class BicOptions(ExemplarOptions):
    """Hold the paper's values for CIFAR-100 (Sec. 6.1, 6.2).

    Its rate of 0.1, 128 images of a batch and momentum of 0.9 are those of every method.
    """

    n_epochs: int = new_default(250, "BiC Sec. 6.2")
    optim_wd: float = new_default(2e-4, "BiC Sec. 6.2")
    lr_milestones: tuple[float, ...] = new_default(
        (0.4, 0.6, 0.8), "BiC Sec. 6.2: epochs 100, 150 and 200 of 250 [INF]"
    )
    lr_gamma: float = new_default(0.1, "BiC Sec. 6.2 [INF]")
    temperature: float = option(2.0, "of the distillation", above=0, source="BiC Sec. 6.2; released code")
    held_out: float = option(
        0.1,
        "part of the stored images that is never trained on but corrects the bias, with as many of each new class",
        above=0,
        high=0.5,
        source="BiC Sec. 6.1: training and validation 9:1; released code",
    )


class Bic(ExemplarTraining):
    """BiC: cross-entropy and distillation, then a bias correction on held-out images.

    Attributes:
        correction: alpha and beta of the classes of the current task.
        teacher_correction: those of the task before.
        held: the images of all classes that no task trains on. ``memory`` has those it trains on.
    """

    NAME = "bic"
    Options = BicOptions
    options: BicOptions

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.correction = self.teacher_correction = NONE
        self.held = ExemplarMemory.empty(self.dataset)

    def begin_task(self, dataset: ContinualDataset) -> None:
        """Hold images of the new classes out, as many as of each old class."""
        super().begin_task(dataset)
        self.correction = NONE
        labels = dataset.train.labels[dataset.train_indices(self.current_task)]
        stored = self._stored_of_each(self.n_past_classes or self.n_seen_classes)
        if count := self._held_of_each(min([stored, *filter(None, labels.bincount().tolist())])):
            seed = mix(self.args.seed, "held out", self.current_task)
            self.held = self.held.joined(choose_exemplars(dataset, self.current_task, count, seed))

    def _held_of_each(self, stored: int) -> int:
        """Return how many of the ``stored`` images of a class are held out: fewer than all."""
        return min(max(round(self.options.held_out * stored), 1), stored - 1)

    def observe(
        self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor, epoch: int = 0, step: int = 0
    ) -> dict[str, Tensor]:
        """Take a step on the new images that are not held out, and on exemplars."""
        if len(self.held):
            kept = ~self.held.contains(not_aug_inputs)
            inputs, labels, not_aug_inputs = inputs[kept], labels[kept], not_aug_inputs[kept]
        if not len(labels) + len(self.memory):  # the whole of a small batch is held out
            return {"loss": torch.zeros((), device=self.device)}
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
        """Fit the correction on the held-out images of all classes, and choose exemplars."""
        if self.current_task > 0 and len(self.held.labels.unique()) == self.n_seen_classes:
            with torch.no_grad(), in_evaluation_mode([self.net]):
                logits = torch.cat([self.net(images) for images in self._held_images()])
            self.correction = fit_correction(logits, self.held.labels, self.n_past_classes)
        super().end_task(dataset)
        self.teacher_correction = self.correction

    def with_exemplars(self, dataset: ContinualDataset) -> None:
        """Store as many images as other methods: held-out ones, and the first of those herded."""
        stored = self.per_class()
        count = self._held_of_each(stored)
        self.memory = self.memory.without(self.held).first_of_each(stored - count)
        self.held = self.held.first_of_each(count)

    def _held_images(self) -> list[Tensor]:
        rows = torch.arange(len(self.held)).split(CHUNK)
        return [self.dataset.normalise(part.images, part.labels) for part in (self.held.part(chunk) for chunk in rows)]

    def forward(self, x: Tensor) -> Tensor:
        """Return the corrected logits (b, seen classes)."""
        return corrected(self.net(x), self.n_past_classes, *self.correction)

    def stored(self) -> dict[str, int]:
        """Return the bytes of exemplars and teacher. Held-out images are exemplars, too."""
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
