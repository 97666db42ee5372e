"""Methods on a small CLIP.

Those that train, one of each trained, and images to look at with them.
"""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor

from pmi_cl.models.clip.map_replay import MapReplay
from pmi_cl.utils.run.training import Training
from tests.support.small_runs import CLIP_METHODS, start, train_task, untouched

TRAINED = [method for method in CLIP_METHODS if untouched(method).model.n_epochs() > 0]
LONG = {"n_classes": 4, "n_tasks": 2, "n_epochs": 8, "lr": 0.05, "optimizer": "adamw", "warmup_steps": 0}


def model_of(training: Training) -> Any:
    """Return the method of a run, untyped."""
    return training.model


def some_images(training: Training) -> Tensor:
    """Return six normalised test images of a run."""
    return training.dataset.normalise(training.dataset.test.images[:6])


@functools.cache
def trained(method: str) -> Training:
    """Return a run in which tasks 0 and 1 are trained, so that nothing learned is at its start.

    Do not change it.
    """
    training = start(method, **LONG)
    train_task(training, 0).end_task(training.shown)
    train_task(training, 1).net.eval()
    return training


PMI = [method for method in CLIP_METHODS if isinstance(untouched(method).model.replay, MapReplay)]


def before_second_task(method: str, **flags: Any) -> tuple[Training, Any]:
    """Train and measure the first task. Return the run and the method, in evaluation mode."""
    training = start(method, **flags)
    model = train_task(training, 0).eval()
    model.end_task(training.shown)
    return training, model
