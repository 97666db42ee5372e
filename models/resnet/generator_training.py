"""Train a generator that inverts a frozen teacher, and replay its images (ABD, R-DFCIL)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pmi_cl.errors import UserError
from pmi_cl.inversion.networks.frozen import FrozenNetwork
from pmi_cl.inversion.networks.pieces import in_evaluation_mode
from pmi_cl.inversion.ways.generator import Generator, GeneratorWeights, doublings_of, generator_loss
from pmi_cl.models.resnet.generated_replay import GeneratedReplay
from pmi_cl.models.storage import bytes_of
from pmi_cl.options import option
from pmi_cl.seeding import global_seed, seeded

if TYPE_CHECKING:
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


class GeneratorReplay(GeneratedReplay):
    """Replay the images of a generator that inverts the frozen teacher.

    R-DFCIL has a new generator in each task, ABD keeps one for all (``KEEPS_GENERATOR``).

    Attributes:
        generator: maps noise to images.
        generator_opt: its Adam.
    """

    NEEDS_STATISTICS = True  # of BatchNorms, in the network
    STATISTICS_WEIGHT = "generator_statistics"  # unless this option is 0

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.generator_opt: torch.optim.Optimizer | None = None

    @classmethod
    def check(cls, args: SimpleNamespace, outline: RunOutline) -> None:
        """Raise UserError for images that a generator of a reasonable size cannot make."""
        super().check(args, outline)
        side = outline.image_size
        if side is not None and side // 2 ** doublings_of((side, side)) > LARGEST_START:
            fault = f"{cls.NAME} cannot make images of {side} pixels: its maps of at least 8 pixels double"
            raise UserError(f"{fault} until they have the size of the images; choose 32, 64, 96, 224 or the like")

    def new_generator(self) -> None:
        """Build the generator and its Adam."""
        with global_seed(self.args.seed, "generator", self.current_task):
            self.generator = Generator(self.dataset.SIZE).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.generator_opt = torch.optim.Adam(self.generator.parameters(), lr=self.options.generator_lr)
        self.generator_step = 0

    def drop_generator(self) -> None:
        """Forget the generator and its Adam."""
        self.generator, self.generator_opt = None, None

    def generator_parts(self) -> dict[str, Any]:
        """Return the generator and its Adam."""
        return {"net": self.generator, "opt": self.generator_opt}

    def generator_training(self) -> tuple[int, Callable[[int], Tensor]]:
        """Return the steps, and one step down :func:`generator_loss` against the teacher."""
        o = self.options
        network = FrozenNetwork(
            self.teacher.pieces(), self.teacher.head, direction="real_to_synthetic", device=self.device
        )
        weights = GeneratorWeights(o.generator_temperature, o.generator_smoothness, o.generator_statistics)

        def take(step: int) -> Tensor:
            assert self.generator_opt is not None
            z = self._noise(o.generator_batch, "train", step)
            loss = generator_loss(network, self.generator(z), weights)
            self.generator_opt.zero_grad()
            loss.backward()
            self.generator_opt.step()
            return loss.detach()

        return o.generator_steps, take

    def _noise(self, n: int, *keys: int | str) -> Tensor:
        """Return noise (n, :attr:`Generator.NOISE`) that depends on seed, task and keys alone."""
        random = seeded(self.args.seed, "z", self.current_task, *keys)
        return torch.randn(n, Generator.NOISE, generator=random).to(self.device, non_blocking=True)

    def draw_replay(self, n: int, epoch: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Make new images at every step, labelled by the teacher.

        Returns:
            Normalised images (n, c, h, w), labels (n,) and the teacher's logits (n, old classes).
        """
        with torch.no_grad(), in_evaluation_mode([self.generator]):
            images = self.generator(self._noise(n, "replay", epoch, step))
            logits = self.teacher(images)
        return images, logits.argmax(1), logits

    def stored(self) -> dict[str, int]:
        """Return the bytes of the teacher, and of the generator while there is one.

        An optimiser that goes on in the next task counts, too.
        """
        own, goes_on = super().stored(), self.KEEPS_GENERATOR and self.generator_opt is not None
        optimizer = self.generator_opt.state_dict() if goes_on and self.generator_opt else None
        return {**own, "networks": own["networks"] + bytes_of(self.generator, optimizer)}
