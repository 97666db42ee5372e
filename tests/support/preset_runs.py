"""Methods on ResNets as their presets set them up."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.nn import functional as F

from pmi_cl.backbones.resnet_cifar import ResNetCifar
from pmi_cl.datasets.seq_digits import SeqDigits
from pmi_cl.registry import catalogue
from pmi_cl.utils.arguments.command_line import resolve


@functools.cache
def digits() -> SeqDigits:
    """Any data set will do to build a method: what is looked at here depends on the arguments alone."""
    return SeqDigits(resolve(["--model", "sgd", "--dataset", "seq-digits"]).args, torch.device("cpu"))


def method(name: str, preset: str, *flags: str) -> Any:
    """The method as ``--dataset seq-cifar100 --n_tasks 10 --model_config PRESET`` sets it up."""
    argv = ["--model", name, "--dataset", "seq-cifar100", "--n_tasks", "10", "--model_config", preset, *flags]
    return catalogue.load("model", name)(
        ResNetCifar((1, 0, 0, 0)), F.cross_entropy, resolve(argv).args, digits().augment, digits()
    )
