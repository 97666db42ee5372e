"""The training loop that R-DFCIL and PMI share: local cross-entropy on real samples, distillation on synthetic ones, relations."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.errors import UserError
from pmi_cl.models.continual_model import ContinualModel, RunOutline, TrainingOptions
from pmi_cl.models.resnet.stages import Stage, one_schedule, stage_at, unfreezing_schedule
from pmi_cl.models.training.losses import (
    Factors,
    balancing_weights,
    hard_distillation,
    local_cross_entropy,
    loss_factors,
    relational_distillation,
)
from pmi_cl.options import option
from pmi_cl.seeding import global_seed, seeded

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset


@dataclass(frozen=True)
class ReplayOptions(TrainingOptions):
    """What the shared loop may be told. Weights are scaled task by task (:func:`pmi_cl.models.training.losses.loss_factors`)."""

    lambda_ce: float = option(
        0.75,
        "weight of the local cross-entropy of later tasks, and of that of the classifier's own stage; the first task's is plain",
        low=0,
        source="PMI released code (R-DFCIL: 0.5)",
    )
    lambda_hkd: float = option(0.15, "weight of hard distillation", low=0, source="PMI appendix I.1")
    lambda_rkd: float = option(0.5, "weight of relational distillation", low=0, source="PMI appendix I.1")
    lambda_ft: float = option(
        1.0, "weight of the classifier's cross-entropy while everything trains", low=0, source="PMI appendix I.1"
    )
    lambda_all: float = option(
        0.0,
        "weight of a class-balanced cross-entropy over all classes, on real and synthetic images, that moves the backbone too",
        low=0,
        source="[paper: none]; ours",
    )
    rkd_dim: int = option(128, "width of the two trainable projections of RKD", low=1, high=65536, source="R-DFCIL")
    first_task_part: float = option(
        1.0, "part of n_epochs that the first task takes", above=0, high=1, source="PMI appendix I.1"
    )
    classifier_part: float = option(
        0.2,
        "part of n_epochs, at the end of later tasks, in which the classifier alone trains",
        low=0,
        high=0.9,
        source="R-DFCIL; Alg. 3",
    )
    classifier_lr: float | None = option(
        None, "its learning rate; none: the schedule goes on", above=0, source="PMI appendix I.1"
    )
    unfreezing: bool = option(
        False, "1: later tasks train the head, then the last block, then everything", source="PMI released code"
    )
    warmup_parts: tuple[float, ...] = option(
        (0.1, 0.1),
        "with unfreezing: parts of n_epochs for the head and for the last block",
        low=0,
        high=0.4,
        source="PMI released code",
    )
    warmup_lrs: tuple[float, ...] = option(
        (0.1, 0.05), "with unfreezing: their learning rates", above=0, source="PMI released code"
    )
    unfrozen_lr: float = option(
        0.01, "with unfreezing: learning rate of the stage that trains everything", above=0, source="PMI released code"
    )
    train_old_heads: bool = option(
        True, "1: the heads of old tasks train along; 0: only the newest does", source="R-DFCIL; PMI code: 0"
    )
    joint_batches: bool = option(
        False,
        "1: real and synthetic images pass the network together, with common batch statistics",
        source="R-DFCIL: 0 (ABD: 1)",
    )
    later_lr: float | None = option(None, "learning rate of later tasks; none: lr", above=0, source="[paper: lr]; ours")
    replay_augment: bool = option(
        False, "1: synthetic images are cropped and flipped at random like real ones", source="[paper: no]; ours"
    )


class ReplayTraining(ContinualModel):
    """One task after another on real images of the new classes and synthetic images of the old ones.

    A subclass makes the synthetic images: :meth:`prepare_replay` before a task, :meth:`draw_replay` for each step.

    Attributes:
        teacher: the frozen network after the task before; None in the first task.
        projections: the trainable maps of RKD, for the student's and for the teacher's features, new for each task.
        counts: samples of each class that were trained on in this task; class weights are refreshed from them after each epoch.
    """

    Options: type = ReplayOptions
    options: ReplayOptions

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.teacher: Any = None
        self.projections = nn.ModuleList()
        self.stages: list[Stage] = []
        self.stage: Stage | None = None
        self.counts = torch.zeros(0, device=self.device)
        self.class_weights = torch.zeros(0, device=self.device)

    @classmethod
    def check(cls, args: SimpleNamespace, outline: RunOutline) -> None:
        """The stages of ``unfreezing`` must fit. Raises UserError."""
        super().check(args, outline)
        if len(args.warmup_parts) != 2 or len(args.warmup_lrs) != 2:
            raise UserError(
                "--warmup_parts and --warmup_lrs take two values each: for the head, and for the last block with it"
            )
        if args.unfreezing and sum(args.warmup_parts) + args.classifier_part >= 1:
            raise UserError(
                "--warmup_parts and --classifier_part leave no epochs to train everything: together they must stay below 1"
            )

    def prepare_replay(self) -> None:
        """Get ready to draw synthetic samples of the old classes, from ``teacher`` and stored statistics alone."""
        raise NotImplementedError

    def draw_replay(self, n: int, epoch: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """``n`` synthetic images (n, c, h, w), normalised, their labels (n,) and the teacher's logits (n, old classes)."""
        raise NotImplementedError

    def plan(self) -> list[Stage]:
        """The stages of the current task."""
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
        """Epochs of the current task, over all its stages."""
        return sum(stage.epochs for stage in self.plan())

    def factors(self) -> Factors:
        """The weights of the losses in the current task."""
        o = self.options
        return loss_factors(self.cpt, self.n_past_classes, o.lambda_ce, o.lambda_hkd, o.lambda_rkd, o.lambda_ft)

    def begin_task(self, dataset: ContinualDataset) -> None:
        """Make synthetic samples, then new projections, class counts and stages."""
        self.stages, self.stage, self.opt = (
            [],
            None,
            None,
        )  # those of the task before: a checkpoint must not mix them with this one
        if self.current_task > 0:
            self.prepare_replay()
        self.projections = self._new_projections()
        self.counts = torch.zeros(self.n_seen_classes, device=self.device)
        self.class_weights = torch.ones(self.n_seen_classes, device=self.device)
        self.stages = self.plan()

    def _new_projections(self) -> nn.ModuleList:
        width, dim = self.options.rkd_dim, int(self.net.feature_dim)
        with global_seed(self.args.seed, "rkd", self.current_task):
            return nn.ModuleList([nn.Linear(dim, width), nn.Linear(dim, width)]).to(self.device)

    def begin_epoch(self, epoch: int, dataset: ContinualDataset) -> None:
        """Enter the stage that the epoch belongs to, and set its rate."""
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
        """Let the stage's parameters train and freeze the rest: no gradient at all, so that weight decay cannot move them either, and
        evaluation mode, so that BatchNorm statistics stay."""
        net: Any = self.net
        heads = list(net.head.tasks)
        newest_only = stage.trains in ("head", "last block and head") or (
            not self.options.train_old_heads and stage.trains == "all"
        )
        modules: list[nn.Module] = heads[-1:] if newest_only and self.current_task > 0 else heads
        if stage.trains == "all":
            modules = [*net.pieces(), *modules]
        if stage.trains == "last block and head":
            modules = [net.pieces()[-1], *modules]
        trained = [parameter for module in modules for parameter in module.parameters()]
        self.net.requires_grad_(False)
        self.net.zero_grad(set_to_none=True)
        for parameter in trained:
            parameter.requires_grad_(True)
        self.set_modes(stage)
        return (
            [*trained, *self.projections.parameters()]
            if self.current_task > 0 and stage.trains != "classifier"
            else trained
        )

    def set_modes(self, stage: Stage | None = None) -> None:
        """Put into training mode what the stage trains of the backbone, and the rest into evaluation mode."""
        stage = stage or self.stage
        trains = "all" if stage is None else stage.trains
        self.net.train(trains == "all")
        if trains == "last block and head":
            self.net.pieces()[-1].train()

    def observe(
        self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor, epoch: int = 0, step: int = 0
    ) -> dict[str, Tensor]:
        """Take a step down the cross-entropy in the first task; then the replay losses, or the classifier's in its stage."""
        assert self.stage is not None, "begin_epoch() enters a stage"
        if self.current_task == 0:
            losses = {"ce": self.loss(self.net(inputs), labels)}
        else:
            images, old_labels, teacher_logits = self._replay(len(inputs), epoch, step)
            seen = torch.cat([labels, old_labels])
            self.counts.index_add_(
                0, seen, torch.ones_like(seen, dtype=self.counts.dtype)
            )  # bincount would make a GPU wait
            if self.stage.trains == "classifier":
                losses = self.classifier_losses(torch.cat([inputs, images]), seen, teacher_logits)
            else:
                losses = self.replay_losses(inputs, labels, images, old_labels, teacher_logits)
        return self.descend(losses)

    def _replay(self, n: int, epoch: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw synthetic samples for one step, augmented if asked for (the teacher then looks at what the student sees)."""
        images, labels, logits = self.draw_replay(n, epoch, step)
        if self.options.replay_augment:
            images = self.transform(images, seeded(self.args.seed, "replay", self.current_task, epoch, step))
            with torch.no_grad():
                logits = self.teacher(images)
        return images.contiguous(memory_format=torch.channels_last), labels, logits

    def replay_losses(
        self, inputs: Tensor, labels: Tensor, images: Tensor, old_labels: Tensor, teacher_logits: Tensor
    ) -> dict[str, Tensor]:
        """Eq. 23 as a sum: local CE (real), HKD (synthetic), RKD (real), and CE over all classes on detached features (both).

        Real and synthetic images pass the network separately, synthetic last, so each has its own batch statistics (R-DFCIL).
        """
        assert self.stage is not None
        factors, head = self.factors(), self.net.head
        logits, features, old_logits, old_features = self._both(inputs, images)
        with torch.no_grad():
            teacher_features = self.teacher(inputs, returnt="features")
        project, project_teacher = self.projections
        relations = relational_distillation(project(features), project_teacher(teacher_features))
        losses = {
            "ce": factors.ce * local_cross_entropy(logits, labels, self.n_past_classes),
            "hkd": factors.hkd * self.stage.hkd_scale * hard_distillation(old_logits, teacher_logits),
            "rkd": factors.rkd * relations,
        }
        if factors.ft:
            both = head(torch.cat([features, old_features]).detach())
            losses["ft"] = factors.ft * F.cross_entropy(both, torch.cat([labels, old_labels]))
        if self.options.lambda_all:
            everything = torch.cat([logits, old_logits])
            weights = balancing_weights(self.counts)
            losses["all"] = self.options.lambda_all * F.cross_entropy(
                everything, torch.cat([labels, old_labels]), weight=weights
            )
        return losses

    def _both(self, inputs: Tensor, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits and features of real and of synthetic images."""
        if not self.options.joint_batches:
            return (*self.net(inputs, returnt="both"), *self.net(images, returnt="both"))
        together = torch.cat([inputs, images]).contiguous(memory_format=torch.channels_last)
        logits, features = self.net(together, returnt="both")
        n = len(inputs)
        return logits[:n], features[:n], logits[n:], features[n:]

    def classifier_losses(self, images: Tensor, labels: Tensor, teacher_logits: Tensor) -> dict[str, Tensor]:
        """Class-balanced CE over all classes on real and synthetic samples, with the unscaled weight, and HKD on the synthetic ones."""
        with torch.no_grad():
            features = self.net(images, returnt="features")
        logits = self.net.head(features)
        return {
            "ce": self.options.lambda_ce * F.cross_entropy(logits, labels, weight=self.class_weights),
            "hkd": self.factors().hkd * hard_distillation(logits[-len(teacher_logits) :], teacher_logits),
        }

    def end_epoch(self, epoch: int, dataset: ContinualDataset) -> None:
        """Refresh the class weights from all that was trained on in this task."""
        if self.current_task > 0:
            self.class_weights = balancing_weights(self.counts)

    def end_task(self, dataset: ContinualDataset) -> None:
        """Copy the network: it is the teacher of the next task."""
        self.net.requires_grad_(True)
        self.teacher = copy.deepcopy(self.net).eval().requires_grad_(False)

    def state(self) -> dict[str, Any]:
        """Give the base's, the teacher, the projections, the class counts and the stage."""
        own = {
            "teacher": None if self.teacher is None else self.teacher.state_dict(),
            "projections": self.projections.state_dict() if len(self.projections) else None,
            "counts": self.counts,
            "class_weights": self.class_weights,
            "stage": None if self.stage is None else self.stages.index(self.stage),
        }
        return {**super().state(), **own}

    def load_weights(self, state: dict[str, Any]) -> None:
        """Take up the base's, and the stage, over whose parameters the optimiser is built."""
        super().load_weights(state)
        if state["teacher"] is not None:
            self.teacher = copy.deepcopy(self.net).eval().requires_grad_(False)
            self.teacher.load_state_dict(state["teacher"])
        if state["projections"] is not None:
            self.projections = self._new_projections()
            self.projections.load_state_dict(state["projections"])
        self.counts, self.class_weights = state["counts"].to(self.device), state["class_weights"].to(self.device)
        self.stages = self.plan()
        self.stage = None if state["stage"] is None else self.stages[state["stage"]]

    def restore_optimizer(self) -> None:
        """Build the optimiser of the last stage that began one, then freeze what the stage at hand does not train."""
        if self.stage is None:
            return
        owner = next(stage for stage in reversed(self.stages[: self.stages.index(self.stage) + 1]) if stage.fresh)
        self.opt = self.new_optimizer(self._thaw(owner))
        self._thaw(self.stage)
