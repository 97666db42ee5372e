"""Replay by PMI + CFS on a CLIP (Tong et al., NeurIPS 2025, Alg. 4).

Inverted maps stand for the classes of earlier tasks.

After each task the image features of its classes are kept as diagonal Gaussians, a contrastive
network per class learns to spread them, and the moments of every layer's input are pooled with
those of the tasks before. Before the next task a few features of every old class are selected (CFS)
and the frozen image tower is inverted from them, layer by layer (PMI) and then as a whole, down to
maps of the patch convolution (``map_inversion.py``). The maps are replayed beside the new images,
with the logits that the model of the task before gives them.

What deviates from the released code, and why (``docs/provenance.md``): statistics are per channel
(theirs: per token; ``--inv_axis``). CFS's correction of the moments ends at the stored mean. The
teacher's logits are computed once, with the old texts and no gradient. The maps are made before a
task rather than after the one before: it is the same network, and none are made after the last.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pmi_cl.errors import UserError
from pmi_cl.inversion.features.contrastive import ContrastiveBank
from pmi_cl.inversion.features.gaussians import ClassGaussians, fit_gaussians
from pmi_cl.inversion.features.selection import SelectionConfig, balanced_labels, sample_few
from pmi_cl.inversion.networks.pieces import in_evaluation_mode
from pmi_cl.inversion.networks.token_statistics import TokenMoments, pool_token_moments
from pmi_cl.inversion.ways.buffer import SyntheticBuffer
from pmi_cl.machine.state_fields import same_form
from pmi_cl.models.clip.clip_training_options import ClipTrainingOptions
from pmi_cl.models.clip.map_inversion import MapInversionOptions, MapInverter, Targets, measure_task
from pmi_cl.models.clip.projected_task import ProjectedTask, ProjectedTaskOptions
from pmi_cl.models.clip.replay import Replay
from pmi_cl.models.clip.task_plan import TaskPlan, TaskWithImages, TaskWithoutImages
from pmi_cl.models.inverting import SelectionOptions, contrastive_models, refuse_unfit, restored
from pmi_cl.models.storage import bytes_of
from pmi_cl.models.training.losses import Factors, hard_distillation, loss_factors
from pmi_cl.options import option
from pmi_cl.seeding import mix, seeded

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset
    from pmi_cl.models.clip.clip_model import ClipModel
    from pmi_cl.models.run_outline import RunOutline


@dataclass(frozen=True)
class MapReplayOptions(ProjectedTaskOptions, MapInversionOptions, SelectionOptions, ClipTrainingOptions):
    """The flags of every PMI method on a CLIP, with the appendix's values (App. I.2).

    A method names its baseline's options before these, so the baseline's values are used.
    """

    samples_per_class: int = option(
        5,
        "synthetic samples of each old class",
        unit="samples",
        low=1,
        high=100_000,
        source="PMI appendix I.2",
        memory="samples",
    )
    replay_batch: int = option(
        64,
        "synthetic samples of a step",
        unit="samples",
        low=1,
        high=1_000_000,
        source="PMI released code",
        memory="training",
    )
    lambda_ce: float = option(
        1.0,
        "weight of the local cross-entropy of later tasks, scaled task by task; the first task's is plain",
        low=0,
        source="PMI released code",
    )
    lambda_hkd: float = option(
        0.1, "weight of hard distillation on synthetic samples, scaled task by task", low=0, source="PMI appendix I.2"
    )

    task_factors: bool = option(
        True,
        "1: R-DFCIL's factors on those weights, by the numbers of classes; 0: none",
        source="PMI Eq. 23; 0: ours",
    )
    cfs_steps: int = option(5, "rounds of the selection", unit="rounds", low=1, high=100_000, source="PMI appendix I.2")
    cfs_boost: int = option(
        20, "select so many times the samples, keep some at random", low=1, high=100_000, source="PMI released code"
    )


class MapReplay(Replay):
    """The replay of inverted maps, for a method that trains modules of the image tower.

    Attributes:
        inverter: makes the maps.
        projected: the last task without images.
        gaussians: of the features of every seen class.
        bank: the contrastive model of every seen class; None without CFS.
        moments: of what enters each piece above the patch convolution, and of what its blocks show,
            pooled over the tasks.
        buffer: the synthetic samples of the old classes in the task at hand.
    """

    def __init__(self, method: ClipModel) -> None:
        super().__init__(method)
        self.options: Any = method.options
        self.inverter = MapInverter(method)
        self.projected = ProjectedTask(method, self.inverter)
        self.gaussians: ClassGaussians | None = None
        self.bank: ContrastiveBank | None = None
        self.moments: list[TokenMoments] = []
        self.buffer: SyntheticBuffer | None = None

    @classmethod
    def check(cls, args: SimpleNamespace, outline: RunOutline) -> None:
        """Refuse grids that do not become finer or are finer than the map, and SMI by token.

        SMI needs statistics that do not depend on which tokens there are.

        Raises:
            UserError: says which of these it is.
        """
        grids = ",".join(map(str, args.pmi_grids))
        if list(args.pmi_grids) != sorted(set(args.pmi_grids)):
            raise UserError(f"--pmi_grids {grids}: give them from the coarsest to the finest")
        side = getattr(outline.network, "grid", 0)
        if side and args.pmi_grids and args.pmi_grids[-1] > side:
            fitting = ",".join(str(grid) for grid in args.pmi_grids if grid <= side) or "none"
            raise UserError(
                f"--pmi_grids {grids}: the map of {args.backbone} is {side} x {side}: say --pmi_grids {fitting}"
            )
        if args.inversion == "smi" and args.inv_axis == "token":
            raise UserError(
                "--inversion smi drops tokens, and --inv_axis token keeps statistics of each: say --inv_axis channel"
            )
        ProjectedTask.check(args, outline)

    @classmethod
    def samples_mib(cls, args: SimpleNamespace, outline: RunOutline) -> float:
        """Return the most that synthetic samples, finished and under way, take, in MiB.

        They are the last task's maps, the classes' contrastive models, and for the batch under way
        its iterate, the best one, Adam's two moments, start and target. A network without an
        outline is not counted.
        """
        network = outline.network
        if network is None:
            return 0.0
        n = args.samples_per_class * outline.n_classes
        values = network.width * network.grid**2 * (n + 6 * min(n, args.inv_batch))
        models = 2 * network.feature_dim**2 * outline.n_classes * args.cfs
        return 4 * (values + models) / 2**20

    def plan(self) -> TaskPlan:
        """Return how the current task is learned: with its images, or projected without them."""
        if self.projected.is_current():
            return TaskWithoutImages(self.method, self.inverter, self.projected.samples)
        return TaskWithImages(self.method)

    # Before a task: select features of the old classes, invert them.

    def prepare(self) -> None:
        """Make maps of the old classes, and of the new ones where they have no images.

        A resumed run goes on where it was stopped.
        """
        with in_evaluation_mode([self.method.net, self.method.learned]):
            if self.method.current_task > 0 and self.buffer is None and self.plan().replays():
                self.prepare_old_classes()
            if self.projected.is_current():
                self.projected.prepare()

    def prepare_old_classes(self) -> None:
        """Select features of the old classes and invert them by the model of the task before."""
        with self.method.host.phase("selection"):
            targets = self.sample_targets(self.sample_labels())
        network, config = self.inverter.network(self.moments), self.inverter.config()
        name, old = f"task {self.method.current_task + 1}", range(self.method.n_past_classes)
        self.buffer = self.inverter.invert(name, network, config, targets, old)

    def sample_labels(self) -> Tensor:
        """Return every old class ``samples_per_class`` times (n,).

        They are shuffled, so that batches mix classes.
        """
        method = self.method
        generator = seeded(method.args.seed, "labels", method.current_task)
        return balanced_labels(self.samples(), method.n_past_classes, generator).to(method.device)

    def samples(self) -> int:
        """Return how many synthetic samples of old classes are made for the current task."""
        return int(self.method.n_past_classes * self.options.samples_per_class)

    def sample_targets(self, labels: Tensor) -> Targets:
        """Select a feature for each label (n,) by CFS."""
        o, seed = self.options, mix(self.method.args.seed, "replay", self.method.current_task)
        assert self.gaussians is not None
        config = SelectionConfig(o.cfs_ratio, o.cfs_steps, smallest=1)
        return Targets(labels, sample_few(self.gaussians, labels, seed, self.bank, config, o.cfs_boost))

    # During a task.

    def factors(self) -> Factors:
        """Return the weights of the losses in the current task.

        They follow R-DFCIL's scheme, or are used as they are.
        """
        o, method, (hkd, tkd) = self.options, self.method, self.plan().distillation()
        if not o.task_factors and method.n_past_classes:
            return Factors(o.lambda_ce, hkd, tkd=tkd)
        return loss_factors(method.cpt, method.n_past_classes, o.lambda_ce, hkd, tkd=tkd)

    def ce_factor(self) -> float:
        """Return the weight of the local cross-entropy. More old classes make it smaller."""
        return self.factors().ce

    def losses(self, features: Tensor, labels: Tensor, epoch: int, step: int) -> dict[str, Tensor]:
        """Return hard distillation on maps of the old classes, and :meth:`text_losses`."""
        if self.buffer is None:
            return {}
        method = self.method
        generator = seeded(method.args.seed, "draw", method.current_task, epoch, step)
        old = self.buffer.part(self.buffer.rows(self.options.replay_batch, generator))
        old_features = self.inverter.features_of(old)
        student = method.class_logits(old_features, range(method.n_past_classes))
        hkd = self.factors().hkd * hard_distillation(student, old.logits)
        return {"hkd": hkd, **self.text_losses(torch.cat([features, old_features]), torch.cat([labels, old.labels]))}

    def text_losses(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return what a method with a trained text tower adds.

        Args:
            features: (n, d), of the step's images, then of the replayed samples.
            labels: (n,), theirs.
        """
        return {}

    # After a task: Gaussians and contrastive models of the new classes, statistics of all layers.

    def end_task(self, dataset: ContinualDataset) -> None:
        """Measure the task's real images by the model as it is now.

        What is known of older classes stays as it is (Alg. 4). After a task without images nothing
        is measured, and nothing comes after it.
        """
        if self.projected.is_current():
            self.buffer = self.projected.samples = None
            return
        method, bare = self.method, self.projected.measure(dataset)
        with method.host.phase("statistics"), in_evaluation_mode([method.net, method.learned]):
            found = measure_task(method, dataset, self.options.inv_axis)
            new = fit_gaussians(found.features, found.labels, method.cpt)
            bank = contrastive_models(method, found.features, found.labels, method.cpt)
        if found.contexts is not None:
            self.keep_contexts(found.contexts, found.labels)
        self.moments = pool_token_moments([self.moments, found.moments]) if self.moments else found.moments
        self.gaussians = new if self.gaussians is None else self.gaussians.followed_by(new)
        self.bank = bank if self.bank is None or bank is None else self.bank.followed_by(bank, method.n_past_classes)
        self.buffer = None
        self.projected.keep(bare)

    def keep_contexts(self, contexts: Tensor, labels: Tensor) -> None:
        """Keep what a method learns from the contexts of the task's real images.

        Args:
            contexts: (n, dq).
            labels: (n,), among the task's classes: from 0.
        """

    # What a record and a checkpoint hold.

    def figures(self) -> dict[str, float]:
        """Return what the inversions have cost over the run so far."""
        return self.inverter.runner.figures()

    def stored(self) -> dict[str, int]:
        """Return the bytes of statistics and contrastive models, and within a task of the maps."""
        statistics = (self.gaussians, self.moments, self.projected.bare_gaussians, self.projected.bare_moments)
        return {
            "statistics": bytes_of(*statistics),
            "networks": bytes_of(self.bank),
            "synthetic images": bytes_of(self.buffer, self.projected.samples),
        }

    def state(self) -> dict[str, Any]:
        """Return statistics, synthetic samples, the inversion under way and the cost."""
        return {
            "gaussians": self.gaussians and self.gaussians.state(),
            "bank": self.bank and self.bank.state(),
            "moments": [moments.state() for moments in self.moments],
            "buffer": self.buffer and self.buffer.state(),
            **self.inverter.runner.state(),
            **self.projected.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        device = self.method.device
        self.gaussians = restored(ClassGaussians, state["gaussians"], device)
        self.bank = restored(ContrastiveBank, state["bank"], device)
        self.moments = [TokenMoments.from_state(entry, device) for entry in state["moments"]]
        self.buffer = restored(SyntheticBuffer, state["buffer"], device)
        refuse_unfit(self.method, self.gaussians, self.bank, self.buffer, self.inverter.map_shape)
        if self.moments:
            same_form(state["moments"], self.inverter.form_of_moments())
        self.inverter.runner.load_state(state)
        self.projected.load_state(state)
