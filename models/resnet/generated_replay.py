"""Define the base of methods that train a generator of synthetic images before each task."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from pmi_cl.errors import RunFailed
from pmi_cl.machine.state_fields import load_optimizer, whole_field
from pmi_cl.models.host import PhaseState
from pmi_cl.models.resnet.controlled_replay import ControlledReplay

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset


class GeneratedReplay(ControlledReplay):
    """Train a generator before each task but the first, and replay its images.

    A subclass builds the generator and what trains with it, and takes the steps.

    Attributes:
        generator: makes the images. None in the first task, and between two tasks if it is dropped.
        generator_step: the steps that it has taken for the current task.
        total_steps: the steps of all tasks.
    """

    KEEPS_GENERATOR = False  # True: the generator and its optimiser go on in the next task

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.generator: Any = None
        self.generator_step = 0
        self.total_steps = 0

    def new_generator(self) -> None:
        """Build the generator, what trains with it, and their optimisers."""
        raise NotImplementedError

    def drop_generator(self) -> None:
        """Forget what :meth:`new_generator` has built."""
        raise NotImplementedError

    def generator_parts(self) -> dict[str, Any]:
        """Return the modules and optimisers of :meth:`new_generator`, by their name in a state."""
        raise NotImplementedError

    def generator_training(self) -> tuple[int, Callable[[int], Tensor]]:
        """Return the number of steps before the task, and a function that takes one of a number.

        The function returns its loss, detached.
        """
        raise NotImplementedError

    def prepare_replay(self) -> None:
        """Train the generator, or continue with the one of a checkpoint."""
        if self.generator is None:
            self.new_generator()
        with self.host.phase("generator"):
            self._train_generator()
            self._check_finite()
        images, labels, _ = self.draw_replay(16 * self.n_past_classes, -1, 0)  # for a picture
        self.host.images(f"synthetic/task {self.current_task + 1}", self.dataset.denormalise(images, labels), labels)

    def _train_generator(self) -> None:
        """Take the steps that the generator lacks."""
        steps, take = self.generator_training()
        while self.generator_step < steps:
            loss = take(self.generator_step)
            self.generator_step, self.total_steps = self.generator_step + 1, self.total_steps + 1
            state = PhaseState(self.generator_step, steps, values={"loss": loss})
            self.host.progress(f"task {self.current_task + 1} generator", state)
            self.host.safe_point()

    def _check_finite(self) -> None:
        if not all(bool(weight.isfinite().all()) for weight in self.generator.parameters()):
            task = self.current_task + 1
            raise RunFailed(f"the generator of task {task} is not finite: try a smaller --generator_lr")

    def end_task(self, dataset: ContinualDataset) -> None:
        """Copy the teacher. Drop the generator unless it is kept."""
        super().end_task(dataset)
        self.generator_step = 0
        if not self.KEEPS_GENERATOR:
            self.drop_generator()

    def inversion_figures(self) -> dict[str, float]:
        """Return the steps of all tasks.

        Each step is one forward and one backward pass through the inverted network. No image is
        kept.
        """
        return dict.fromkeys(("steps", "step_equivalents", "forward_passes", "backward_passes"), self.total_steps)

    def state(self) -> dict[str, Any]:
        """Return the state of the base class, of the generator and of what trains with it."""
        own: dict[str, Any] = {"generator": None, "steps_in_all": self.total_steps}
        if self.generator is not None:
            parts = {name: part.state_dict() for name, part in self.generator_parts().items()}
            own["generator"] = {**parts, "step": self.generator_step}
        return {**super().state(), **own}

    def load_state(self, state: dict[str, Any]) -> None:
        """Load the state of :meth:`state`."""
        super().load_state(state)
        self.total_steps = whole_field(state["steps_in_all"])
        saved = state["generator"]
        if saved is not None:
            self.new_generator()
            for name, part in self.generator_parts().items():
                if isinstance(part, nn.Module):
                    part.load_state_dict(saved[name])
                else:
                    load_optimizer(part, saved[name])
            self.generator_step = whole_field(saved["step"])
