"""PMI + CFS on MoE-Adapters (Tong et al., NeurIPS 2025): adapters in both towers that replay inverted maps of the old classes.

The text tower trains too, so two losses keep it: the texts of the old classes stay where they were (TKD, Eq. 24), and images of all seen
classes, real and synthetic, detached, are classified among all seen texts (TFT, Eq. 25). See ``pmi_clip.py`` for the replay and
``moe_adapters.py`` for the adapters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pmi_cl.models.clip.clip_model import Inputs
from pmi_cl.models.clip.moe_adapters import MoeAdapters, MoeAdaptersOptions
from pmi_cl.models.clip.projected_task import ProjectedTask, ProjectedTaskOptions
from pmi_cl.models.training.losses import text_distillation
from pmi_cl.options import option


@dataclass(frozen=True)
class PmiMoeOptions(MoeAdaptersOptions, ProjectedTaskOptions):
    """MoE-Adapters' and the replay's."""

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
    projection_hkd: float = option(
        0.0, "lambda_hkd of a task without images", low=0, source="PMI released code; ImageNet-R: 0.05"
    )
    projection_tkd: float = option(
        0.0, "lambda_tkd of a task without images", low=0, source="PMI released code; ImageNet-R: 0.2"
    )


class PmiMoe(ProjectedTask, MoeAdapters):
    """MoE-Adapters with PMI + CFS: adapters in both towers, replay of inverted maps, texts held in place.

    Attributes:
        old_text: the texts (old classes, d), normalised, by the model of the task before.
    """

    NAME = "pmi_moe"
    Options = PmiMoeOptions
    options: PmiMoeOptions

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.old_text: Tensor | None = None

    def prepare_replay(self) -> None:
        """Keep the texts of the model of the task before, too."""
        super().prepare_replay()
        with torch.no_grad():
            self.old_text = self.text_features(range(self.n_past_classes))

    def distillation_weights(self) -> tuple[float, float]:
        """Give the base weights in the current task, that of the texts among them."""
        weight = self.options.projection_tkd if self.without_images else self.options.lambda_tkd
        return super().distillation_weights()[0], weight

    def losses(self, inputs: Inputs, labels: Tensor, epoch: int, step: int) -> dict[str, Tensor]:
        """Give all losses of a step, weighted; all seen texts pass the tower once, and every loss takes its part of them."""
        with self.texts_held(range(self.n_seen_classes)):
            return super().losses(inputs, labels, epoch, step)

    def text_losses(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Give TKD and TFT; the images' ``features`` (2b, d) do not move by them."""
        assert self.old_text is not None
        logits = self.logits(features.detach(), self.text_features(range(self.n_seen_classes)))
        tkd = text_distillation(self.text_features(range(self.n_past_classes)), self.old_text)
        return {"tkd": self.factors().rkd * tkd, "tft": self.options.lambda_tft * F.cross_entropy(logits, labels)}

    def state(self) -> dict[str, Any]:
        """Give the replay's, and the old texts."""
        return {**super().state(), "old_text": self.old_text}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up :meth:`state`."""
        super().load_state(state)
        self.old_text = None if state["old_text"] is None else state["old_text"].to(self.device)
