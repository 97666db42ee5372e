"""The stages of an inversion, a stage that is under way, and a step that was taken."""

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
from pmi_cl.machine.state_fields import tensor_field


@dataclass(frozen=True)
class InversionStage:
    """One descent of every batch.

    Attributes:
        layer: the number of the piece that is inverted alone; None: the whole network.
        steps: of the descent.
        cost: of a step, in full-model steps.
    """

    layer: int | None
    steps: int
    cost: float

    @property
    def name(self) -> str:
        """Return "layer 3" or "full model"."""
        return "full model" if self.layer is None else f"layer {self.layer}"


@dataclass(eq=False)
class StageRun:
    """A stage of one batch that is under way.

    Attributes:
        descent: the iterate and the state of Adam.
        loss: what is minimised.
        losses: of every step so far, each 0-dim, on the device.
    """

    descent: Descent
    loss: FullLoss | LayerLoss
    losses: list[Tensor] = field(default_factory=list)

    @property
    def pruning(self) -> Pruning | None:
        """Return what drops patches in this stage; None where nothing does."""
        return self.loss.pruning if isinstance(self.loss, FullLoss) else None

    def curve(self) -> Tensor:
        """Return the losses so far (steps,)."""
        return torch.stack(self.losses) if self.losses else torch.zeros(0)

    def state(self) -> dict[str, Any]:
        """Return plain data for a checkpoint, which further steps do not touch."""
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
        self.losses = list(tensor_field(state["losses"], None).to(device).unbind())


# the state between two stages
NOT_BEGUN: dict[str, Any] = {"descent": None, "boost": {}, "pruning": None, "losses": torch.zeros(0)}


@dataclass(frozen=True)
class InversionStep:
    """One step that was taken.

    Attributes:
        stage: the name of the stage, "full model" or "layer 3".
        number: how many steps of the stage are done for the current batch, with this one.
        done: how many steps of the whole inversion are done.
        total: how many it has.
        loss: 0-dim, on the device.
        images: computes the images (b, c, h, w) of the batch after a full-model step. Call it
            before the next step.
        first_images: computes those that the full-model stage began with.
    """

    stage: str
    number: int
    done: int
    total: int
    loss: Tensor
    images: Callable[[], Tensor] = field(repr=False)
    first_images: Callable[[], Tensor] = field(repr=False)
