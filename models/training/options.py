"""Declare the flags of every method that trains, and of SGD."""

from __future__ import annotations

from dataclasses import dataclass

from pmi_cl.options import option


@dataclass(frozen=True)
class EpochOptions:
    """The flags of every method that trains, with any optimiser."""

    n_epochs: int = option(
        200, "epochs of each task", unit="epochs", low=1, high=100_000, source="PMI appendix I.1", as_in_mammoth=True
    )
    batch_size: int = option(
        128,
        "real images of a step",
        unit="images",
        low=2,
        high=1_000_000,
        source="PMI released code; R-DFCIL",
        memory="training",
        as_in_mammoth=True,
    )
    lr: float = option(0.1, "learning rate of SGD", above=0, source="PMI appendix I.1", as_in_mammoth=True)


@dataclass(frozen=True)
class TrainingOptions(EpochOptions):
    """The flags of a method that trains by SGD with milestones."""

    optim_mom: float = option(
        0.9, "momentum of SGD", low=0, high=1, source="PMI released code; R-DFCIL", as_in_mammoth=True
    )
    optim_wd: float = option(
        5e-4, "weight decay of SGD", low=0, source="PMI released code; R-DFCIL (CIFAR-100)", as_in_mammoth=True
    )
    lr_milestones: tuple[float, ...] = option(
        (0.2, 0.4, 0.6, 0.8),
        "when the rate is multiplied by lr_gamma, as parts of n_epochs; after the first epoch at the earliest",
        low=0,
        high=1,
        source="PMI appendix I.1",
    )
    lr_gamma: float = option(
        0.5, "what the rate is multiplied by at each milestone", above=0, high=1, source="PMI appendix I.1"
    )
