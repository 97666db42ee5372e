"""Classify by the statistics that a method keeps of its classes, beside or in place of the head."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pmi_cl.inversion.features.gaussians import ClassGaussians
from pmi_cl.machine.state_fields import tensor_field
from pmi_cl.models.continual_model import ContinualModel
from pmi_cl.models.training.class_scores import mahalanobis_scores, nearest_mean_scores

MEAN, DEVIATION = "class_statistics.mean", "class_statistics.std"  # among the tensors of a network


class StatisticsClassifier(ContinualModel):
    """A method that keeps the Gaussian of the features of every class it has learned.

    It stands before the other base classes of a method. ``--classifier`` says by which scores
    :meth:`forward` classifies. The Gaussians are the method's ``gaussians``; on a CLIP they are
    those of its replay.
    """

    KEEPS_STATISTICS = True

    @property
    def _holder(self) -> Any:
        return getattr(self, "replay", self)

    def scores(self, x: Tensor) -> dict[str, Tensor]:
        """Return the scores (b, seen classes) of images by "head", "ncm" and "mahalanobis".

        Only "head" is there where a seen class has no Gaussian: within a task, or after one without
        images.
        """
        logits, features = self.logits_and_features(x)
        gaussians: ClassGaussians | None = self._holder.gaussians
        if gaussians is None or len(gaussians) != self.n_seen_classes:
            return {"head": logits}
        features = features.float()
        return {
            "head": logits,
            "ncm": nearest_mean_scores(features, gaussians.mean),
            "mahalanobis": mahalanobis_scores(features, gaussians.mean, gaussians.std),
        }

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores (b, seen classes) of normalised images by the chosen classifier."""
        return super().forward(x) if self.classified_by == "head" else self.scores(x)[self.classified_by]

    def network_state(self) -> dict[str, Tensor]:
        """Return the tensors of the network, with the Gaussians where it classifies by them."""
        own, gaussians = super().network_state(), self._holder.gaussians
        if self.classified_by == "head":
            return own
        return {**own, MEAN: gaussians.mean, DEVIATION: gaussians.std}

    def load_network(self, state: dict[str, Tensor], task: int) -> None:
        """Restore :meth:`network_state`."""
        super().load_network({name: value for name, value in state.items() if name not in (MEAN, DEVIATION)}, task)
        if self.classified_by != "head":
            mean = tensor_field(state[MEAN], self.n_seen_classes, None)
            deviation = tensor_field(state[DEVIATION], *mean.shape)
            self._holder.gaussians = ClassGaussians(mean.to(self.device), deviation.to(self.device))
