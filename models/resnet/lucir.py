"""Learn a unified cosine classifier with rebalancing (LUCIR, also called UCIR).

The method is by Hou, Pan, Loy, Wang and Lin, CVPR 2019. Facts are from the paper and from the
authors' released code (``hshustc/CVPR19_Incremental_Learning``, ``7ebfa1d``). What differs:

* A batch holds new images and exemplars in proportion (:class:`ExemplarTraining`).
* The margin ranking loss adds the K new classes, as Eq. 8 does. The released code averages them.
* The rivals in that loss are new classes, as in the paper (the released ``MR``). The released
  ``AMR`` takes any other class.
* Balanced fine-tuning trains the class embeddings on features that are computed once, without
  augmentation.
* The network is the run's own. UCIR removes the ReLU after the last block, so that features may be
  negative.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pmi_cl.backbones.cosine_head import CosineHead
from pmi_cl.models.resnet.exemplar_training import ExemplarOptions, ExemplarTraining
from pmi_cl.models.resnet.exemplars import features_of
from pmi_cl.models.training.cosine_losses import less_forget, margin_ranking
from pmi_cl.options import new_default, option
from pmi_cl.seeding import seeded

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset


@dataclass(frozen=True)
class LucirOptions(ExemplarOptions):
    """Hold the paper's values for CIFAR-100 (Sec. 4.1).

    The released code's rate of 0.1, 128 images of a batch, momentum of 0.9 and weight decay of 5e-4
    are those of every method.
    """

    n_epochs: int = new_default(160, "UCIR Sec. 4.1")
    lr_milestones: tuple[float, ...] = new_default((0.5, 0.75), "UCIR Sec. 4.1: epochs 80 and 120 of 160")
    lr_gamma: float = new_default(0.1, "UCIR Sec. 4.1")
    exemplars_per_class: int | None = new_default(20, "UCIR Sec. 4.1")
    lambda_lf: float = option(
        5.0,
        "weight of the less-forget constraint, times the root of old classes over new classes",
        low=0,
        source="UCIR Sec. 4.1 (ImageNet: 10), Eq. 7; released code",
    )
    lambda_mr: float = option(
        1.0,
        "weight of the margin ranking loss",
        low=0,
        source="UCIR Eq. 9 (released code: 1 / K, as it averages over the K classes)",
    )
    margin: float = option(
        0.5, "how much nearer an exemplar has to be to its own class than to a new one", low=0, source="UCIR Sec. 4.1"
    )
    rivals: int = option(
        2, "new classes that an exemplar is held apart from", low=1, high=100_000, source="UCIR Sec. 4.1: K"
    )
    imprint: bool = option(
        True, "1: the embeddings of new classes start at their mean features", source="UCIR released code"
    )
    balanced_epochs: int = option(
        0,
        "epochs at the end of a task in which the class embeddings train on exemplars alone, as many of each class",
        unit="epochs",
        low=0,
        high=100_000,
        source="UCIR Sec. 4.1: 0; released code with CBF: 20",
    )
    balanced_lr: float = option(
        0.01,
        "learning rate of these epochs; it is multiplied by lr_gamma after half of them",
        above=0,
        source="UCIR released code",
    )


def imprinted(features: Tensor, labels: Tensor, classes: range, norm: Tensor) -> Tensor:
    """Return embeddings (classes, d): directions of the mean features of length 1, of one norm.

    Args:
        features: (n, d), of length 1.
        labels: (n,). Every class has a feature.
        classes: the new classes.
        norm: the mean norm of the embeddings of old classes.
    """
    means = torch.stack([features[labels == label].mean(0) for label in classes])
    return F.normalize(means) * norm


class Lucir(ExemplarTraining):
    """UCIR: cosine classifier, less-forget constraint, margin ranking."""

    NAME = "lucir"
    Options = LucirOptions
    options: LucirOptions

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.net.head = CosineHead(int(self.net.feature_dim)).to(self.device)

    def begin_task(self, dataset: ContinualDataset) -> None:
        """Imprint the new embeddings, and fix those of old classes."""
        if self.current_task > 0 and self.options.imprint:
            features = features_of(dataset, self.current_task, self.features)
            labels = dataset.train.labels[dataset.train_indices(self.current_task)]
            *old, new = self.net.head.tasks
            norm = torch.cat([linear.weight.detach().norm(dim=1) for linear in old]).mean()
            classes = dataset.task_classes(self.current_task)
            with torch.no_grad():
                new.weight.copy_(imprinted(features, labels, classes, norm))
        self.restore_optimizer()

    def restore_optimizer(self) -> None:
        """Build the optimiser over all but the embeddings of old classes, which are fixed."""
        for linear in self.net.head.tasks[:-1]:
            linear.requires_grad_(False)
        self.opt = self.new_optimizer([weight for weight in self.net.parameters() if weight.requires_grad])

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the three terms of Eq. 9. In the first task there is cross-entropy alone."""
        head = self.net.head
        features = self.net(images, returnt="features")
        cosines = head.cosines(features)
        losses = {"ce": self.loss(head.scale * cosines, labels)}
        if self.teacher is not None:
            with torch.no_grad():
                teacher_features = self.teacher(images, returnt="features")
            weight = self.options.lambda_lf * math.sqrt(self.n_past_classes / self.cpt)
            losses["lf"] = weight * less_forget(features, teacher_features)
            losses["mr"] = self._margin_loss(cosines, labels)
        return losses

    def _margin_loss(self, cosines: Tensor, labels: Tensor) -> Tensor:
        o = self.options
        return o.lambda_mr * margin_ranking(cosines, labels, self.n_past_classes, o.margin, o.rivals)

    def with_exemplars(self, dataset: ContinualDataset) -> None:
        """Train the class embeddings on the exemplars of all classes, if ``balanced_epochs`` asks.

        The features and the scale stay, so features are computed once, and the less-forget
        constraint is constant.
        """
        o, head = self.options, self.net.head
        if self.current_task == 0 or not o.balanced_epochs:
            return
        features, labels = self.exemplar_features(), self.memory.labels
        head.tasks.requires_grad_(True)
        opt = self.new_optimizer(head.tasks.parameters())
        for epoch in range(o.balanced_epochs):
            opt.param_groups[0]["lr"] = o.balanced_lr * (o.lr_gamma if 2 * epoch >= o.balanced_epochs else 1)
            shuffle = seeded(self.args.seed, "balanced", self.current_task, epoch)
            for rows in torch.randperm(len(labels), generator=shuffle).to(self.device).split(o.batch_size):
                opt.zero_grad()
                cosines = head.cosines(features[rows])
                loss = self.loss(head.scale * cosines, labels[rows])
                (loss + self._margin_loss(cosines, labels[rows])).backward()
                opt.step()
