"""Train DCMI on a ResNet: class-conditional images, and prediction in two steps (CVPR 2024).

Before a task a generator learns to make images of the old classes. It is told the class by a
mixture of embeddings, in the proportions in which the prototypes (mean features) of the classes are
like each other. Its images are to have features like their prototypes, and to look real to a critic
that sees the images of the new task. In the task the heads and the top of the network train, under
local cross-entropy and distances of features and logits to the teacher. At the end, the nearest
prototype chooses the task of an image, and the head of that task its class.

Facts were read in the authors' released code (``f798964``). What deviates from it, and why:

* The network is the backbone that was asked for, whose heads have no bias. The original's is a
  ResNet-18 whose ``layer4`` trains in later tasks: ``trained_blocks``.
* Prototypes are means over all augmented images once, in evaluation mode. The original's loader
  leaves the last batch out, which could be all that there is of a class.
* The first task of the original's protocol for Tiny-ImageNet is contrastive. Here it is label
  augmentation (rotations), as for CIFAR-100, or plain cross-entropy. The original does not crop its
  images, and varies their brightness by 0.2 and not by 63/255.
* Scores within a task are probabilities, and those of the chosen task are raised by one, so that
  the order of the classes within every task is that of its head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.errors import UserError
from pmi_cl.inversion.networks.pieces import in_evaluation_mode
from pmi_cl.machine.state_fields import tensor_field
from pmi_cl.models.resnet.conditional_replay import ConditionalReplay, ConditionalReplayOptions
from pmi_cl.models.training.losses import local_cross_entropy
from pmi_cl.models.training.options import EpochOptions
from pmi_cl.models.training.prototypes import ROTATIONS, class_means, rotated
from pmi_cl.models.training.schedules import learning_rate
from pmi_cl.models.training.two_steps import head_distances, two_step_scores
from pmi_cl.options import new_default, option
from pmi_cl.seeding import global_seed, seeded

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset


@dataclass(frozen=True)
class DcmiOptions(ConditionalReplayOptions, EpochOptions):
    """Hold DCMI's own values. ``models/config/dcmi.yaml`` has smaller ones."""

    n_epochs: int = new_default(100, "DCMI")
    batch_size: int = new_default(128, "DCMI")
    lr: float = new_default(1e-3, "DCMI", help="learning rate of Adam, which falls to 0 along a cosine")
    optim_wd: float = option(2e-4, "weight decay of Adam", low=0, source="DCMI", as_in_mammoth=True)
    ce_temperature: float = option(0.1, "the logits are divided by it in the cross-entropies", above=0, source="DCMI")
    label_augmentation: bool = option(
        True,
        "1: the first task tells four rotations of each class apart; their extra logits are dropped at its end",
        source="DCMI (CIFAR-100)",
    )
    trained_blocks: int = option(
        2,
        "residual blocks, from the top, that later tasks train",
        unit="blocks",
        low=1,
        high=1000,
        source="DCMI: layer4 of a ResNet-18; on others [INF]",
    )
    lambda_feature: float = option(
        10.0, "weight of 1 - cosine of the features of student and teacher", low=0, source="DCMI"
    )
    feature_on: str = option(
        "generated",
        "which images that loss is on: generated, or all",
        choices=("generated", "all"),
        source="DCMI (CIFAR-100)",
    )
    lambda_logit: float = option(
        10.0, "weight of the distance of the logits of each old head to the teacher's", low=0, source="DCMI"
    )


class Dcmi(ConditionalReplay):
    """DCMI: images of a class-conditional generator; the nearest prototype chooses the task.

    Attributes:
        prototypes: the mean feature of each class of the tasks that have ended, (classes, d).
        turned: in the first task, the head of the rotations by 90, 180 and 270 degrees.
    """

    NAME = "dcmi"
    Options = DcmiOptions
    options: DcmiOptions

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.turned: nn.Linear | None = None

    def check_data(self, dataset: ContinualDataset) -> None:
        """Refuse images that cannot be turned. Raise UserError with their size."""
        super().check_data(dataset)
        height, width = dataset.SIZE
        if self.options.label_augmentation and height != width:
            raise UserError(
                f"--label_augmentation 1 turns images by 90 degrees, and these are {height}x{width}: "
                "give --label_augmentation 0"
            )

    # During a task.

    def begin_task(self, dataset: ContinualDataset) -> None:
        """Train the generator, then let that part of the network train which the task trains."""
        self.opt = None  # a checkpoint must not mix the optimiser of the task before with this task
        if self.current_task > 0:
            self.control.prepare()
        elif self.options.label_augmentation:
            self.turned = self._new_turned()
        self.restore_optimizer()

    def _new_turned(self) -> nn.Linear:
        with global_seed(self.args.seed, "turned"):
            return nn.Linear(int(self.net.feature_dim), (ROTATIONS - 1) * self.cpt, bias=False).to(self.device)

    def _trained_pieces(self) -> list[nn.Module]:
        """Return the pieces of the backbone that the current task trains."""
        pieces: list[nn.Module] = self.net.pieces()
        return pieces if self.current_task == 0 else pieces[1:][-self.options.trained_blocks :]

    def restore_optimizer(self) -> None:
        """Freeze what the task does not train, and build Adam over the rest."""
        self.net.requires_grad_(False)
        self.net.zero_grad(set_to_none=True)
        modules = [*self._trained_pieces(), self.net.head, *([] if self.turned is None else [self.turned])]
        trained = [parameter for module in modules for parameter in module.parameters()]
        for parameter in trained:
            parameter.requires_grad_(True)
        self.opt = torch.optim.Adam(trained, lr=self.options.lr, weight_decay=self.options.optim_wd)

    def set_modes(self) -> None:
        """Put what trains into training mode, the rest of the network into evaluation mode."""
        self.net.eval()
        for piece in (*self._trained_pieces(), self.net.head):
            piece.train()

    def begin_epoch(self, epoch: int, dataset: ContinualDataset) -> None:
        """Set the learning rate."""
        self.set_rate(learning_rate(epoch, self.options.n_epochs, self.options.lr, "cosine"))

    def observe(
        self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor, epoch: int = 0, step: int = 0
    ) -> dict[str, Tensor]:
        """Take a step down the cross-entropy (first task) or the losses of replay."""
        if self.current_task == 0:
            return self.descend({"ce": self._first_loss(inputs, labels)})
        return self.descend(self._replay_losses(inputs, labels, self.control.draw(len(inputs), epoch, step)[0]))

    def _first_loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of the classes, or of pairs of class and rotation."""
        if self.turned is None:
            return self.loss(self.net(inputs) / self.options.ce_temperature, labels)
        images, wanted = rotated(inputs, labels)
        upright, features = self.net(images, returnt="both")
        turned = self.turned(features).unflatten(1, (-1, ROTATIONS - 1))
        logits = torch.cat([upright.unsqueeze(2), turned], dim=2).flatten(1)  # 4 y + k, as wanted
        return self.loss(logits / self.options.ce_temperature, wanted)

    def _replay_losses(self, inputs: Tensor, labels: Tensor, images: Tensor) -> dict[str, Tensor]:
        """Return local CE (real images), and the distances of features and of logits by head.

        Real and generated images pass the network together.
        """
        o, n, old = self.options, len(inputs), self.n_past_classes
        together = torch.cat([inputs, images]).contiguous(memory_format=torch.channels_last)
        logits, features = self.net(together, returnt="both")
        with torch.no_grad():
            teacher_logits, teacher_features = self.teacher(together, returnt="both")
        first = n if o.feature_on == "generated" else 0
        alike = F.cosine_similarity(features[first:], teacher_features[first:], dim=1)
        sizes = list(self.dataset.tasks.sizes[: self.current_task])
        return {
            "ce": local_cross_entropy(logits[:n] / o.ce_temperature, labels, old),
            "feature": o.lambda_feature * (1 - alike).mean(),
            "logit": o.lambda_logit * head_distances(logits[:, :old], teacher_logits, sizes),
        }

    # After a task: prototypes, teacher.

    def end_task(self, dataset: ContinualDataset) -> None:
        """Add the prototypes of the new classes, drop the head of rotations, copy the teacher."""
        with self.host.phase("statistics"), in_evaluation_mode([self.net]), torch.no_grad():
            features, names = [], []
            for number, (images, labels) in enumerate(dataset.plain_batches(self.current_task)):
                varied = self.transform(images, seeded(self.args.seed, "prototypes", self.current_task, number))
                features.append(self.net(varied, returnt="features"))
                names.append(labels)
        new = class_means(torch.cat(features), torch.cat(names), self.n_past_classes, self.cpt)
        self.prototypes, self.turned = torch.cat([self.prototypes, new]), None
        self.opt = None  # it is over parameters that the next task does not train, or that are dropped
        super().end_task(dataset)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (b, seen classes): see :func:`two_step_scores`.

        Before the first task has ended they are logits.
        """
        logits, features = self.net(x, returnt="both")
        if len(self.prototypes) < logits.shape[1]:
            return logits
        return two_step_scores(logits, features, self.prototypes, list(self.net.head.sizes))

    def network_state(self) -> dict[str, Tensor]:
        """Return the tensors of the network, and the prototypes."""
        return {**super().network_state(), "prototypes": self.prototypes}

    def load_network(self, state: dict[str, Tensor], task: int) -> None:
        """Restore :meth:`network_state` as it was after ``task``."""
        super().load_network({name: value for name, value in state.items() if name != "prototypes"}, task)
        self._load_prototypes(state["prototypes"])

    def _load_prototypes(self, value: Any) -> None:
        prototypes = tensor_field(value, None, int(self.net.feature_dim))
        if len(prototypes) not in (self.n_past_classes, self.n_seen_classes):
            raise ValueError("the prototypes are not those of these classes")
        self.prototypes = prototypes.to(self.device)

    def state(self) -> dict[str, Any]:
        """Return the state of the base class, the prototypes and the head of rotations."""
        turned = None if self.turned is None else self.turned.state_dict()
        return {**super().state(), "prototypes": self.prototypes, "turned": turned}

    def load_weights(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state` returns, but for the optimiser."""
        super().load_weights(state)
        self._load_prototypes(state["prototypes"])
        self.turned = None
        if state["turned"] is not None:
            self.turned = self._new_turned()
            self.turned.load_state_dict(state["turned"])
