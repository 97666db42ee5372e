"""Hold the weights that matter for old classes: online EWC (Schwarz et al., ICML 2018).

EWC (Kirkpatrick et al., PNAS 2017) keeps a network near the weights of the task before, each weight
by its Fisher information. The online form has one anchor, the latest weights, and one running sum
of Fisher matrices that decays by gamma. It was made for tasks that are told apart by their number.
Over all classes it does little: nothing compares an old class with a new one.

What the sources do, and what is done here:

* The penalty is lambda/2 sum F (theta - theta*)^2, as printed. Mammoth leaves the half out: its
  ``e_lambda`` is half of ``ewc_lambda``.
* The Fisher information is that of the network's own distribution, of which one label is drawn for
  each image (``ewc_fisher``). Mammoth takes the true labels, weighted with their probability, image
  by image in training mode, so that BatchNorm normalises an image by itself, and its running
  statistics move. Here the network is in evaluation mode, and no loop goes over images.
* Schwarz et al. multiply the sum by gamma in the penalty, too ([INF], and so do van de Ven's
  programs). That is one more factor of lambda. It is left out here and in Mammoth.
* Schwarz et al. scale each task's Fisher matrix, without saying how. It is not scaled here.
* Mammoth's cross-entropy is over all classes of the run, here over those seen so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor

from pmi_cl.inversion.networks.pieces import in_evaluation_mode
from pmi_cl.machine.state_fields import tensor_field
from pmi_cl.models.continual_model import ContinualModel, TrainingOptions
from pmi_cl.models.storage import bytes_of
from pmi_cl.models.training.fisher import Fisher, diagonal_fisher, quadratic_penalty
from pmi_cl.options import option
from pmi_cl.seeding import seeded

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset

GRADIENTS_AT_ONCE = 2**25  # numbers in the gradients of the images that are taken together: 128 MiB


@dataclass(frozen=True)
class EwcOptions(TrainingOptions):
    """Hold EWC's weights."""

    ewc_lambda: float = option(
        20.0, "weight of half the squared distance to the old weights", low=0, source="Mammoth: e_lambda 10, CIFAR-10"
    )
    ewc_gamma: float = option(
        1.0, "what the Fisher information of earlier tasks is multiplied by", low=0, high=1, source="Mammoth"
    )
    ewc_fisher: str = option(
        "sampled",
        "labels whose gradients are squared: one drawn from the network, all of them, the true one, or the true one "
        "weighted with its probability",
        choices=("sampled", "exact", "empirical", "weighted"),
        source="[INF] EWC: the network's; Mammoth: weighted",
    )


class EwcOn(ContinualModel):
    """Online EWC: cross-entropy, and a penalty for moving weights that matter for old tasks.

    Attributes:
        fisher: the decaying sum of Fisher informations, by the name of a parameter.
        anchors: the parameters after the task before, by name. Both are empty in the first task.
    """

    NAME = "ewc_on"
    Options = EwcOptions
    options: EwcOptions

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.fisher: dict[str, Tensor] = {}
        self.anchors: dict[str, Tensor] = {}

    def observe(
        self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor, epoch: int = 0, step: int = 0
    ) -> dict[str, Tensor]:
        """Take a step down cross-entropy over all seen classes and the penalty."""
        losses = {"ce": self.loss(self.net(inputs), labels)}
        if self.anchors:
            penalty = quadratic_penalty(dict(self.net.named_parameters()), self.anchors, self.fisher)
            losses["ewc"] = self.options.ewc_lambda * penalty
        return self.descend(losses)

    def end_task(self, dataset: ContinualDataset) -> None:
        """Add the task's Fisher information to the decayed sum, and move the anchors."""
        kind = cast(Fisher, self.options.ewc_fisher)
        generator = seeded(self.args.seed, "fisher", self.current_task)
        size = sum(parameter.numel() for parameter in self.net.parameters())
        batches = dataset.plain_batches(self.current_task, batch_size=max(GRADIENTS_AT_ONCE // size, 1))
        with self.host.phase("statistics"), in_evaluation_mode([self.net]):
            new = diagonal_fisher(self.net, batches, kind, generator, self.host.safe_point)
        for name, old in self.fisher.items():
            new[name] = new[name] + self.options.ewc_gamma * old
        self.fisher = new
        self.anchors = {name: value.detach().clone() for name, value in self.net.named_parameters()}

    def stored(self) -> dict[str, int]:
        """Return the bytes of Fisher information and anchors, under ``statistics``."""
        return {**super().stored(), "statistics": bytes_of(self.fisher, self.anchors)}

    def state(self) -> dict[str, Any]:
        """Return the state of the base class, the Fisher information and the anchors."""
        return {**super().state(), "fisher": dict(self.fisher), "anchors": dict(self.anchors)}

    def load_weights(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state` returns, but for the optimiser."""
        super().load_weights(state)
        self.fisher, self.anchors = (self._by_parameter(state[name]) for name in ("fisher", "anchors"))
        if self.fisher.keys() != self.anchors.keys():
            raise ValueError("Fisher information and anchors are of different parameters")

    def _by_parameter(self, saved: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return saved tensors, each of the shape of the parameter of its name."""
        own = dict(self.net.named_parameters())
        return {name: tensor_field(value, *own[name].shape).to(self.device) for name, value in dict(saved).items()}
