"""Train PMI + CFS on MoE-Adapters (Tong et al., NeurIPS 2025).

Adapters in both towers replay inverted maps of the old classes.

The text tower trains too, so two losses keep it: the texts of the old classes stay where they were
(TKD, Eq. 24), and images of all seen classes, real and synthetic, detached, are classified among
all seen texts (TFT, Eq. 25).

Read these files in this order: ``moe_adapters.py`` (what trains), ``clip_model.py`` (a task from
its begin to its end), ``map_replay.py`` (what is kept of old classes and how it is replayed), and
this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pmi_cl.machine.state_fields import tensor_field
from pmi_cl.models.clip.map_replay import MapReplay, MapReplayOptions
from pmi_cl.models.clip.moe_adapters import MoeAdapters, MoeAdaptersOptions
from pmi_cl.models.statistics_classifier import StatisticsClassifier
from pmi_cl.models.storage import bytes_of
from pmi_cl.models.training.losses import text_distillation
from pmi_cl.options import new_default, option


@dataclass(frozen=True)
class PmiMoeOptions(MoeAdaptersOptions, MapReplayOptions):
    """The flags of MoE-Adapters and of the replay, and those of the texts' losses."""

    lambda_tkd: float = option(
        0.2,
        "weight of the distillation of old classes' texts, scaled task by task",
        low=0,
        source="PMI appendix I.2; CUB-200: 0.1",
    )
    lambda_tft: float = option(
        0.001,
        "weight of the texts' cross-entropy over all seen classes",
        low=0,
        source="PMI appendix I.2; CUB-200: 0.1",
    )
    projection_hkd: float = new_default(
        0.0, "PMI released code; ImageNet-R: 0.05", help="lambda_hkd of a task without images"
    )
    projection_tkd: float = option(
        0.0, "lambda_tkd of a task without images", low=0, source="PMI released code; ImageNet-R: 0.2"
    )


class MapAndTextReplay(MapReplay):
    """The replay of inverted maps, and of the texts of old classes as they were.

    Attributes:
        old_text: (old classes, d), normalised, the texts by the model of the task before.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.old_text: Tensor | None = None

    def prepare_old_classes(self) -> None:
        """Make maps of the old classes, and keep their texts."""
        super().prepare_old_classes()
        with torch.no_grad():
            self.old_text = self.method.classifier.features(range(self.method.n_past_classes))

    def text_losses(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return TKD and TFT.

        Args:
            features: (2b, d), of real and synthetic images; they do not move by these losses.
            labels: (2b,), theirs.
        """
        classifier, method = self.method.classifier, self.method
        assert self.old_text is not None
        logits = classifier.logits(features.detach(), classifier.features(range(method.n_seen_classes)))
        tkd = text_distillation(classifier.features(range(method.n_past_classes)), self.old_text)
        return {"tkd": self.factors().tkd * tkd, "tft": self.options.lambda_tft * F.cross_entropy(logits, labels)}

    def stored(self) -> dict[str, int]:
        """Return the bytes of the replay of maps; the old texts are statistics."""
        own = super().stored()
        return {**own, "statistics": own["statistics"] + bytes_of(self.old_text)}

    def state(self) -> dict[str, Any]:
        """Return the state of the replay of maps, and the old texts."""
        return {**super().state(), "old_text": self.old_text}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        super().load_state(state)
        text, method = state["old_text"], self.method
        if text is not None and len(tensor_field(text, None, method.net.feature_dim)) > method.n_past_classes:
            # Fewer are right: until a task has its samples, they are those of the task before.
            raise ValueError("the old texts are of more classes than the tasks before had")
        self.old_text = None if text is None else text.to(method.device)


class PmiMoe(StatisticsClassifier, MoeAdapters):
    """MoE-Adapters with PMI + CFS: adapters in both towers, replay of inverted maps.

    Losses hold the features of the texts in place.
    """

    NAME = "pmi_moe"
    Options = PmiMoeOptions
    REPLAY = MapAndTextReplay
    options: PmiMoeOptions

    def losses(self, inputs: Tensor, labels: Tensor, epoch: int, step: int) -> dict[str, Tensor]:
        """Return all losses of a step, weighted.

        All seen texts pass the tower once, and every loss takes its part of them.
        """
        with self.classifier.held(range(self.n_seen_classes)):
            return super().losses(inputs, labels, epoch, step)
