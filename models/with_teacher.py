"""Keep the frozen network of the task before, whose outputs a method distils."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pmi_cl.models.continual_model import ContinualModel
from pmi_cl.models.storage import bytes_of

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset


def frozen_copy(net: nn.Module) -> Any:
    """Return a copy of a network in evaluation mode, none of whose parameters trains."""
    return copy.deepcopy(net).eval().requires_grad_(False)


class WithTeacher(ContinualModel):
    """A method with a teacher: the network as it was at the end of the task before.

    Attributes:
        teacher: the frozen copy. None in the first task.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.teacher: Any = None

    def end_task(self, dataset: ContinualDataset) -> None:
        """Copy the network as the teacher of the next task."""
        self.net.requires_grad_(True)
        self.teacher = frozen_copy(self.net)

    @torch.no_grad()
    def teacher_logits(self, images: Tensor) -> Tensor:
        """Return the teacher's logits (n, old classes) of images (n, 3, h, w)."""
        return torch.cat([self.teacher(part) for part in images.split(self.EVALUATION_BATCH)])

    def stored(self) -> dict[str, int]:
        """Return the bytes of the teacher, under ``networks``."""
        return {**super().stored(), "networks": bytes_of(self.teacher)}

    def state(self) -> dict[str, Any]:
        """Return the state of the base class, and the teacher."""
        return {**super().state(), "teacher": None if self.teacher is None else self.teacher.state_dict()}

    def load_weights(self, state: dict[str, Any]) -> None:
        """Load the network and the teacher of :meth:`state`."""
        super().load_weights(state)
        if state["teacher"] is not None:
            self.teacher = frozen_copy(self.net)
            self.teacher.load_state_dict(state["teacher"])
