"""Methods as their presets set them up, and what they hand to the engine when they begin a task."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from pmi_cl.backbones.resnet_cifar import ResNetCifar
from pmi_cl.datasets.seq_digits import SeqDigits
from pmi_cl.inversion.features.contrastive import ContrastiveBank, train_contrastive
from pmi_cl.inversion.features.selection import sample_targets
from pmi_cl.registry import catalogue
from pmi_cl.utils.arguments.command_line import resolve
from pmi_cl.utils.run.training import Training
from tests.support.recorded_calls import Call, Enough, recorded, recorded_inversions
from tests.support.small_runs import begin, new_network, start

PMI_CLIP_METHODS = ("pmi_vpt", "pmi_codap", "pmi_moe")
FITTING_THE_SMALL_CLIP = {"prompt_template": "a {}.", "pool_size": "6"}  # its texts and its directions are few
NOT_OF_PRESETS = {"precision": "bf16", "compile": "1"}


@functools.cache
def digits() -> SeqDigits:
    """Return a data set to build methods with, where the test depends on the arguments alone."""
    return SeqDigits(resolve(["--model", "sgd", "--dataset", "seq-digits"]).args, torch.device("cpu"))


def options(name: str, preset: str, dataset: str = "seq-cifar100") -> dict[str, Any]:
    """Return the value of every option of a method under a preset, in ten tasks."""
    resolved = resolve(["--model", name, "--dataset", dataset, "--n_tasks", "10", "--model_config", preset])
    return {spec.name: getattr(resolved.args, spec.name) for spec in resolved.model.options}


def method(name: str, preset: str, *flags: str) -> Any:
    """Return the method as ``--dataset seq-cifar100 --n_tasks 10 --model_config PRESET`` sets it
    up.
    """
    argv = ["--model", name, "--dataset", "seq-cifar100", "--n_tasks", "10", "--model_config", preset, *flags]
    return catalogue.load("model", name)(
        ResNetCifar((1, 0, 0, 0)), F.cross_entropy, resolve(argv).args, digits().augment, digits()
    )


@dataclass
class Built:
    """A method before the inversion of its second task, and the calls that it has made so far."""

    model: Any
    inversions: list[Call] = field(default_factory=list)
    contrastive: list[Call] = field(default_factory=list)
    targets: list[Call] = field(default_factory=list)


def small_run(name: str, preset: str, dataset: str, **flags: Any) -> Training:
    """Return a run of a preset for a data set, with the smallest network, on four digits in two
    tasks.
    """
    training = start(name, n_classes=4, n_tasks=2, train_per_class=8)
    known = vars(training.args)
    fitting = {flag: value for flag, value in FITTING_THE_SMALL_CLIP.items() if flag in known}
    flags = {**NOT_OF_PRESETS, **fitting, **flags}
    words = ["--model", name, "--dataset", dataset, "--model_config", preset]
    args = resolve([*words, *(word for flag, value in flags.items() for word in (f"--{flag}", str(value)))]).args
    training.dataset.FLIP = dataset != "seq-digits"
    network = new_network(name, training.dataset)
    training.model = catalogue.load("model", name)(
        network, F.cross_entropy, args, training.dataset.augment, training.dataset
    )
    return training


def built(monkeypatch: pytest.MonkeyPatch, name: str, preset: str, dataset: str, **flags: Any) -> Built:
    """End the first task as it began, untrained, and begin the second up to its inversion.

    Train no f_cont.
    """
    training = small_run(name, preset, dataset, **flags)
    heard = Built(training.model, recorded_inversions(monkeypatch))
    heard.contrastive = recorded(monkeypatch, train_contrastive, instead=lambda *args, **named: ContrastiveBank())
    heard.targets = recorded(monkeypatch, sample_targets)
    begin(training, 0).end_task(training.shown)
    with pytest.raises(Enough):
        begin(training, 1)
    return heard


def different_options(name: str, one: str, other: str, dataset: str = "seq-cifar100") -> set[str]:
    """Return the names of the options in which two presets of a method differ."""
    values, others = options(name, one, dataset), options(name, other, dataset)
    return {option for option in values if values[option] != others[option]}
