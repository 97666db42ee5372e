"""Divide the epochs of a task into stages: what trains when, and at which learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pmi_cl.models.training.schedules import milestone_epochs

Trains = Literal["all", "last block and head", "head", "classifier"]


@dataclass(frozen=True)
class Stage:
    """Describe consecutive epochs with the same trainable parameters.

    Attributes:
        trains: "all", "head" (the newest linear head), "last block and head", or "classifier":
            every head on real and synthetic samples of all classes, with the backbone frozen in
            evaluation mode.
        first: the first epoch.
        epochs: the number of epochs.
        lr: the learning rate at the start.
        milestones: epochs of the task at which the rate is multiplied by ``gamma``.
        gamma: the factor of the milestones.
        hkd_scale: a factor of the weight of HKD.
        rkd: whether RKD is part of the loss.
        fresh: whether the stage begins a new optimiser. Otherwise the optimiser of the stage before
            goes on.
    """

    trains: Trains
    first: int
    epochs: int
    lr: float
    milestones: tuple[int, ...] = ()
    gamma: float = 1.0
    hkd_scale: float = 1.0
    rkd: bool = True
    fresh: bool = True

    def rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch of the task."""
        return self.lr * self.gamma ** sum(epoch >= milestone for milestone in self.milestones)


def one_schedule(
    epochs: int,
    lr: float,
    milestones: Sequence[float],
    gamma: float,
    classifier: float = 0.0,
    classifier_lr: float | None = None,
    fresh_classifier: bool = False,
) -> list[Stage]:
    """Train everything, and at the end the classifier alone (presets ``paper`` and ``rdfcil``).

    Args:
        milestones: parts of all epochs, such as 0.4 for epoch 80 of 200.
        classifier: the part of the epochs, at the end, in which the classifier alone trains.
        classifier_lr: its learning rate. None continues the schedule.
        fresh_classifier: whether the classifier's stage begins a new optimiser. This is needed if
            it trains parameters that the stage before does not train.
    """
    head_epochs = round(epochs * classifier)
    body = epochs - head_epochs
    at = milestone_epochs(epochs, milestones)
    stages = [Stage("all", 0, body, lr, at, gamma)] if body else []
    fresh = fresh_classifier or not body
    if head_epochs and classifier_lr is None:
        stages.append(Stage("classifier", body, head_epochs, lr, at, gamma, fresh=fresh))
    elif head_epochs and classifier_lr is not None:
        stages.append(Stage("classifier", body, head_epochs, classifier_lr, fresh=fresh))
    return stages


def unfreezing_schedule(
    epochs: int,
    warmups: Sequence[float],
    warmup_lrs: Sequence[float],
    lr: float,
    classifier: float,
    classifier_lr: float,
    hkd_scale: float = 0.01,
) -> list[Stage]:
    """Train the new head, then also the last block, then everything, then the classifier alone.

    The released code does so in later tasks. The stage of the head has a constant rate, weak HKD
    and no RKD. The next two multiply their rates by 0.1 at half and at three quarters of their
    epochs, but never before their first epoch is over.

    Args:
        warmups: the parts of the epochs for the head and for the last block.
        warmup_lrs: their learning rates.
        lr: the learning rate of the stage that trains everything.
        classifier: the part of the epochs, at the end, in which the classifier alone trains.
        classifier_lr: its learning rate.
        hkd_scale: the factor of HKD while the head alone trains.
    """
    head, block = (round(epochs * part) for part in warmups)
    last = round(epochs * classifier)
    stages = [Stage("head", 0, head, warmup_lrs[0], hkd_scale=hkd_scale, rkd=False)] if head else []
    first = head
    plan: list[tuple[Trains, int, float]] = [
        ("last block and head", block, warmup_lrs[1]),
        ("all", epochs - head - block - last, lr),
    ]
    for trains, length, rate in plan:
        if length > 0:
            milestones = (first + max(length // 2, 1), first + max(length * 3 // 4, 1))
            stages.append(Stage(trains, first, length, rate, milestones, 0.1))
        first += max(length, 0)
    if last:
        stages.append(Stage("classifier", first, last, classifier_lr))
    return stages


def stage_at(stages: Sequence[Stage], epoch: int) -> Stage:
    """Return the stage of an epoch."""
    return next(stage for stage in reversed(stages) if epoch >= stage.first)
