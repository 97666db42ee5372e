"""Train on real and generated images that pass the network together, as ABD's repository does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pmi_cl.models.continual_model import TrainingOptions
from pmi_cl.models.resnet.generator_training import GeneratorOptions, GeneratorReplay
from pmi_cl.models.resnet.replay_options import ControlOptions
from pmi_cl.options import new_default

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset


@dataclass(frozen=True)
class JointReplayOptions(GeneratorOptions, ControlOptions, TrainingOptions):
    """Hold the schedule and the generator of ABD's repository, which its methods share."""

    n_epochs: int = new_default(250, "ABD")
    optim_wd: float = new_default(2e-4, "ABD")
    lr_milestones: tuple[float, ...] = new_default((0.4, 0.6, 0.8), "ABD: epochs 100, 150 and 200 of 250")
    lr_gamma: float = new_default(0.1, "ABD")
    generator_steps: int = new_default(10000, "ABD")


class JointReplay(GeneratorReplay):
    """Train on a batch of real and as many generated images.

    They have common batch statistics. One generator is kept through all tasks. A subclass gives
    the losses (:meth:`replay_losses`).
    """

    KEEPS_GENERATOR = True
    Options: type = JointReplayOptions
    options: JointReplayOptions

    def begin_task(self, dataset: ContinualDataset) -> None:
        """Train the generator against the teacher, then build the optimiser."""
        self.opt = None  # a checkpoint must not mix the optimiser of the task before with this task
        if self.current_task > 0:
            self.control.prepare()
        super().begin_task(dataset)

    def observe(
        self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor, epoch: int = 0, step: int = 0
    ) -> dict[str, Tensor]:
        """Take one step down the cross-entropy (first task) or the losses of replay."""
        if self.current_task == 0:
            return self.descend({"ce": self.loss(self.net(inputs), labels)})
        images, old_labels, teacher_logits = self.control.draw(len(inputs), epoch, step)
        together = torch.cat([inputs, images]).contiguous(memory_format=torch.channels_last)
        return self.descend(self.replay_losses(together, torch.cat([labels, old_labels]), teacher_logits))

    def replay_losses(self, images: Tensor, labels: Tensor, teacher_logits: Tensor) -> dict[str, Tensor]:
        """Return the weighted losses of a step by name.

        Args:
            images: (2b, c, h, w), b real images of new classes, then b generated ones.
            labels: (2b,), global; of generated images those that the teacher gave.
            teacher_logits: (b, old classes), of the generated images.
        """
        raise NotImplementedError
