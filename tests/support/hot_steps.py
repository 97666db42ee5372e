"""The functions that run at every step, watched: a host that waits for its GPU there is slow."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch

from pmi_cl.inversion.engine.descent import Descent
from pmi_cl.inversion.features import contrastive
from pmi_cl.inversion.features.gaussians import ClassGaussians
from pmi_cl.models.resnet import generator_training
from pmi_cl.models.training.momentum_sgd import MomentumSGD
from tests.support.pretend_device import PretendGpu

HOT: list[tuple[Any, str]] = [
    (Descent, "_take_step"),
    (ClassGaussians, "sample"),
    (contrastive, "uniformity"),
    (generator_training, "generator_loss"),
    *((kind, "step") for kind in (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, MomentumSGD)),
]


@contextlib.contextmanager
def watched(gpu: PretendGpu, *more: tuple[Any, str]) -> Iterator[Counter[str]]:
    """Count the waits for the GPU inside the functions of :data:`HOT` and ``more``."""
    found: Counter[str] = Counter()

    def watching(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            before = gpu.waits.copy()
            try:
                return function(*args, **kwargs)
            finally:
                found.update(gpu.waits - before)

        return call

    with contextlib.ExitStack() as stack:
        for owner, name in (*HOT, *more):
            stack.enter_context(mock.patch.object(owner, name, watching(getattr(owner, name))))
        yield found
