"""Define how one task of a CLIP method is learned, with its images or without them.

A plan has the epochs, batches, rates, optimiser and weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from pmi_cl.models.training.schedules import learning_rate
from pmi_cl.seeding import seeded

if TYPE_CHECKING:
    from pmi_cl.inversion.ways.buffer import SyntheticBuffer
    from pmi_cl.models.clip.clip_model import ClipModel
    from pmi_cl.models.clip.map_inversion import MapInverter

Batch = tuple[Tensor, Tensor, Tensor]  # inputs, labels (b,), inputs that are not augmented


class TaskPlan(Protocol):
    """How the current task is learned."""

    def epochs(self) -> int:
        """Return the number of epochs."""

    def steps_per_epoch(self) -> int:
        """Return the number of steps of an epoch."""

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, from step ``start`` on."""

    def features(self, inputs: Tensor) -> Tensor:
        """Return the features (b, d) of the inputs of a batch."""

    def rate(self, epoch: int, step: int) -> float:
        """Return the learning rate of a step."""

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return a new optimiser of the parameters."""

    def replays(self) -> bool:
        """Tell whether a loss looks at synthetic samples of old classes, where there are any."""

    def distillation(self) -> tuple[float, float]:
        """Return the base weights of the distillation of samples (HKD) and of texts (TKD)."""


class TaskWithImages:
    """A task that is learned from the data set's training images. Its inputs are (b, 3, h, w)."""

    def __init__(self, method: ClipModel) -> None:
        self.method, self.options = method, method.options

    def epochs(self) -> int:
        """Return ``n_epochs``."""
        return int(self.options.n_epochs)

    def steps_per_epoch(self) -> int:
        """Return the number of the data set's batches."""
        return self.method.dataset.steps_per_epoch(self.method.current_task, self.options.batch_size)

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """Yield the data set's batches."""
        method = self.method
        return method.dataset.train_batches(method.current_task, epoch, self.options.batch_size, start=start)

    def features(self, inputs: Tensor) -> Tensor:
        """Return the features (b, d) of images (b, 3, h, w)."""
        return self.method.image_features(inputs)

    def rate(self, epoch: int, step: int) -> float:
        """Return the rate of ``lr_schedule`` after ``warmup_steps``."""
        o, steps = self.options, self.steps_per_epoch()
        return learning_rate(epoch * steps + step, self.epochs() * steps, o.lr, o.lr_schedule, o.warmup_steps)

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return SGD with momentum, or AdamW."""
        o = self.options
        if o.optimizer == "adamw":
            return torch.optim.AdamW(parameters, lr=o.lr, weight_decay=o.optim_wd)
        return torch.optim.SGD(parameters, lr=o.lr, momentum=o.optim_mom, weight_decay=o.optim_wd)

    def replays(self) -> bool:
        """Return True: hard distillation looks at them."""
        return True

    def distillation(self) -> tuple[float, float]:
        """Return ``lambda_hkd`` and ``lambda_tkd``; a method whose texts are frozen has no TKD."""
        o: Any = self.options
        return o.lambda_hkd, getattr(o, "lambda_tkd", 0.0)


class TaskWithoutImages:
    """A task that is learned from synthetic samples of its classes (PMI appendix I.3).

    Its inputs are the numbers (b,) of the samples. It is short, so the rate has no warm-up.

    Attributes:
        inverter: what made the samples; it knows how the network reads them.
        samples: the synthetic samples of the task's classes; None until they are made.
    """

    def __init__(self, method: ClipModel, inverter: MapInverter, samples: SyntheticBuffer | None) -> None:
        self.method, self.inverter, self.samples = method, inverter, samples
        self.options: Any = method.options

    def epochs(self) -> int:
        """Return ``projection_epochs``."""
        return int(self.options.projection_epochs)

    def steps_per_epoch(self) -> int:
        """Return the number of whole batches of all samples, each repeated, but at least one."""
        o = self.options
        return max(self.method.cpt * o.projection_samples * o.projection_repeats // o.batch_size, 1)

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """Yield the numbers (b,) of samples, each sample ``projection_repeats`` times an epoch."""
        assert self.samples is not None, "Replay.prepare() makes the samples"
        count, method = len(self.samples), self.method
        generator = seeded(method.args.seed, "projected epoch", epoch)
        rows = torch.randperm(count * self.options.projection_repeats, generator=generator).to(method.device) % count
        for chosen in rows.split(self.options.batch_size)[start : self.steps_per_epoch()]:
            yield chosen, self.samples.labels[chosen], chosen

    def features(self, inputs: Tensor) -> Tensor:
        """Return the features (b, d) of the samples with the numbers ``inputs`` (b,)."""
        assert self.samples is not None, "Replay.prepare() makes the samples"
        return self.inverter.features_of(self.samples.part(inputs))

    def rate(self, epoch: int, step: int) -> float:
        """Return the rate of ``lr_schedule`` from ``projection_lr`` on."""
        o, steps = self.options, self.steps_per_epoch()
        return learning_rate(epoch * steps + step, self.epochs() * steps, o.projection_lr, o.lr_schedule)

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return AdamW."""
        return torch.optim.AdamW(parameters, lr=self.options.projection_lr, weight_decay=self.options.optim_wd)

    def replays(self) -> bool:
        """Return whether HKD has a weight, or a trained text tower needs images of old classes."""
        return self.options.projection_hkd > 0 or self.method.TRAINS_TEXT

    def distillation(self) -> tuple[float, float]:
        """Return ``projection_hkd`` and ``projection_tkd``; frozen texts have no TKD."""
        return self.options.projection_hkd, getattr(self.options, "projection_tkd", 0.0)
