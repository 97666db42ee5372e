"""Train a generator that inverts a frozen teacher, and replay its images (ABD, R-DFCIL)."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from pmi_cl.errors import UserError
from pmi_cl.inversion.networks.frozen import FrozenNetwork
from pmi_cl.inversion.networks.pieces import in_evaluation_mode
from pmi_cl.inversion.ways.generator import Generator, GeneratorWeights, doublings_of, generator_loss
from pmi_cl.machine.state_fields import load_optimizer, whole_field
from pmi_cl.models.host import PhaseState
from pmi_cl.models.resnet.controlled_replay import ControlledReplay
from pmi_cl.models.storage import bytes_of
from pmi_cl.options import option
from pmi_cl.seeding import global_seed, seeded

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset
    from pmi_cl.models.run_outline import RunOutline

LARGEST_START = 31  # pixels of a generator's first maps: those of odd sides are the images themselves


@dataclass(frozen=True)
class GeneratorOptions:
    """Hold the options of the generator, with R-DFCIL's values."""

    generator_steps: int = option(
        5000, "Adam steps of the generator before each task", unit="steps", low=1, high=10_000_000, source="R-DFCIL"
    )
    generator_lr: float = option(1e-3, "learning rate of the generator", above=0, source="R-DFCIL")
    generator_batch: int = option(
        128, "images of a generator step", unit="images", low=2, high=100_000, source="R-DFCIL", memory="inversion"
    )
    generator_temperature: float = option(
        1000.0, "the logits are divided by it in the generator's cross-entropy", above=0, source="R-DFCIL"
    )
    generator_smoothness: float = option(
        1e-3, "weight of the squared difference to the smoothed image", low=0, source="R-DFCIL"
    )
    generator_statistics: float = option(
        50.0, "weight of the mean KL to the BatchNorm statistics", low=0, source="R-DFCIL"
    )


class GeneratorReplay(ControlledReplay):
    """Replay the images of a generator.

    Attributes:
        KEEPS_GENERATOR: whether one generator and one optimiser are kept for all tasks (ABD).
            Otherwise both are new in each task (R-DFCIL).
        generator: maps noise to images. None before the second task, and between two tasks if it is
            not kept.
        generator_opt: its Adam.
        generator_step: the steps that it has taken for the current task.
        total_steps: the steps of all tasks.
    """

    NEEDS_STATISTICS = True  # of BatchNorms, in the network
    STATISTICS_WEIGHT = "generator_statistics"  # unless this option is 0
    KEEPS_GENERATOR: ClassVar[bool] = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.generator: Generator | None = None
        self.generator_opt: torch.optim.Optimizer | None = None
        self.generator_step = 0
        self.total_steps = 0

    @classmethod
    def check(cls, args: SimpleNamespace, outline: RunOutline) -> None:
        """Raise UserError for images that a generator of a reasonable size cannot make."""
        super().check(args, outline)
        side = outline.image_size
        if side is not None and side // 2 ** doublings_of((side, side)) > LARGEST_START:
            fault = f"{cls.NAME} cannot make images of {side} pixels: its maps of at least 8 pixels double"
            raise UserError(f"{fault} until they have the size of the images; choose 32, 64, 96, 224 or the like")

    def prepare_replay(self) -> None:
        """Train the generator against the teacher, or continue with the one of a checkpoint."""
        if self.generator is None or self.generator_opt is None:
            self._new_generator()
        assert self.generator is not None
        with self.host.phase("generator"):
            self._train_generator()
            self.check_generator(self.generator)
        self.show_generated()

    def _train_generator(self) -> None:
        """Take the steps that the generator lacks."""
        assert self.generator is not None and self.generator_opt is not None
        o, phase = self.options, f"task {self.current_task + 1} generator"
        network = FrozenNetwork(
            self.teacher.pieces(), self.teacher.head, direction="real_to_synthetic", device=self.device
        )
        weights = GeneratorWeights(o.generator_temperature, o.generator_smoothness, o.generator_statistics)
        while self.generator_step < o.generator_steps:
            z = self._noise(o.generator_batch, "train", self.generator_step)
            loss = generator_loss(network, self.generator(z), weights)
            self.generator_opt.zero_grad()
            loss.backward()
            self.generator_opt.step()
            self.generator_step, self.total_steps = self.generator_step + 1, self.total_steps + 1
            state = PhaseState(self.generator_step, o.generator_steps, values={"loss": loss.detach()})
            self.host.progress(phase, state)
            self.host.safe_point()

    def _new_generator(self) -> None:
        with global_seed(self.args.seed, "generator", self.current_task):
            self.generator = Generator(self.dataset.SIZE).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.generator_opt = torch.optim.Adam(self.generator.parameters(), lr=self.options.generator_lr)
        self.generator_step = 0

    def _noise(self, n: int, *keys: int | str) -> Tensor:
        """Return noise (n, :attr:`Generator.NOISE`) that depends on seed, task and keys alone."""
        random = seeded(self.args.seed, "z", self.current_task, *keys)
        return torch.randn(n, Generator.NOISE, generator=random).to(self.device, non_blocking=True)

    def draw_replay(self, n: int, epoch: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Make new images at every step, labelled by the teacher.

        Returns:
            Normalised images (n, c, h, w), labels (n,) and the teacher's logits (n, old classes).
        """
        assert self.generator is not None
        with torch.no_grad(), in_evaluation_mode([self.generator]):
            images = self.generator(self._noise(n, "replay", epoch, step))
            logits = self.teacher(images)
        return images, logits.argmax(1), logits

    def end_task(self, dataset: ContinualDataset) -> None:
        """Copy the teacher. Drop the generator unless it is kept."""
        super().end_task(dataset)
        self.generator_step = 0
        if not self.KEEPS_GENERATOR:
            self.generator, self.generator_opt = None, None

    def inversion_figures(self) -> dict[str, float]:
        """Return the steps of all tasks.

        Each step is one forward and one backward pass through the inverted network. No image is
        kept.
        """
        return dict.fromkeys(("steps", "step_equivalents", "forward_passes", "backward_passes"), self.total_steps)

    def stored(self) -> dict[str, int]:
        """Return the bytes of the teacher, and of the generator while there is one.

        An optimiser that goes on in the next task counts, too.
        """
        own, goes_on = super().stored(), self.KEEPS_GENERATOR and self.generator_opt is not None
        optimizer = self.generator_opt.state_dict() if goes_on and self.generator_opt else None
        return {**own, "networks": own["networks"] + bytes_of(self.generator, optimizer)}

    def state(self) -> dict[str, Any]:
        """Return the state of the base class, and the generator with its optimiser and step."""
        own: dict[str, Any] = {"generator": None, "steps_in_all": self.total_steps}
        if self.generator is not None and self.generator_opt is not None:
            own["generator"] = {
                "net": self.generator.state_dict(),
                "opt": self.generator_opt.state_dict(),
                "step": self.generator_step,
            }
        return {**super().state(), **own}

    def load_state(self, state: dict[str, Any]) -> None:
        """Load the state of :meth:`state`."""
        super().load_state(state)
        self.total_steps = whole_field(state["steps_in_all"])
        if state["generator"] is not None:
            self._new_generator()
            assert self.generator is not None and self.generator_opt is not None
            self.generator.load_state_dict(state["generator"]["net"])
            load_optimizer(self.generator_opt, state["generator"]["opt"])
            self.generator_step = whole_field(state["generator"]["step"])
