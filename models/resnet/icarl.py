"""Learn features by distillation on exemplars, and classify by the nearest mean (iCaRL).

The method is by Rebuffi, Kolesnikov, Sperl and Lampert, CVPR 2017. Facts are from the paper and
from the authors' released code for CIFAR-100 (``srebuffi/iCaRL``, ``b3d3686``). What differs:

* A batch holds new images and exemplars in proportion (:class:`ExemplarTraining`), where the paper
  shuffles their union.
* The head has outputs for the classes seen so far, and no bias (R-DFCIL's head). The released
  network has an output with a bias for every class from the beginning.
* Herding minimises the distance to the plain mean of the normalised features. The paper normalises
  means as well; only the means that classify are normalised here.
* The classes share the memory without a rest. The released code rounds up.
* The network is the run's own. The released one is a ResNet-32 without a ReLU after its last block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pmi_cl.machine.state_fields import tensor_field
from pmi_cl.models.resnet.exemplar_training import ExemplarOptions, ExemplarTraining
from pmi_cl.models.training.class_scores import nearest_mean_scores
from pmi_cl.models.training.distillation import sigmoid_distillation, sigmoid_targets
from pmi_cl.options import new_default, option

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset

MEANS = "class_means"


@dataclass(frozen=True)
class IcarlOptions(ExemplarOptions):
    """Hold the paper's values for CIFAR-100 (Sec. 4). Its batch size, 128, is every method's."""

    n_epochs: int = new_default(70, "iCaRL Sec. 4")
    lr: float = new_default(2.0, "iCaRL Sec. 4")
    optim_wd: float = new_default(
        1e-5, "iCaRL Sec. 4 (released code: 1e-5 times the sum of squares, whose gradient is that of 2e-5)"
    )
    lr_milestones: tuple[float, ...] = new_default((0.7, 0.9), "iCaRL Sec. 4: epochs 49 and 63 of 70")
    lr_gamma: float = new_default(0.2, "iCaRL Sec. 4")
    bce_mean: str = option(
        "run",
        "the binary cross-entropies of the seen classes are added and divided by the number of classes: of the run, "
        "or of those seen so far",
        choices=("run", "seen"),
        source="iCaRL released code: the mean over one output for each class of the run; Mammoth: seen",
    )
    mirrored_means: bool = option(
        False,
        "1: the mean of a class is that of its exemplars and their mirror images, where the data set may be mirrored",
        source="iCaRL Alg. 1: 0; released code and Mammoth: 1",
    )


def class_means(features: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """Return the mean feature of each class (n_classes, d), of length 1 (iCaRL, Alg. 1).

    Args:
        features: (n, d). Each is normalised before the mean.
        labels: (n,). Every class has a feature.
    """
    sums = torch.zeros(n_classes, features.shape[1], device=features.device)
    return F.normalize(sums.index_add_(0, labels, F.normalize(features)))


class Icarl(ExemplarTraining):
    """iCaRL: sigmoid outputs with distillation, herded exemplars, nearest class mean.

    Attributes:
        means: the class means (classes of finished tasks, d) of the exemplars.
    """

    NAME = "icarl"
    Options = IcarlOptions
    options: IcarlOptions

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.means = torch.zeros(0, int(self.net.feature_dim), device=self.device)

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the binary cross-entropy of Alg. 3, divided as ``bce_mean`` says.

        The targets of old classes are the teacher's sigmoids, those of new classes are the labels.
        """
        logits, old = self.net(images), None
        if self.teacher is not None:
            with torch.no_grad():
                old = self.teacher(images)
        targets = sigmoid_targets(labels, old, logits.shape[1])
        classes = self.dataset.N_CLASSES if self.options.bce_mean == "run" else logits.shape[1]
        return {"bce": sigmoid_distillation(logits, targets) / classes}

    def with_exemplars(self, dataset: ContinualDataset) -> None:
        """Take the means of all classes by the network as it is now."""
        mirror = self.options.mirrored_means and dataset.FLIP
        labels = self.memory.labels.repeat(2 if mirror else 1)
        self.means = class_means(self.exemplar_features(mirror), labels, self.n_seen_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (b, seen classes): minus the distances to the class means.

        While a task is trained, the new classes have no exemplars yet. The scores are the head's
        logits then.
        """
        if len(self.means) < sum(self.net.head.sizes):
            return self.net(x)
        return nearest_mean_scores(F.normalize(self.net(x, returnt="features")), self.means)

    def stored(self) -> dict[str, int]:
        """Return the bytes of exemplars, teacher and class means."""
        return {**super().stored(), "statistics": self.means.nbytes}

    def state(self) -> dict[str, Any]:
        """Return the state of the base class, and the class means."""
        return {**super().state(), MEANS: self.means}

    def load_weights(self, state: dict[str, Any]) -> None:
        """Load the network, teacher, exemplars and class means of :meth:`state`."""
        super().load_weights(state)
        self._load_means(state[MEANS], (self.n_past_classes, self.n_seen_classes))

    def network_state(self) -> dict[str, Tensor]:
        """Return the network's tensors and the class means."""
        return {**super().network_state(), MEANS: self.means}

    def load_network(self, state: dict[str, Tensor], task: int) -> None:
        """Restore :meth:`network_state` as it was after ``task``."""
        super().load_network({name: value for name, value in state.items() if name != MEANS}, task)
        self._load_means(state[MEANS], (self.n_seen_classes,))

    def _load_means(self, means: Any, known: tuple[int, ...]) -> None:
        if len(tensor_field(means, None, int(self.net.feature_dim))) not in known:
            raise ValueError("the class means are not those of these classes")
        self.means = means.to(self.device)
