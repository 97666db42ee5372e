"""The last task learned without an image of it: features of similar classes, turned as the texts turn, inverted and trained on (App. I.3).

What is known for it comes from the bare CLIP, without the method's modules: Gaussians of the seen classes' features and the moments of
its layers, both collected task by task. The released code does it for MoE-Adapters on CIFAR-100 and ImageNet-R.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pmi_cl.backbones.clip_pieces import bare
from pmi_cl.errors import UserError
from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.features.gaussians import ClassGaussians, fit_gaussians
from pmi_cl.inversion.features.projection import projected_features
from pmi_cl.inversion.features.selection import balanced_labels
from pmi_cl.inversion.networks.pieces import in_evaluation_mode
from pmi_cl.inversion.networks.token_statistics import TokenMoments, pool_token_moments
from pmi_cl.inversion.objectives import FeatureMatch, StatisticsMatch
from pmi_cl.inversion.ways.buffer import SyntheticBuffer
from pmi_cl.models.clip.clip_model import Inputs
from pmi_cl.models.clip.pmi_clip import PmiClip, PmiClipOptions
from pmi_cl.models.continual_model import RunOutline
from pmi_cl.models.inverting import taken_up
from pmi_cl.models.training.schedules import learning_rate
from pmi_cl.options import option
from pmi_cl.seeding import mix, seeded

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset


@dataclass(frozen=True)
class ProjectedTaskOptions(PmiClipOptions):
    """The released code's values for CIFAR-100; ``models/config`` has ImageNet-R's."""

    synthetic_last_task: bool = option(
        False,
        "1: learn the last task's classes from their texts and the classes before, without an image",
        source="PMI appendix I.3",
        binds="checkpoint",
    )
    projection_samples: int = option(
        20,
        "synthetic samples of each class of that task",
        unit="samples",
        low=1,
        high=100_000,
        source="PMI released code; ImageNet-R: 10",
    )
    projection_top: int = option(
        5, "seen classes whose features are turned for a new one", low=1, high=100_000, source="PMI appendix I.3"
    )
    projection_mix: float = option(
        0.1, "part of the text's own direction in a feature", low=0, high=1, source="PMI appendix I.3: alpha"
    )
    projection_statistics: float = option(
        0.02, "weight of the statistics in that inversion", low=0, source="PMI released code"
    )
    projection_epochs: int = option(
        1, "epochs of that task", unit="epochs", low=1, high=100_000, source="PMI released code; ImageNet-R: 5"
    )
    projection_repeats: int = option(
        10, "times that each sample is seen in an epoch", low=1, high=100_000, source="PMI released code"
    )
    projection_lr: float = option(0.0005, "AdamW's highest rate in that task", above=0, source="PMI released code")
    projection_inv_lr: float = option(0.1, "inv_lr of that inversion", above=0, source="PMI released code")
    projection_hkd: float = option(
        0.1,
        "lambda_hkd of that task",
        low=0,
        source="ours, as lambda_hkd; released for MoE-Adapters: 0, ImageNet-R: 0.05",
    )


class ProjectedTask(PmiClip):
    """PMI on a CLIP whose last task may come without images.

    Attributes:
        bare_gaussians: of the bare CLIP's features, as ``gaussians`` are of the trained one's; kept only where the last task needs them.
        bare_moments: of the bare CLIP's layers, likewise.
        new: the synthetic samples of the last task.
    """

    options: ProjectedTaskOptions

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.bare_gaussians: ClassGaussians | None = None
        self.bare_moments: list[TokenMoments] = []
        self.new: SyntheticBuffer | None = None

    @classmethod
    def check(cls, args: SimpleNamespace, outline: RunOutline) -> None:
        """Refuse a task without images that has none before it. Raises UserError."""
        super().check(args, outline)
        if args.synthetic_last_task and outline.n_tasks == 1:
            raise UserError("--synthetic_last_task 1 needs tasks before the last: give --n_tasks 2 or more")

    @property
    def without_images(self) -> bool:
        """Whether the current task is learned without its images."""
        return bool(self.options.synthetic_last_task) and self.current_task == self.dataset.N_TASKS - 1

    # Before the last task.

    def prepare(self) -> None:
        """Make maps of the old classes, and of the new ones where they have no images."""
        super().prepare()
        if self.without_images and self.new is None:
            self.prepare_new_classes()

    def replays(self) -> bool:
        """Tell whether a loss looks at old classes: in a task without images, only where one has a weight."""
        return super().replays() and (not self.without_images or self.options.projection_hkd > 0 or self.TRAINS_TEXT)

    def prepare_new_classes(self) -> None:
        """Project features to the new classes and invert them on the bare CLIP."""
        o, seen = self.options, range(self.n_past_classes)
        new = range(self.n_past_classes, self.n_seen_classes)
        labels = balanced_labels(len(new) * o.projection_samples, len(new), seeded(self.args.seed, "new labels")).to(
            self.device
        )
        with self.host.phase("selection"):
            assert self.bare_gaussians is not None
            texts, seed = (self.texts.frozen(seen), self.texts.frozen(new)), mix(self.args.seed, "projected")
            targets = projected_features(
                self.bare_gaussians, *texts, labels, seed, top_k=o.projection_top, alpha=o.projection_mix
            )
        with bare(self.net.blocks):
            network = self.invertible(self.bare_moments, unit_features=True)
        name, labels = "new classes", labels + self.n_past_classes
        inversion = self.map_inversion(network, self.projection_config(), name, labels, targets)
        self.new = self.inverted(name, inversion, labels, new, rate="projection_inv_lr")

    def projection_config(self) -> InversionConfig:
        """Make the settings of the old classes, with more weight on the statistics and no smoothness."""
        o, config = self.options, self.inversion_config()
        share = o.pmi_alpha / o.inv_alpha if o.inv_alpha else 1.0
        terms = (FeatureMatch(), StatisticsMatch(o.projection_statistics))
        return replace(
            config, lr=o.projection_inv_lr, terms=terms, pmi=replace(config.pmi, alpha=share * o.projection_statistics)
        )

    # During it: what is trained on, and how.

    def steps_per_epoch(self) -> int:
        """Steps of an epoch of the current task."""
        if not self.without_images:
            return super().steps_per_epoch()
        n = self.cpt * self.options.projection_samples * self.options.projection_repeats
        return max(n // self.options.batch_size, 1)

    def train_batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Any, Tensor, Any]]:
        """Yield the data set's images, or, in a task without images, synthetic samples; and their labels (b,)."""
        if not self.without_images:
            yield from super().train_batches(epoch, start)
            return
        assert self.new is not None
        n = len(self.new) * self.options.projection_repeats
        rows = torch.randperm(n, generator=seeded(self.args.seed, "projected epoch", epoch)).to(self.device) % len(
            self.new
        )
        for chosen in rows.split(self.options.batch_size)[start : self.steps_per_epoch()]:
            samples = self.new.part(chosen)
            yield samples, samples.labels, samples

    def features_in_training(self, inputs: Inputs) -> Tensor:
        """Features (b, d) of images, or of synthetic samples."""
        return (
            self.features_of_samples(inputs)
            if isinstance(inputs, SyntheticBuffer)
            else super().features_in_training(inputs)
        )

    def n_epochs(self) -> int:
        """Epochs of the current task."""
        return int(self.options.projection_epochs) if self.without_images else super().n_epochs()

    def distillation_weights(self) -> tuple[float, float]:
        """The base weights in the current task; one without images has its own."""
        return (self.options.projection_hkd, 0.0) if self.without_images else super().distillation_weights()

    def rate(self, epoch: int, step: int) -> float:
        """The learning rate of a step; a task without images is short and has no warm-up."""
        if not self.without_images:
            return super().rate(epoch, step)
        steps = self.steps_per_epoch()
        return learning_rate(
            epoch * steps + step, self.n_epochs() * steps, self.options.projection_lr, self.options.lr_schedule
        )

    def new_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Make the method's, or AdamW for a task without images."""
        if not self.without_images:
            return super().new_optimizer(parameters)
        return torch.optim.AdamW(parameters, lr=self.options.projection_lr, weight_decay=self.options.optim_wd)

    # After each task: the same statistics once more, of the bare CLIP.

    def end_task(self, dataset: ContinualDataset) -> None:
        """Measure what the last task will need; after a task without images nothing is measured, and nothing comes after it."""
        if self.without_images:
            self.buffer = self.new = None
            return
        found = self._measured_bare(dataset) if self.options.synthetic_last_task else None
        super().end_task(dataset)
        if found is not None:
            new, moments = found
            self.bare_gaussians = new if self.bare_gaussians is None else self.bare_gaussians.followed_by(new)
            self.bare_moments = pool_token_moments([self.bare_moments, moments]) if self.bare_moments else moments

    def _measured_bare(self, dataset: ContinualDataset) -> tuple[ClassGaussians, list[TokenMoments]]:
        with self.host.phase("statistics"), in_evaluation_mode([self.net, self.learned]):
            moments, features, labels, _ = self.measured(dataset, of_bare=True)
        return fit_gaussians(features, labels, self.cpt), moments

    def state(self) -> dict[str, Any]:
        """Give the replay's, and what the last task needs."""
        own = {
            "bare_gaussians": self.bare_gaussians and self.bare_gaussians.state(),
            "bare_moments": [moments.state() for moments in self.bare_moments],
            "new": self.new and self.new.state(),
        }
        return {**super().state(), **own}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up :meth:`state`."""
        super().load_state(state)
        self.bare_gaussians = taken_up(ClassGaussians, state["bare_gaussians"], self.device)
        self.bare_moments = [TokenMoments.from_state(entry, self.device) for entry in state["bare_moments"]]
        self.new = taken_up(SyntheticBuffer, state["new"], self.device)
