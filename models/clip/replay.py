"""Define what a CLIP method does for the classes of earlier tasks.

The base class has the places for it. It does nothing there, which is the choice of the baselines.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pmi_cl.models.clip.task_plan import TaskPlan, TaskWithImages

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset
    from pmi_cl.models.clip.clip_model import ClipModel
    from pmi_cl.models.run_outline import RunOutline


class Replay:
    """No replay. A subclass overrides what it needs; :class:`ClipModel` calls it at each place.

    Attributes:
        method: the method that has this replay. It knows the network, the task and the options.
    """

    def __init__(self, method: ClipModel) -> None:
        self.method = method

    @classmethod
    def check(cls, args: SimpleNamespace, outline: RunOutline) -> None:
        """Raise UserError for values that do not go together."""

    @classmethod
    def samples_mib(cls, args: SimpleNamespace, outline: RunOutline) -> float:
        """Return the most that synthetic samples take of the memory and of a checkpoint, in MiB."""
        return 0.0

    def samples(self) -> int:
        """Return how many synthetic samples are made for the current task."""
        return 0

    def prepare(self) -> None:
        """Get ready for a task, before the method adds anything for it."""

    def plan(self) -> TaskPlan:
        """Return how the current task is learned."""
        return TaskWithImages(self.method)

    def ce_factor(self) -> float:
        """Return the weight of the local cross-entropy in the current task."""
        return 1.0

    def losses(self, features: Tensor, labels: Tensor, epoch: int, step: int) -> dict[str, Tensor]:
        """Return further losses of a step, weighted.

        Args:
            features: (b, d), those of the step's images.
            labels: (b,), their labels.
            epoch, step: their numbers in the task.
        """
        return {}

    def end_task(self, dataset: ContinualDataset) -> None:
        """Keep of the task what later tasks need."""

    def figures(self) -> dict[str, float]:
        """Return what inversion has cost over the run so far."""
        return {}

    def stored(self) -> dict[str, int]:
        """Return the bytes that are held, by kind, as ``ContinualModel.stored`` does."""
        return {}

    def state(self) -> dict[str, Any]:
        """Return everything that is kept, for a checkpoint."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` returned; ``state`` holds the method's entries, too."""
