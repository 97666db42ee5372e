"""Replay noisy class means instead of images: PASS (Zhu et al., CVPR 2021).

PASS keeps the mean feature of every class, its prototype. In later tasks the head is trained on
prototypes with normal noise of one radius, beside the new images, and the features of new images
are held to those of the network of the task before. To learn features that also serve classes to
come, every image is shown in four rotations, and each pair of class and rotation is a class of its
own. The head has four outputs for each class; :meth:`Pass.forward` returns those of upright images.

Facts are from the authors' released code (``8b79993``). What is done otherwise, and why:

* One pass gives logits and features. The original passes images twice in training mode, so that the
  running statistics of BatchNorm move twice a step.
* Prototypes are means over all images of a class as they are. In the original they are means over
  one augmented epoch without its last, smaller batch.
* The learning rate falls after 45 and 90 of 100 epochs. The original steps its schedule at the
  start of an epoch, which is one epoch early, and trains for 101.
* The distance of features is the norm of the whole batch's difference, as in the original: it grows
  with the root of the batch, so ``lambda_kd`` belongs to a batch size (64 images, 256 rotated).
* The head has no bias (R-DFCIL's head).

The file is not named after the method, because ``pass`` is a word of Python.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pmi_cl.errors import UserError
from pmi_cl.inversion.networks.pieces import in_evaluation_mode
from pmi_cl.machine.state_fields import tensor_field
from pmi_cl.models.continual_model import TrainingOptions
from pmi_cl.models.storage import bytes_of
from pmi_cl.models.training.prototypes import ROTATIONS, class_means, draw_around, noise_radius, rotated
from pmi_cl.models.with_teacher import WithTeacher
from pmi_cl.options import new_default, option
from pmi_cl.seeding import seeded

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset


@dataclass(frozen=True)
class PassOptions(TrainingOptions):
    """Hold PASS's values."""

    n_epochs: int = new_default(100, "PASS released code: 101, one epoch early")
    batch_size: int = new_default(
        64, "PASS released code", help="real images of a step, each shown in four rotations; and prototypes beside them"
    )
    optimizer: str = option(
        "adam", "of all weights", choices=("adam", "sgd"), source="PASS released code", as_in_mammoth=True
    )
    lr: float = new_default(0.001, "PASS released code", help="learning rate")
    optim_wd: float = new_default(2e-4, "PASS released code", help="weight decay")
    lr_milestones: tuple[float, ...] = new_default((0.45, 0.9), "PASS released code")
    lr_gamma: float = new_default(0.1, "PASS released code")
    temperature: float = option(
        0.1, "what logits are divided by in both cross-entropies", above=0, source="PASS released code"
    )
    lambda_proto: float = option(
        10.0, "weight of the cross-entropy of noisy prototypes", low=0, source="PASS released code"
    )
    lambda_kd: float = option(
        10.0, "weight of the distance to the teacher's features", low=0, source="PASS released code"
    )


class Pass(WithTeacher):
    """PASS: noisy prototypes for the head, rotations as classes, distillation of features.

    Attributes:
        prototypes: the mean feature of each class of the tasks that have ended, (classes, d).
        radius: the deviation of the noise, a scalar, measured on the first task.
    """

    NAME = "pass"
    OUTPUTS_PER_CLASS = ROTATIONS
    Options = PassOptions
    options: PassOptions

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.prototypes = torch.zeros(0, int(self.net.feature_dim), device=self.device)
        self.radius = torch.zeros((), device=self.device)

    def check_data(self, dataset: ContinualDataset) -> None:
        """Refuse images that are not square, because they are turned by quarters.

        Raises:
            UserError: says their size.
        """
        super().check_data(dataset)
        height, width = dataset.SIZE
        if height != width:
            raise UserError(
                f"--model pass turns images by 90 degrees, and these have {height}x{width} pixels: give square ones"
            )

    def new_optimizer(self, parameters: Any) -> torch.optim.Optimizer:
        """Return Adam with weight decay added to the gradients, or SGD with momentum."""
        if self.options.optimizer == "sgd":
            return super().new_optimizer(parameters)
        return torch.optim.Adam(parameters, lr=self.options.lr, weight_decay=self.options.optim_wd)

    def observe(
        self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor, epoch: int = 0, step: int = 0
    ) -> dict[str, Tensor]:
        """Take a step down the cross-entropy of rotated images, and later down all losses."""
        images, wanted = rotated(inputs, labels)
        logits, features = self.net(images, returnt="both")
        losses = {"ce": F.cross_entropy(logits / self.options.temperature, wanted)}
        if self.teacher is not None:
            with torch.no_grad():
                old = self.teacher(images, returnt="features")
            losses["kd"] = self.options.lambda_kd * torch.linalg.vector_norm(features - old)
            losses["proto"] = self.options.lambda_proto * self._prototype_loss(epoch, step)
        return self.descend(losses)

    def _prototype_loss(self, epoch: int, step: int) -> Tensor:
        """Return the cross-entropy of the head on noisy prototypes, labelled as upright images."""
        generator = seeded(self.args.seed, "prototypes", self.current_task, epoch, step)
        features, classes = draw_around(self.prototypes, self.radius, self.options.batch_size, generator)
        return F.cross_entropy(self.net.head(features) / self.options.temperature, ROTATIONS * classes)

    def end_task(self, dataset: ContinualDataset) -> None:
        """Add the prototypes of the new classes; after the first task, measure the radius, too."""
        with self.host.phase("statistics"), in_evaluation_mode([self.net]), torch.no_grad():
            parts = [
                (self.net(images, returnt="features"), names)
                for images, names in dataset.plain_batches(self.current_task)
            ]
            features, labels = (torch.cat(part) for part in zip(*parts, strict=True))
        new = class_means(features, labels, self.n_past_classes, self.cpt)
        if self.current_task == 0:
            self.radius = noise_radius(features, labels)
        self.prototypes = torch.cat([self.prototypes, new])
        super().end_task(dataset)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (b, seen classes) of upright images, without those of rotations."""
        return self.logits_and_features(x)[0]

    def logits_and_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return those logits, and the features (b, d)."""
        logits, features = super().logits_and_features(x)
        return logits[:, ::ROTATIONS], features

    def stored(self) -> dict[str, int]:
        """Return the bytes of teacher (``networks``), prototypes and radius (``statistics``)."""
        return {**super().stored(), "statistics": bytes_of(self.prototypes, self.radius)}

    def state(self) -> dict[str, Any]:
        """Return the state of the base class, the prototypes and the radius."""
        return {**super().state(), "prototypes": self.prototypes, "radius": self.radius}

    def load_weights(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state` returns, but for the optimiser."""
        super().load_weights(state)
        prototypes = tensor_field(state["prototypes"], None, int(self.net.feature_dim))
        if len(prototypes) not in (self.n_past_classes, self.n_seen_classes):
            raise ValueError("the prototypes are not those of these classes")
        self.prototypes = prototypes.to(self.device)
        self.radius = tensor_field(state["radius"]).to(self.device)
