"""Define the flags that every CLIP method has: images and texts, and how it is trained."""

from __future__ import annotations

from dataclasses import dataclass

from pmi_cl.models.training.options import EpochOptions
from pmi_cl.options import new_default, option


@dataclass(frozen=True)
class ClipOptions:
    """The flags of every CLIP method: images and texts."""

    resize: str = option(
        "squash",
        "how images get the network's size: squash changes the sides alone, crop keeps the middle (CLIP's own)",
        choices=("squash", "crop"),
        source="PROOF's protocol, which PMI's tables follow",
    )
    prompt_template: str | None = option(
        None,
        "sentence that a class is known by, with {} for its name; none: the data set's",
        source="PMI released code",
    )
    eval_templates: str = option(
        "prompt",
        "texts of the evaluation: the prompt_template, or the mean over the data set's templates",
        choices=("prompt", "ensemble"),
        source="PMI released code: prompt; PROOF: ensemble",
    )


@dataclass(frozen=True)
class ClipTrainingOptions(ClipOptions, EpochOptions):
    """The flags of every CLIP method that trains.

    The rates are those of Table 9 for most data sets.
    """

    n_epochs: int = new_default(5, "PMI Table 9")
    batch_size: int = new_default(64, "PMI released code", low=1)
    lr: float = new_default(0.02, "PMI Table 9", help="learning rate at its highest")
    optimizer: str = option(
        "sgd", "of what is trained", choices=("sgd", "adamw"), source="PMI Table 9", as_in_mammoth=True
    )
    optim_mom: float = option(0.9, "momentum of SGD", low=0, high=1, source="VPT; PMI does not say", as_in_mammoth=True)
    optim_wd: float = option(
        0.0, "weight decay", low=0, source="PMI released code (MoE-Adapter); [INF] for the others", as_in_mammoth=True
    )
    lr_schedule: str = option(
        "cosine",
        "of the rate over a task, step by step: to zero along a half or a quarter of a cosine, or not at all",
        choices=("cosine", "quarter", "constant"),
        source="PMI released code",
    )
    warmup_steps: int = option(
        0,
        "steps of a task in which the rate rises first",
        unit="steps",
        low=0,
        high=10_000_000,
        source="[INF]; MoE-Adapter: 30",
    )
    clip_augment: str = option(
        "none",
        "how training images are varied: not at all, or cropped at random to nine tenths or more",
        choices=("none", "crop"),
        source="PROOF's protocol; MoE-Adapters4CL, ZSCL: crop",
    )
