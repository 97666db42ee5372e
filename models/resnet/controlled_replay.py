"""Define the base of methods on a ResNet that replay synthetic images, and their controls."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pmi_cl.errors import UserError
from pmi_cl.inversion.features.selection import balanced_labels
from pmi_cl.models.resnet.replay_controls import ReplayControl
from pmi_cl.models.run_outline import RunOutline
from pmi_cl.models.with_teacher import WithTeacher
from pmi_cl.seeding import seeded

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset

GENERATED = 20_000  # images that stand in for those of a generator (PMI's buffer)


class ControlledReplay(WithTeacher):
    """A method that replays synthetic images of the old classes, or what ``--replay`` says.

    A subclass makes the synthetic images: in :meth:`prepare_replay` before a task, and in
    :meth:`draw_replay` for each step. It calls ``control.prepare`` and ``control.draw`` instead of
    them. Its options have those of :class:`pmi_cl.models.resnet.replay_options.ControlOptions`.

    Attributes:
        control: what stands in for synthetic images, if ``--replay`` says so.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.control = ReplayControl(self)

    @classmethod
    def check(cls, args: SimpleNamespace, outline: RunOutline) -> None:
        """Raise UserError if there are too few images for a control."""
        super().check(args, outline)
        least = 2 * outline.n_classes
        if args.replay_images is not None and args.replay_images < least:
            fault = f"--replay_images {args.replay_images}: give at least {least}"
            raise UserError(f"{fault}, two for each of {outline.n_classes} classes")

    @classmethod
    def samples_mib(cls, args: SimpleNamespace, outline: RunOutline) -> float:
        """Return what images that stand in for a generator's take, in MiB."""
        stand_ins = (args.replay_images or GENERATED) * (args.replay in ("real", "noise"))
        return 4 * 3 * (outline.image_size or 0) ** 2 * stand_ins / 2**20

    def prepare_replay(self) -> None:
        """Prepare to draw synthetic samples, from the teacher and stored statistics alone."""
        raise NotImplementedError

    def draw_replay(self, n: int, epoch: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return synthetic images, their labels and the teacher's logits.

        Returns:
            Normalised images (n, c, h, w), labels (n,) and logits (n, old classes).
        """
        raise NotImplementedError

    def images_for(self, task: int) -> int:
        """Return how many images stand in for synthetic ones in a task, where any do."""
        return self.options.replay_images or GENERATED

    def sample_labels(self) -> Tensor:
        """Return old classes (n,) for all images of the task that are made before it."""
        generator = seeded(self.args.seed, "replayed labels", self.current_task)
        n = max(self.images_for(self.current_task), self.n_past_classes)
        return balanced_labels(n, self.n_past_classes, generator).to(self.device)

    def end_task(self, dataset: ContinualDataset) -> None:
        """Copy the network as the teacher of the next task, and store what ``--replay`` needs."""
        super().end_task(dataset)
        self.control.end_task(dataset)

    def stored(self) -> dict[str, int]:
        """Return the bytes of the teacher and of the control's images."""
        return {**super().stored(), **self.control.stored()}

    def state(self) -> dict[str, Any]:
        """Return the state of the base class, and of the control."""
        return {**super().state(), **self.control.state()}

    def load_weights(self, state: dict[str, Any]) -> None:
        """Load the state of :meth:`state`, but for the optimiser."""
        super().load_weights(state)
        self.control.load_state(state)
