"""Learn new classes without forgetting the outputs for old ones (Li and Hoiem, ECCV 2016).

LwF keeps the network of the task before. On the images of the new classes the old outputs are held
to what that network says. No image and no statistic of an old class is needed, and so nothing holds
the old classes apart from the new ones: over all classes LwF is a low bar.

What the sources do, and what is done here:

* The paper first trains the new head alone (warm-up), then everything. Mammoth does so, ABD does
  not (``warmup_part``). The warm-up is local cross-entropy on frozen features in evaluation mode.
* The teacher sees the augmented image that the student sees, as in ABD. Mammoth computes its logits
  once, for images that are not augmented (``plain_teacher``), so that the student has to agree on
  another crop.
* Mammoth takes softmaxes, raises them to 1/T, and takes a logarithm, which is infinite where a
  share is 0. The softmax of logits / T is the same number and stays finite.
* ABD and Mammoth have a bias in the head. The head here has none (R-DFCIL's).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pmi_cl.models.continual_model import TrainingOptions
from pmi_cl.models.training.distillation import soft_distillation
from pmi_cl.models.training.losses import local_cross_entropy
from pmi_cl.models.training.momentum_sgd import MomentumSGD
from pmi_cl.models.with_teacher import WithTeacher
from pmi_cl.options import option

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset


@dataclass(frozen=True)
class LwfOptions(TrainingOptions):
    """Hold LwF's weights."""

    lambda_kd: float = option(
        1.0, "weight of the distillation of old logits", low=0, source="LwF section 3; ABD (Mammoth: 0.5)"
    )
    temperature: float = option(2.0, "what logits are divided by in it", above=0, source="LwF section 3; ABD; Mammoth")
    warmup_part: float = option(
        1.0,
        "epochs for the new head alone before those of a later task, as a part of n_epochs",
        low=0,
        high=1,
        source="LwF section 3; Mammoth: 1; ABD: 0",
    )
    plain_teacher: bool = option(
        False, "1: the teacher sees images that are not augmented", source="ABD: 0; Mammoth: 1"
    )


class Lwf(WithTeacher):
    """LwF: cross-entropy over all seen classes, and distillation of old logits on new images.

    Attributes:
        warming: whether the new head alone trains now.
    """

    NAME = "lwf"
    Options = LwfOptions
    options: LwfOptions

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.warming = False

    def warmup_epochs(self) -> int:
        """Return the epochs at the start of the current task in which the new head alone trains."""
        return round(self.options.n_epochs * self.options.warmup_part) if self.current_task > 0 else 0

    def n_epochs(self) -> int:
        """Return the epochs of the current task, those of the warm-up included."""
        return self.warmup_epochs() + self.options.n_epochs

    def begin_task(self, dataset: ContinualDataset) -> None:
        """Begin with the warm-up, if there is one."""
        self.warming = self.warmup_epochs() > 0
        self.restore_optimizer()

    def restore_optimizer(self) -> None:
        """Build SGD over what trains now. In the warm-up it has no momentum and no decay."""
        if self.warming:
            self.opt = MomentumSGD(self.net.head.tasks[-1].parameters(), lr=self.options.lr)
        else:
            super().restore_optimizer()

    def begin_epoch(self, epoch: int, dataset: ContinualDataset) -> None:
        """End the warm-up when its epochs are over, and set the learning rate.

        The schedule counts the epochs after the warm-up, in which the rate does not change.
        """
        after = epoch - self.warmup_epochs()
        if self.warming and after >= 0:
            self.warming = False
            self.restore_optimizer()
        if not self.warming:
            super().begin_epoch(after, dataset)

    def set_modes(self) -> None:
        """Put the network into training mode, except in the warm-up."""
        self.net.train(not self.warming)

    def observe(
        self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor, epoch: int = 0, step: int = 0
    ) -> dict[str, Tensor]:
        """Take a step down both losses; in the warm-up, down the new head's cross-entropy."""
        if self.warming:
            with torch.no_grad():
                features = self.net(inputs, returnt="features")
            return self.descend({"ce": local_cross_entropy(self.net.head(features), labels, self.n_past_classes)})
        logits = self.net(inputs)
        losses = {"ce": self.loss(logits, labels)}
        if self.teacher is not None:
            seen = self.dataset.normalise(not_aug_inputs, labels) if self.options.plain_teacher else inputs
            kept = soft_distillation(logits, self.teacher_logits(seen), self.options.temperature)
            losses["kd"] = self.options.lambda_kd * kept
        return self.descend(losses)

    def state(self) -> dict[str, Any]:
        """Return the state of the base class, and whether the warm-up is going on."""
        return {**super().state(), "warming": self.warming}

    def load_weights(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state` returns, but for the optimiser."""
        super().load_weights(state)
        if not isinstance(state["warming"], bool):
            raise TypeError("warming is neither true nor false")
        self.warming = state["warming"]
