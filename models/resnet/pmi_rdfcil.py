"""Train PMI + CFS on a ResNet (Tong et al., NeurIPS 2025, Alg. 3).

Per-layer model inversion replays the old classes. After each task the features of every class are
kept as a diagonal Gaussian, and a small contrastive network per class learns to spread them. Before
the next task, features are sampled, and a diverse part of them is selected (CFS). The frozen
network is inverted from them to images: layer by layer (PMI), then through the whole model. The
images are replayed beside the new ones under R-DFCIL's losses.

What deviates from the released code, and why (``docs/provenance.md``): Eq. 23 is a sum (the code
multiplies two terms). CFS's correction of the moments ends at the stored mean (the code's does
not). The prior of a block's input is its measured moments, not those of the residual branch
(``pmi_prior``). The preset ``best`` is ours: low-frequency start, transforms and a smoothness prior
inside the loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from pmi_cl.errors import UserError
from pmi_cl.inversion.config import InversionConfig, Schedule, inversion_dtype
from pmi_cl.inversion.engine.engine import Inversion
from pmi_cl.inversion.engine.problem import Problem, frozen_network
from pmi_cl.inversion.features.contrastive import ContrastiveBank
from pmi_cl.inversion.features.gaussians import ClassGaussians, fit_gaussians
from pmi_cl.inversion.features.selection import SelectionConfig, draw_labels, sample_targets
from pmi_cl.inversion.features.statistics import Moments, pool_moments
from pmi_cl.inversion.networks.pieces import in_evaluation_mode, measure_input_moments
from pmi_cl.inversion.objectives import BatchTV, CrossEntropy, FeatureMatch, StatisticsMatch, Term, TotalVariation
from pmi_cl.inversion.parts.colour import Colour, channel_covariance
from pmi_cl.inversion.transforms import Transforms
from pmi_cl.inversion.ways.buffer import SyntheticBuffer
from pmi_cl.inversion.ways.pmi import PmiConfig
from pmi_cl.machine.state_fields import same_form, tensor_field, whole_field
from pmi_cl.models.inversion_parts import check_named, start_named, terms_named
from pmi_cl.models.inverting import InversionRunner, contrastive_models, refuse_unfit, restored
from pmi_cl.models.resnet.pmi_rdfcil_options import PmiRdfcilOptions
from pmi_cl.models.resnet.replay_training import ReplayTraining
from pmi_cl.models.run_outline import RunOutline
from pmi_cl.models.statistics_classifier import StatisticsClassifier
from pmi_cl.models.storage import bytes_of
from pmi_cl.seeding import mix, seeded

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset


class PmiRdfcil(StatisticsClassifier, ReplayTraining):
    """PMI + CFS: per-layer model inversion from sampled features; R-DFCIL's losses.

    Attributes:
        gaussians: the Gaussians of the features of every seen class.
        bank: the contrastive model of every seen class. None without CFS.
        moments: the moments of every piece's input, pooled over the tasks.
        covariance: the covariance of the channels of the real images, pooled in the same way.
        buffer: the synthetic images of the current task.
        inversions: carries them out and records their cost.
    """

    NAME = "pmi_rdfcil"
    NEEDS_STATISTICS = True
    STATISTICS_WEIGHT = "inv_alpha"
    Options = PmiRdfcilOptions
    options: PmiRdfcilOptions

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.gaussians: ClassGaussians | None = None
        self.bank: ContrastiveBank | None = None
        self.buffer: SyntheticBuffer | None = None
        self.inversions = InversionRunner(self)
        self.moments: list[Moments] = []
        self.covariance, self._pixels = torch.zeros(3, 3), 0

    @classmethod
    def check(cls, args: SimpleNamespace, outline: RunOutline) -> None:
        """Refuse values that do not fit, before anything is built.

        Raises:
            UserError: too few samples for the statistics of a class, a roll as large as the image,
                or an unknown start or term.
        """
        super().check(args, outline)
        check_named(args.inv_start, args.inv_terms, outline.image_size or 32)
        if outline.image_size is not None and args.inv_roll >= outline.image_size:
            raise UserError(
                f"--inv_roll {args.inv_roll}: the images have {outline.image_size} pixels a side, give fewer"
            )
        least = 2 * outline.n_classes
        if args.buffer_images < least:
            raise UserError(
                f"--buffer_images {args.buffer_images}: give at least {least}, "
                f"two for each of {outline.n_classes} classes"
            )

    def check_data(self, dataset: ContinualDataset) -> None:
        """Refuse a network and images without the statistics that are needed.

        Raises:
            UserError: the network has no statistics to be matched, or a class has fewer than two
                images.
        """
        super().check_data(dataset)
        labels, counts = dataset.train.labels.unique(return_counts=True)
        few = labels[counts < 2].tolist()
        if few:
            raise UserError(
                f"class '{dataset.class_names[few[0]]}' has fewer than two training images, "
                "too few for its statistics: add some, or raise --train_per_class"
            )

    @classmethod
    def samples_mib(cls, args: SimpleNamespace, outline: RunOutline) -> float:
        """Return the most memory that synthetic samples take, finished and in progress, in MiB.

        The finished samples are the images of the last task. The batch in progress needs its start,
        its iterate, its best iterate, Adam's two moments and its result: images, or in PMI the
        input of a layer. Without an outline of the network only the images are counted.
        """
        side = outline.image_size or 0
        n = args.buffer_images + (outline.n_tasks - 1) * args.buffer_per_task
        image, network = 3 * side**2, outline.network
        by_layers = network is not None and args.inv_start == "pmi"
        of_batch = network.largest_input(side) if network is not None and by_layers else image
        batch = max(args.inv_batch, args.pmi_batch or 0) if by_layers else args.inv_batch
        return 4 * (image * n + 6 * min(n, batch) * of_batch) / 2**20

    # Before a task: sample features, invert them.

    def prepare_replay(self) -> None:
        """Sample features of the old classes, invert the teacher from them, and keep the images.

        A resumed run goes on where it was stopped.
        """
        with self.host.phase("selection"):
            labels = self.sample_labels()
            targets = self.sample_targets(labels)
        name, inversion = f"task {self.current_task + 1}", self.new_inversion(labels, targets)
        with self.host.phase("inversion"):
            images = self.inversions.run(name, inversion)
            self.buffer = SyntheticBuffer(images, labels, self.teacher_logits(images))
        self.inversions.end(name, images.__getitem__, labels)

    def sample_labels(self) -> Tensor:
        """Draw the old classes (n,) of the task's images, balanced or at random."""
        generator = seeded(self._replay_seed(), "labels")
        n, balanced = self.images_for(self.current_task), self.options.balanced
        return draw_labels(n, self.n_past_classes, balanced, generator).to(self.device)

    def replay_samples(self) -> int:
        """Return the number of synthetic images of the current task."""
        return 0 if self.control.replaces else self.images_for(self.current_task)

    def images_for(self, task: int) -> int:
        """Return the number of synthetic images of a task, or of those that stand in for them."""
        stand_ins = self.options.replay_images if self.control.replaces else None
        return stand_ins or self.options.buffer_images + task * self.options.buffer_per_task

    def sample_targets(self, labels: Tensor) -> Tensor:
        """Select a feature (n, d) for each label (n,) by CFS."""
        assert self.gaussians is not None
        config = SelectionConfig(self.options.cfs_ratio, self.options.cfs_steps)
        return sample_targets(self.gaussians, labels, self._replay_seed(), self.bank, config)

    def _replay_seed(self) -> int:
        return mix(self.args.seed, "replay", self.current_task)

    def inversion_config(self) -> InversionConfig:
        """Make the engine's settings from the options."""
        o = self.options
        terms: list[Term] = [FeatureMatch(o.inv_feature), StatisticsMatch(o.inv_alpha)]
        terms += [CrossEntropy(o.inv_ce)] if o.inv_ce else []
        terms += [TotalVariation(o.inv_tv)] if o.inv_tv else []
        terms += [BatchTV(o.inv_batch_tv)] if o.inv_batch_tv else []
        return InversionConfig(
            start=start_named(o.inv_start),
            steps=o.inv_steps,
            lr=o.inv_lr,
            schedule=cast(Schedule, o.inv_schedule),
            beta2=o.inv_beta2,
            terms=(*terms, *terms_named(o.inv_terms)),
            transforms=Transforms(o.inv_roll, o.inv_flip and self.dataset.FLIP, o.inv_noise),
            spectrum=o.inv_spectrum,
            batch=o.inv_batch,
            keep_best=o.inv_keep_best,
            boost=o.inv_boost,
            pmi=PmiConfig(
                steps=o.pmi_steps,
                lr=o.pmi_lr,
                alpha=o.pmi_alpha,
                prior=cast(Any, o.pmi_prior),
                boost=o.pmi_boost,
                batch=o.pmi_batch,
            ),
            stem_steps=o.stem_steps,
            direction="l2" if o.inv_statistics == "l2" else "synthetic_to_real",
            precision=inversion_dtype(self.args.precision, self.device),
            compiled=self.args.compile,
        )

    def new_inversion(self, labels: Tensor, targets: Tensor) -> Inversion:
        """Return the inversion, PMI and full-model, of the teacher, down to images (n, 3, h, w).

        Args:
            labels: (n,), old classes.
            targets: (n, d), a feature of each.
        """
        config = self.inversion_config()
        problem = Problem(
            frozen_network(self.teacher.pieces(), self.teacher.head, config, self.moments),
            config,
            image_shape=(3, *self.dataset.SIZE),
            targets=targets,
            labels=labels,
            colour=Colour.of(self.covariance) if self.options.inv_colour else None,
            seed=mix(self.args.seed, "inversion", self.current_task),
        )
        return Inversion(problem)

    # During a task.

    def draw_replay(self, n: int, epoch: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw stored synthetic images, every old class equally often."""
        assert self.buffer is not None
        return self.buffer.draw(n, seeded(self.args.seed, "draw", self.current_task, epoch, step))

    # After a task: statistics, Gaussians, contrastive models, teacher.

    def end_task(self, dataset: ContinualDataset) -> None:
        """Measure the statistics of all seen classes, then copy the teacher.

        New classes are measured by real images, old ones by the synthetic images, through the new
        network.
        """
        with self.host.phase("statistics"), in_evaluation_mode([self.net]):
            moments = self._input_moments(dataset)
            features, labels = self._features(dataset)
            gaussians = fit_gaussians(features, labels, self.n_seen_classes)
            bank = contrastive_models(self, features, labels, self.n_seen_classes)
        self.moments, self.gaussians, self.bank, self.buffer = moments, gaussians, bank, None
        if self.options.inv_colour:
            self._pool_covariance(dataset)
        super().end_task(dataset)

    def _input_moments(self, dataset: ContinualDataset) -> list[Moments]:
        """Return the moments of every piece's input over the new images.

        They are pooled with those of the tasks before.
        """
        batches = (images for images, _ in dataset.plain_batches(self.current_task))
        new: list[Moments] = measure_input_moments(self.net.pieces(), batches)
        return [pool_moments(pair) for pair in zip(self.moments, new, strict=True)] if self.moments else new

    def _pool_covariance(self, dataset: ContinualDataset) -> None:
        """Average the channel covariance of the new images with that of the tasks before.

        The weights are the numbers of pixels.
        """
        new, pixels = channel_covariance(images for images, _ in dataset.plain_batches(self.current_task))
        total = self._pixels + pixels
        self.covariance, self._pixels = (self.covariance * self._pixels + new * pixels) / total, total

    def _features(self, dataset: ContinualDataset) -> tuple[Tensor, Tensor]:
        """Return features (n, d) through the new network, and labels (n,).

        The real images of the task come first, then the synthetic ones of the old classes, which
        are never augmented.
        """
        features, labels = [], []
        old = self.control.replayed(self.buffer)
        synthetic = [] if old is None else zip(*(part.split(256) for part in old), strict=True)
        with torch.no_grad():
            for source in (self._measured_images(dataset), synthetic):
                for images, names in source:
                    features.append(self.net(images, returnt="features"))
                    labels.append(names)
                    self.host.safe_point()
        return torch.cat(features), torch.cat(labels)

    def _measured_images(self, dataset: ContinualDataset) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images, labels) of the task, augmented if ``feature_augment`` says so."""
        for number, (images, labels) in enumerate(dataset.plain_batches(self.current_task)):
            if self.options.feature_augment:
                images = self.transform(images, seeded(self.args.seed, "features", self.current_task, number))
            yield images, labels

    def inversion_figures(self) -> dict[str, float]:
        """Return what the inversions have cost over the run so far."""
        return self.inversions.figures()

    def stored(self) -> dict[str, int]:
        """Return the bytes of teacher, contrastive models, statistics and synthetic images.

        There are images within a task alone.
        """
        own, statistics = super().stored(), (self.gaussians, self.moments, self.covariance)
        networks = own["networks"] + bytes_of(self.bank)
        images = own["synthetic images"] + bytes_of(self.buffer)
        return {**own, "networks": networks, "statistics": bytes_of(*statistics), "synthetic images": images}

    def state(self) -> dict[str, Any]:
        """Return the state of the training, the statistics, the images and the inversion."""
        own = {
            "gaussians": self.gaussians and self.gaussians.state(),
            "bank": self.bank and self.bank.state(),
            "buffer": self.buffer and self.buffer.state(),
            "covariance": self.covariance,
            "pixels": self._pixels,
            "moments": [moments.state() for moments in self.moments],
        }
        return {**super().state(), **own, **self.inversions.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        super().load_state(state)
        self.gaussians = restored(ClassGaussians, state["gaussians"], self.device)
        self.bank = restored(ContrastiveBank, state["bank"], self.device)
        self.buffer = restored(SyntheticBuffer, state["buffer"], self.device)
        self.covariance, self._pixels = tensor_field(state["covariance"], 3, 3).cpu(), whole_field(state["pixels"])
        self.moments = [Moments.from_state(entry, self.device) for entry in state["moments"]]
        if self.moments:
            image = torch.zeros(1, 3, *self.dataset.SIZE, device=self.device)
            measured = measure_input_moments(self.net.pieces(), [image])
            same_form(state["moments"], [moments.state() for moments in measured])
        refuse_unfit(self, self.gaussians, self.bank, self.buffer, (3, *self.dataset.SIZE))
        self.inversions.load_state(state)
