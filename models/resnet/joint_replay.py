"""Train on real and generated images that pass the network together, as ABD's repository does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pmi_cl.models.continual_model import TrainingOptions
from pmi_cl.models.resnet.generator_training import GeneratorOptions, GeneratorReplay
from pmi_cl.models.resnet.replay_options import ControlOptions
from pmi_cl.options import option

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset


@dataclass(frozen=True)
class JointReplayOptions(GeneratorOptions, ControlOptions, TrainingOptions):
    """Hold the schedule and the generator of ABD's repository, which its methods share."""

    n_epochs: int = option(
        250, "epochs of each task", unit="epochs", low=1, high=100_000, source="ABD", as_in_mammoth=True
    )
    optim_wd: float = option(2e-4, "weight decay of SGD", low=0, source="ABD", as_in_mammoth=True)
    lr_milestones: tuple[float, ...] = option(
        (0.4, 0.6, 0.8),
        "when the rate is multiplied by lr_gamma, as parts of n_epochs; after the first epoch at the earliest",
        low=0,
        high=1,
        source="ABD: epochs 100, 150 and 200 of 250",
    )
    lr_gamma: float = option(0.1, "what the rate is multiplied by at each milestone", above=0, high=1, source="ABD")
    generator_steps: int = option(
        10000, "Adam steps of the generator before each task", unit="steps", low=1, high=10_000_000, source="ABD"
    )


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
