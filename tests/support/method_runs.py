"""Runs of every method, kept for all tests of a process, and groups of methods that tests are
about.
"""

from __future__ import annotations

import copy
import functools
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from pmi_cl.inversion.ways.generator import Generator
from pmi_cl.models.continual_model import ContinualModel
from pmi_cl.models.resnet.controlled_replay import ControlledReplay
from pmi_cl.models.resnet.replay_training import ReplayTraining
from pmi_cl.registry import catalogue
from pmi_cl.utils.run.training import Training
from tests.support.small_runs import (
    EXTRAS,
    METHODS,
    StoppingHost,
    begin,
    epochs,
    finished,
    options_of,
    start,
    train_task,
    untouched,
)

# Ways to run that change what is trained or what a checkpoint holds; each is tried on the methods
# that have its flags.
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "unfreezing": {
        "unfreezing": 1,
        "warmup_parts": "0.2,0.2",
        "classifier_part": 0.2,
        "classifier_lr": 0.05,
        "train_old_heads": 0,
        "n_epochs": 5,
    },
    "every extra": {**EXTRAS, "later_lr": 0.02},
}
CASES = [(method, way) for method in METHODS for way, flags in WAYS.items() if flags.keys() <= options_of(method)]
# Long enough to learn something: two tasks of two digits.
LONG = {
    "n_classes": 4,
    "n_tasks": 2,
    "train_per_class": 32,
    "n_epochs": 20,
    "lr": 0.05,
    "classifier_part": 0.5,
    "buffer_images": 60,
    "inv_batch": 60,
    "inv_start": "lowfreq",
    "inv_steps": 20,
    "generator_steps": 12,
    "generator_batch": 16,
    "generator_epochs": 3,
}
RATES = {"dcmi": 0.002, "pass": 0.003}  # of those that LONG does not fit: Adam's


@functools.cache
def uninterrupted(method: str, way: str) -> Training:
    """Return a short run. Its host has counted the safe points that it passed."""
    training = start(method, StoppingHost(), **WAYS[way])
    training.run()
    return training


WHOLE_GENERATOR = {"NOISE": 1000, "WIDTH": 128}  # of R-DFCIL's paper; tests/conftest.py has a smaller one


@functools.cache
def long_run(method: str) -> Training:
    """Return a run that is long enough to learn, and to remember by R-DFCIL's whole generator."""
    with mock.patch.multiple(Generator, **WHOLE_GENERATOR):
        return finished(method, **{**LONG, "lr": RATES.get(method, LONG["lr"])})


def kind_of(method: str) -> type[ContinualModel]:
    """Return the class of a method."""
    kind: type[ContinualModel] = catalogue.load("model", method)
    return kind


JOINT = [method for method in METHODS if kind_of(method).JOINT]
ONE_BY_ONE = [method for method in METHODS if method not in JOINT]
DATA_FREE = [method for method in ONE_BY_ONE if not kind_of(method).KEEPS_IMAGES]
UNTRAINED = [method for method in METHODS if untouched(method).model.n_epochs() == 0]
REPLAYING = [method for method in METHODS if issubclass(kind_of(method), ReplayTraining)]
CONTROLLED = [method for method in METHODS if issubclass(kind_of(method), ControlledReplay)]
REPLAY_CASES = [(method, way) for method, way in CASES if method in REPLAYING]


@functools.cache
def trained_twice(method: str) -> tuple[Training, list[Tensor], list[Tensor]]:
    """Run task 0, and task 1 up to its end. Return the run, labels and class weights of task 1.

    The lists have, for each epoch, the labels that were seen and the class weights after it.
    """
    training = start(method)
    train_task(training, 0).end_task(training.shown)
    model: Any = begin(training, 1)
    seen, weights = [], []
    for epoch in epochs(training, 1):
        batches = training.shown.train_batches(1, epoch, model.options.batch_size)
        drawn = [
            (labels, model.draw_replay(len(labels), epoch, step)[1]) for step, (_, labels, _) in enumerate(batches)
        ]
        seen.append(torch.cat([part for pair in drawn for part in pair]))
        weights.append(model.class_weights)
    return training, seen, [*weights[1:], model.class_weights]


THIRD = {"n_classes": 9, "n_tasks": 3, "train_per_class": 8, "n_epochs": 2, "classifier_part": 0.5}


def by_hand(training: Training, images: Tensor) -> np.ndarray:
    """Return features by the network's own layers, in evaluation mode, one image at a time."""
    net = copy.deepcopy(training.model.net).eval()
    with torch.no_grad():
        return torch.cat([net.features(image[None]) for image in images]).double().numpy()
