"""Train on all tasks at once."""

from __future__ import annotations

from pmi_cl.models.continual_model import TrainingOptions
from pmi_cl.models.resnet.sgd import Sgd


class Joint(Sgd):
    """Training on all tasks at once, the upper bound. Its accuracy matrix has a single row."""

    NAME = "joint"
    JOINT = True
    Options = TrainingOptions
