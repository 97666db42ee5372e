"""Define the options of replay, and those that R-DFCIL and PMI share."""

from __future__ import annotations

from dataclasses import dataclass

from pmi_cl.models.continual_model import TrainingOptions
from pmi_cl.options import option


@dataclass(frozen=True)
class ControlOptions:
    """Hold the options of every method that replays synthetic images on a ResNet."""

    replay: str = option(
        "synthetic",
        "what is replayed of old classes; controls: real, stored images in place of synthetic ones; noise; shuffled, "
        "synthetic images under the label of another class",
        choices=("synthetic", "real", "noise", "shuffled"),
        source="the papers: synthetic",
        binds="checkpoint",
    )
    replay_images: int | None = option(
        None,
        "images of --replay real or noise; none: as many as the method would make for the task, and 20000 for a "
        "generator, which makes new ones at every step",
        unit="images",
        low=2,
        high=10_000_000,
        source="PMI appendix I.1: 20000",
        memory="buffer",
    )


@dataclass(frozen=True)
class ReplayOptions(ControlOptions, TrainingOptions):
    """Hold the options of the shared loop.

    The weights are scaled in each task (:func:`pmi_cl.models.training.losses.loss_factors`).
    """

    lambda_ce: float = option(
        0.75,
        "weight of the local cross-entropy of later tasks, and of that of the classifier's own stage; "
        "the first task's is plain",
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
        "weight of a class-balanced cross-entropy over all classes, on real and synthetic images, "
        "that moves the backbone too",
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
    train_stem: bool = option(
        True,
        "1: the stem trains in later tasks, too; 0: it stays as the first task left it",
        source="R-DFCIL; PMI code: 0",
    )
    first_count: int = option(
        0,
        "what the counts of the classes start at in each task, whose inverse weighs the classifier's cross-entropy",
        low=0,
        high=1_000_000,
        source="R-DFCIL; PMI code: 1",
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
