"""The stages of an inversion: which they are, one that is under way, and what is told of each of its steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pmi_cl.inversion.engine.descent import Descent
from pmi_cl.inversion.ways.full_model import FullLoss
from pmi_cl.inversion.ways.pmi import LayerLoss
from pmi_cl.inversion.ways.sparse import Pruning


@dataclass(frozen=True)
class InversionStage:
    """One descent of every batch.

    Attributes:
        layer: the piece that is inverted alone; None: the whole network.
        steps: of the descent.
        cost: of a step, in full-model steps.
    """

    layer: int | None
    steps: int
    cost: float

    @property
    def name(self) -> str:
        """For people: "layer 3", "full model"."""
        return "full model" if self.layer is None else f"layer {self.layer}"


@dataclass(eq=False)
class StageRun:
    """A stage of one batch, under way.

    Attributes:
        descent: where it has got to.
        loss: what it minimises.
        losses: of every step so far, each 0-dim, on the device.
    """

    descent: Descent
    loss: FullLoss | LayerLoss
    losses: list[Tensor] = field(default_factory=list)

    @property
    def pruning(self) -> Pruning | None:
        """What drops patches in this stage, if anything."""
        return self.loss.pruning if isinstance(self.loss, FullLoss) else None

    def curve(self) -> Tensor:
        """The losses so far (steps,)."""
        return torch.stack(self.losses) if self.losses else torch.zeros(0)

    def state(self) -> dict[str, Any]:
        """Plain data for a checkpoint, which further steps do not touch."""
        boost = self.loss.boost if isinstance(self.loss, LayerLoss) else None
        return {
            "descent": self.descent.state(),
            "boost": {} if boost is None else boost.state(),
            "pruning": None if self.pruning is None else self.pruning.state(),
            "losses": self.curve(),
        }

    def load(self, state: dict[str, Any], device: torch.device) -> None:
        """Go on where :meth:`state` was taken."""
        self.descent.load(state["descent"])
        if isinstance(self.loss, LayerLoss) and self.loss.boost is not None:
            self.loss.boost.load(state["boost"])
        if self.pruning is not None:
            self.pruning.load(state["pruning"], device)
        self.losses = list(state["losses"].to(device).unbind())


NOT_BEGUN: dict[str, Any] = {
    "descent": None,
    "boost": {},
    "pruning": None,
    "losses": torch.zeros(0),
}  # the state between two stages


@dataclass(frozen=True)
class InversionStep:
    """One step that was taken.

    Attributes:
        stage: the stage's name, "full model" or "layer 3".
        number: how many steps of the stage are done for the batch at hand, this one counted.
        done: how many steps of the whole inversion are done.
        total: how many it has.
        loss: 0-dim, on the device.
        images: computes the batch's images (b, c, h, w) as they are after a full-model step; to be asked before the next step.
        first_images: computes those that the full-model stage began with.
    """

    stage: str
    number: int
    done: int
    total: int
    loss: Tensor
    images: Callable[[], Tensor] = field(repr=False)
    first_images: Callable[[], Tensor] = field(repr=False)
