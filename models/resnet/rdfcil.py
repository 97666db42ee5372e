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
from pmi_cl.options import new_default


@dataclass(frozen=True)
class RdfcilOptions(GeneratorOptions, ReplayOptions):
    """Hold R-DFCIL's own values. ``models/config/rdfcil.yaml`` has smaller ones."""

    lr_milestones: tuple[float, ...] = new_default((0.4, 0.6), "R-DFCIL: epochs 80 and 120 of 200")
    lr_gamma: float = new_default(0.1, "R-DFCIL")
    lambda_ce: float = new_default(
        0.5, "R-DFCIL", help="weight of the local cross-entropy of later tasks; the first task's is plain"
    )
    lambda_ft: float = new_default(0.0, "R-DFCIL has none")
    first_task_part: float = new_default(0.8, "R-DFCIL: 160 of 200")
    classifier_lr: float | None = new_default(
        0.005, "R-DFCIL", help="learning rate of the classifier's epochs; none: the schedule goes on"
    )


class Rdfcil(GeneratorReplay, ReplayTraining):
    """R-DFCIL: a generator inverts the network; hard and relational distillation."""

    NAME = "rdfcil"
    Options = RdfcilOptions
    options: RdfcilOptions
