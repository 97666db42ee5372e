"""Fine-tune on each task without any measure against forgetting."""

from __future__ import annotations

from torch import Tensor

from pmi_cl.models.continual_model import ContinualModel, TrainingOptions


class Sgd(ContinualModel):
    """Fine-tuning on each task in turn, the lower bound."""

    NAME = "sgd"
    Options = TrainingOptions
    options: TrainingOptions

    def observe(
        self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor, epoch: int = 0, step: int = 0
    ) -> dict[str, Tensor]:
        """Take a step down the cross-entropy over all classes seen so far."""
        return self.descend({"loss": self.loss(self.net(inputs), labels)})
