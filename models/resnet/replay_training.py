"""Train with replay as R-DFCIL and PMI do: local cross-entropy and two distillation losses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.errors import UserError
from pmi_cl.machine.state_fields import tensor_field, whole_field
from pmi_cl.models.resnet.controlled_replay import ControlledReplay
from pmi_cl.models.resnet.replay_options import ReplayOptions
from pmi_cl.models.resnet.stages import Stage, one_schedule, stage_at, unfreezing_schedule
from pmi_cl.models.run_outline import RunOutline
from pmi_cl.models.training.losses import (
    Factors,
    balancing_weights,
    hard_distillation,
    local_cross_entropy,
    loss_factors,
    relational_distillation,
)
from pmi_cl.seeding import global_seed, seeded

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset


class ReplayTraining(ControlledReplay):
    """Train on real images of the new classes and synthetic images of the old classes.

    A subclass makes the synthetic images: in :meth:`prepare_replay` before a task, and in
    :meth:`draw_replay` for each step.

    Attributes:
        projections: the trainable maps of RKD, for the student's and for the teacher's features.
            They are new in each task.
        stages: the stages of the current task.
        stage: the current stage. None before the first epoch.
        counts: the samples of each class that this task has trained on, (classes seen,), from
            ``first_count``.
        class_weights: the class weights (classes seen,), updated from ``counts`` after each epoch.
    """

    Options: type = ReplayOptions
    options: ReplayOptions

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.projections = nn.ModuleList()
        self.stages: list[Stage] = []
        self.stage: Stage | None = None
        self.counts = torch.zeros(0, device=self.device)
        self.class_weights = torch.zeros(0, device=self.device)

    @classmethod
    def check(cls, args: SimpleNamespace, outline: RunOutline) -> None:
        """Raise UserError if the stages of ``unfreezing`` do not fit into a task."""
        super().check(args, outline)
        if len(args.warmup_parts) != 2 or len(args.warmup_lrs) != 2:
            raise UserError(
                "--warmup_parts and --warmup_lrs take two values each: for the head, and for the last block with it"
            )
        if args.unfreezing and sum(args.warmup_parts) + args.classifier_part >= 1:
            fault = "--warmup_parts and --classifier_part leave no epochs to train everything"
            raise UserError(f"{fault}: together they must stay below 1")

    def plan(self) -> list[Stage]:
        """Return the stages of the current task."""
        o = self.options
        if self.current_task == 0:
            epochs = max(round(o.n_epochs * o.first_task_part), 1)
            return one_schedule(epochs, o.lr, [part * o.n_epochs / epochs for part in o.lr_milestones], o.lr_gamma)
        if o.unfreezing:
            return unfreezing_schedule(
                o.n_epochs,
                o.warmup_parts,
                o.warmup_lrs,
                o.unfrozen_lr,
                o.classifier_part,
                o.classifier_lr or o.unfrozen_lr,
            )
        lr, fresh = o.later_lr or o.lr, not o.train_old_heads
        return one_schedule(o.n_epochs, lr, o.lr_milestones, o.lr_gamma, o.classifier_part, o.classifier_lr, fresh)

    def n_epochs(self) -> int:
        """Return the epochs of the current task, over all its stages."""
        return sum(stage.epochs for stage in self.plan())

    def factors(self) -> Factors:
        """Return the weights of the losses in the current task."""
        o = self.options
        return loss_factors(self.cpt, self.n_past_classes, o.lambda_ce, o.lambda_hkd, o.lambda_rkd, o.lambda_ft)

    def begin_task(self, dataset: ContinualDataset) -> None:
        """Make synthetic samples, then new projections, class counts and stages."""
        # Forget the stages of the task before: a checkpoint must not mix them with this task.
        self.stages, self.stage, self.opt = [], None, None
        if self.current_task > 0:
            self.control.prepare()
        self.projections = self._new_projections()
        self.counts = torch.full((self.n_seen_classes,), float(self.options.first_count), device=self.device)
        self.class_weights = torch.ones(self.n_seen_classes, device=self.device)
        self.stages = self.plan()

    def _new_projections(self) -> nn.ModuleList:
        width, dim = self.options.rkd_dim, int(self.net.feature_dim)
        with global_seed(self.args.seed, "rkd", self.current_task):
            return nn.ModuleList([nn.Linear(dim, width), nn.Linear(dim, width)]).to(self.device)

    def begin_epoch(self, epoch: int, dataset: ContinualDataset) -> None:
        """Enter the stage of the epoch, and set its learning rate."""
        stage = stage_at(self.stages, epoch)
        if stage is not self.stage:
            self._enter(stage)
        self.set_rate(stage.rate(epoch))

    def _enter(self, stage: Stage) -> None:
        trained = self._thaw(stage)
        if stage.fresh:
            self.opt = self.new_optimizer(trained)
        self.stage = stage

    def _thaw(self, stage: Stage) -> list[nn.Parameter]:
        """Let the parameters of the stage train, and freeze the rest.

        Frozen parameters have no gradient at all, so that weight decay does not move them either.
        Frozen modules are in evaluation mode, so that their BatchNorm statistics stay.

        Returns:
            The parameters for the optimiser, with the projections if they train.
        """
        trained = [parameter for module in self._trained_modules(stage) for parameter in module.parameters()]
        self.net.requires_grad_(False)
        self.net.zero_grad(set_to_none=True)
        for parameter in trained:
            parameter.requires_grad_(True)
        self.set_modes(stage)
        with_projections = self.current_task > 0 and stage.trains != "classifier"
        return [*trained, *self.projections.parameters()] if with_projections else trained

    def _trained_modules(self, stage: Stage) -> list[nn.Module]:
        """Return the modules of the network that the stage trains."""
        net: Any = self.net
        heads = list(net.head.tasks)
        newest_only = stage.trains in ("head", "last block and head") or (
            not self.options.train_old_heads and stage.trains == "all"
        )
        modules: list[nn.Module] = heads[-1:] if newest_only and self.current_task > 0 else heads
        if stage.trains == "all":
            return [*(net.pieces()[1:] if self._stem_stays() else net.pieces()), *modules]
        if stage.trains == "last block and head":
            return [net.pieces()[-1], *modules]
        return modules

    def _stem_stays(self) -> bool:
        """Return whether the stem, the lowest piece, no longer trains."""
        return self.current_task > 0 and not self.options.train_stem

    def set_modes(self, stage: Stage | None = None) -> None:
        """Put the trained part of the backbone in training mode, the rest in evaluation mode."""
        stage = stage or self.stage
        trains = "all" if stage is None else stage.trains
        self.net.train(trains == "all")
        if self._stem_stays():
            self.net.pieces()[0].eval()
        if trains == "last block and head":
            self.net.pieces()[-1].train()

    def observe(
        self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor, epoch: int = 0, step: int = 0
    ) -> dict[str, Tensor]:
        """Take one step.

        The loss is cross-entropy in the first task. In later tasks it is the sum of the replay
        losses, or of the classifier's losses in the classifier's stage.
        """
        assert self.stage is not None, "begin_epoch() enters a stage"
        if self.current_task == 0:
            losses = {"ce": self.loss(self.net(inputs), labels)}
        else:
            images, old_labels, teacher_logits = self._replay(len(inputs), epoch, step)
            seen = torch.cat([labels, old_labels])
            # bincount would make a GPU wait.
            self.counts.index_add_(0, seen, torch.ones_like(seen, dtype=self.counts.dtype))
            if self.stage.trains == "classifier":
                losses = self.classifier_losses(torch.cat([inputs, images]), seen, teacher_logits)
            else:
                losses = self.replay_losses(inputs, labels, images, old_labels, teacher_logits)
        return self.descend(losses)

    def _replay(self, n: int, epoch: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw synthetic samples for a step. If they are augmented, the teacher sees them so."""
        images, labels, logits = self.control.draw(n, epoch, step)
        if self.options.replay_augment:
            images = self.transform(images, seeded(self.args.seed, "replay", self.current_task, epoch, step))
            with torch.no_grad():
                logits = self.teacher(images)
        return images.contiguous(memory_format=torch.channels_last), labels, logits

    def replay_losses(
        self, inputs: Tensor, labels: Tensor, images: Tensor, old_labels: Tensor, teacher_logits: Tensor
    ) -> dict[str, Tensor]:
        """Return the terms of Eq. 23.

        These are local CE (real images), HKD (synthetic), RKD (real, where the stage has it), and
        CE over all classes on detached features (both). Real and synthetic images pass the network
        separately, synthetic ones last, so that each has its own batch statistics (R-DFCIL).
        """
        assert self.stage is not None
        factors, head = self.factors(), self.net.head
        logits, features, old_logits, old_features = self._both(inputs, images)
        seen = torch.cat([labels, old_labels])
        losses = {
            "ce": factors.ce * local_cross_entropy(logits, labels, self.n_past_classes),
            "hkd": factors.hkd * self.stage.hkd_scale * hard_distillation(old_logits, teacher_logits),
        }
        if self.stage.rkd:
            losses["rkd"] = factors.rkd * self._relations(inputs, features)
        if factors.ft:
            both = head(torch.cat([features, old_features]).detach())
            losses["ft"] = factors.ft * F.cross_entropy(both, seen)
        if self.options.lambda_all:
            balanced = F.cross_entropy(torch.cat([logits, old_logits]), seen, weight=balancing_weights(self.counts))
            losses["all"] = self.options.lambda_all * balanced
        return losses

    def _relations(self, inputs: Tensor, features: Tensor) -> Tensor:
        """Return RKD between the student's features (b, d) of real images and the teacher's."""
        with torch.no_grad():
            teacher_features = self.teacher(inputs, returnt="features")
        project, project_teacher = self.projections
        return relational_distillation(project(features), project_teacher(teacher_features))

    def _both(self, inputs: Tensor, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return logits and features of real images, then of synthetic images."""
        if not self.options.joint_batches:
            return (*self.net(inputs, returnt="both"), *self.net(images, returnt="both"))
        together = torch.cat([inputs, images]).contiguous(memory_format=torch.channels_last)
        logits, features = self.net(together, returnt="both")
        n = len(inputs)
        return logits[:n], features[:n], logits[n:], features[n:]

    def classifier_losses(self, images: Tensor, labels: Tensor, teacher_logits: Tensor) -> dict[str, Tensor]:
        """Return class-balanced CE over all classes, and HKD on the synthetic samples.

        CE is on real and synthetic samples, and its weight is not scaled.
        """
        with torch.no_grad():
            features = self.net(images, returnt="features")
        logits = self.net.head(features)
        return {
            "ce": self.options.lambda_ce * F.cross_entropy(logits, labels, weight=self.class_weights),
            "hkd": self.factors().hkd * hard_distillation(logits[-len(teacher_logits) :], teacher_logits),
        }

    def end_epoch(self, epoch: int, dataset: ContinualDataset) -> None:
        """Update the class weights from all samples that this task has trained on."""
        if self.current_task > 0:
            self.class_weights = balancing_weights(self.counts)

    def state(self) -> dict[str, Any]:
        """Return the state of the base class, projections, class counts and stage."""
        own = {
            "projections": self.projections.state_dict() if len(self.projections) else None,
            "counts": self.counts,
            "class_weights": self.class_weights,
            "stage": None if self.stage is None else self.stages.index(self.stage),
        }
        return {**super().state(), **own}

    def load_weights(self, state: dict[str, Any]) -> None:
        """Load the state of :meth:`state`, but for the optimiser, which needs the stage first."""
        super().load_weights(state)
        if state["projections"] is not None:
            self.projections = self._new_projections()
            self.projections.load_state_dict(state["projections"])
        counts = tensor_field(state["counts"], None)
        if len(counts) not in (0, self.n_past_classes, self.n_seen_classes):
            raise ValueError("the counts are not those of these classes")
        weights = tensor_field(state["class_weights"], len(counts))
        self.counts, self.class_weights = counts.to(self.device), weights.to(self.device)
        self.stages, stage = self.plan(), state["stage"]
        self.stage = None if stage is None else self.stages[whole_field(stage)]

    def restore_optimizer(self) -> None:
        """Build the optimiser of the last stage that began one, then thaw the current stage."""
        if self.stage is None:
            return
        owner = next(stage for stage in reversed(self.stages[: self.stages.index(self.stage) + 1]) if stage.fresh)
        self.opt = self.new_optimizer(self._thaw(owner))
        self._thaw(self.stage)
