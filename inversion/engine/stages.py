"""The stages of an inversion, a stage that is under way, and a step that was taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pmi_cl.inversion.engine.descent import Descent
from pmi_cl.inversion.ways.full_model import FullLoss
from pmi_cl.inversion.ways.pmi import Boost, LayerLoss
from pmi_cl.inversion.ways.sparse import Pruning
from pmi_cl.machine.state_fields import tensor_field


@dataclass(frozen=True)
class InversionStage:
    """One descent of every batch.

    Attributes:
        layer: the number of the piece that is inverted alone; None: the whole network.
        steps: of the descent.
        cost: of a step, in full-model steps.
        part: which part of the batch, from 0, where the full-model stage takes it in parts.
    """

    layer: int | None
    steps: int
    cost: float
    part: int = 0

    @property
    def name(self) -> str:
        """Return "layer 3", "full model", or "full model part 2" of a batch in parts."""
        if self.layer is not None:
            return f"layer {self.layer}"
        return f"full model part {self.part + 1}" if self.part else "full model"


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
    def boost(self) -> Boost | None:
        """Return what raises the weights of terms in this stage; None where nothing does."""
        return self.loss.boost

    @property
    def pruning(self) -> Pruning | None:
        """Return what drops patches in this stage; None where nothing does."""
        return self.loss.pruning if isinstance(self.loss, FullLoss) else None

    def curve(self) -> Tensor:
        """Return the losses so far (steps,)."""
        return torch.stack(self.losses) if self.losses else torch.zeros(0)

    def state(self) -> dict[str, Any]:
        """Return plain data for a checkpoint, which further steps do not touch."""
        return {
            "descent": self.descent.state(),
            "boost": {} if self.boost is None else self.boost.state(),
            "pruning": None if self.pruning is None else self.pruning.state(),
            "losses": self.curve(),
        }

    def load(self, state: dict[str, Any], device: torch.device) -> None:
        """Go on where :meth:`state` was taken."""
        self.descent.load(state["descent"])
        if self.boost is not None:
            self.boost.load(state["boost"])
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
        stage_number, stages: which stage of the batch it is, from 1, and how many there are.
        batch, batches: which batch it is, from 1, and how many there are.
        part: the part of the work of the whole inversion that is done, in floating-point
            operations: a step of one layer costs less than one of the whole network.
        done: how many steps of the whole inversion are done.
        total: how many it has.
        loss: 0-dim, on the device.
        images: computes the images (b, c, h, w) of the batch after a full-model step. Call it
            before the next step.
        first_images: computes those that the full-model stage began with.
    """

    stage: str
    number: int
    stage_number: int
    stages: int
    batch: int
    batches: int
    part: float
    done: int
    total: int
    loss: Tensor
    images: Callable[[], Tensor] = field(repr=False)
    first_images: Callable[[], Tensor] = field(repr=False)

    @property
    def where(self) -> str:
        """Return the place of the step: "batch 2/5, stage 4/16: layer 12"."""
        return f"batch {self.batch}/{self.batches}, stage {self.stage_number}/{self.stages}: {self.stage}"
