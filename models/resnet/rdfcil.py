"""Replay old classes with a generator that inverts the frozen network (R-DFCIL).

The method is by Gao et al., ECCV 2022. Facts were read in the authors' released code (R-DFCIL
``f47e123``, cl-lite ``f0ddf02``). Two things differ. The first task's 40 classifier epochs, in
which the original minimises a constant zero, are left out. The generator makes images of any side
that is 8 or more times a power of two.
"""

from __future__ import annotations

from dataclasses import dataclass

from pmi_cl.models.resnet.generator_training import GeneratorOptions, GeneratorReplay
from pmi_cl.models.resnet.replay_options import ReplayOptions
from pmi_cl.models.resnet.replay_training import ReplayTraining
from pmi_cl.options import option


@dataclass(frozen=True)
class RdfcilOptions(GeneratorOptions, ReplayOptions):
    """Hold R-DFCIL's own values. ``models/config/rdfcil.yaml`` has smaller ones."""

    lr_milestones: tuple[float, ...] = option(
        (0.4, 0.6),
        "when the rate is multiplied by lr_gamma, as parts of n_epochs; after the first epoch at the earliest",
        low=0,
        high=1,
        source="R-DFCIL: epochs 80 and 120 of 200",
    )
    lr_gamma: float = option(0.1, "what the rate is multiplied by at each milestone", above=0, high=1, source="R-DFCIL")
    lambda_ce: float = option(
        0.5, "weight of the local cross-entropy of later tasks; the first task's is plain", low=0, source="R-DFCIL"
    )
    lambda_ft: float = option(
        0.0, "weight of the classifier's cross-entropy while everything trains", low=0, source="R-DFCIL has none"
    )
    first_task_part: float = option(
        0.8, "part of n_epochs that the first task takes", above=0, high=1, source="R-DFCIL: 160 of 200"
    )
    classifier_lr: float | None = option(
        0.005, "learning rate of the classifier's epochs; none: the schedule goes on", above=0, source="R-DFCIL"
    )


class Rdfcil(GeneratorReplay, ReplayTraining):
    """R-DFCIL: a generator inverts the network; hard and relational distillation."""

    NAME = "rdfcil"
    Options = RdfcilOptions
    options: RdfcilOptions
