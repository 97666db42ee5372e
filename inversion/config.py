"""The settings of an inversion, and its learning rate at each step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch

from pmi_cl.inversion.objectives import FeatureMatch, StatisticsMatch, Term
from pmi_cl.inversion.pmi import PmiConfig
from pmi_cl.inversion.sparse import PruningConfig
from pmi_cl.inversion.starts import Initialiser, Start, StartName, make_start
from pmi_cl.inversion.statistics import Direction
from pmi_cl.inversion.transforms import Transforms

Schedule = Literal["constant", "cosine", "released"]


@dataclass(frozen=True)
class InversionConfig:
    """Everything about an inversion but the network and the targets. Defaults: the appendix's for a ResNet (I.1), from white noise.

    Attributes:
        start: ``noise``, ``stats`` (noise with the data's moments), ``lowfreq``, ``stem`` (a few steps of the lowest piece towards random
            values with the right moments), ``pmi``, or a function (:data:`pmi_cl.inversion.starts.Initialiser`).
        steps: of the full-model stage: 280 (App. I.1).
        lr: Adam's rate in that stage: 0.15 (App. I.1).
        schedule: ``constant`` (appendix), ``cosine`` to 0, or ``released``, the released code's (:func:`learning_rate`).
        schedule_steps: how many steps the schedule would take to its end; None: as many as there are.
        beta2: Adam's second decay in that stage.
        terms: what is minimised through the whole network.
        transforms: random transforms of the input inside the loop.
        pruning: of the full-model stage of a :class:`TokenNetwork`: patches are dropped on the way (SMI); None: never.
        spectrum: of the full-model stage: 0 optimises pixels; above it, frequencies damped by 1 / f^spectrum (:class:`Spectrum`).
        batch: samples optimised together; their moments are the batch statistics, so 200 or more is wise.
        keep_best: keep the iterate with the lowest loss rather than the last.
        pmi: the settings of the ``pmi`` start.
        stem_steps: how many steps the ``stem`` start takes.
        direction: of the KL between the batch's and the stored statistics.
        precision: of the network: float32 or bfloat16. The images and the statistics stay in float32.
        compiled: ``torch.compile`` the full-model pass; pays for some thousand image-steps.
    """

    start: StartName | Initialiser = "noise"
    steps: int = 280
    lr: float = 0.15
    schedule: Schedule = "constant"
    schedule_steps: int | None = None
    beta2: float = 0.999
    terms: tuple[Term, ...] = (FeatureMatch(1.0), StatisticsMatch(0.1))
    transforms: Transforms = field(default_factory=Transforms)
    pruning: PruningConfig | None = None
    spectrum: float = 0.0
    batch: int = 4000
    keep_best: bool = False
    pmi: PmiConfig = field(default_factory=PmiConfig)
    stem_steps: int = 10
    direction: Direction = "synthetic_to_real"
    precision: torch.dtype = torch.float32
    compiled: bool = False

    def new_start(self) -> Start:
        """The object that ``start`` stands for. Raises ValueError where there is no start of that name."""
        return make_start(self.start, self.pmi, self.stem_steps)

    def full_rate(self, step: int) -> float:
        """The learning rate of step ``step`` of the full-model stage."""
        return learning_rate(self.schedule, self.lr, step, self.schedule_steps or self.steps)


def learning_rate(schedule: Schedule, lr: float, step: int, steps: int) -> float:
    """The learning rate of step ``step`` (from 0) of ``steps``.

    ``released`` is the released code's: warm-up over 5 steps, then halved at 1/2 and 3/4 of the steps (80 and 120 of its 160).
    """
    if schedule == "cosine":
        return lr * 0.5 * (1 + math.cos(math.pi * min(step / max(steps, 1), 1)))
    if schedule == "released":
        return lr * min(1.0, (step + 1) / 5) * 0.5 ** ((step >= steps // 2) + (step >= 3 * steps // 4))
    return lr
