"""The settings of an inversion: what is minimised, from where, in which steps and precision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, Literal, get_args

import torch
from torch import nn

from pmi_cl.inversion.features.statistics import Direction
from pmi_cl.inversion.objectives import (
    BatchTV,
    Competition,
    CrossEntropy,
    FeatureMatch,
    StatisticsMatch,
    Term,
)
from pmi_cl.inversion.starts import Initialiser, Start, StartName, make_start
from pmi_cl.inversion.transforms import Transforms
from pmi_cl.inversion.ways.pmi import PmiConfig
from pmi_cl.inversion.ways.sparse import PruningConfig

Schedule = Literal["constant", "cosine", "released"]


@dataclass(frozen=True)
class InversionConfig:
    """All settings of an inversion but the network and the targets.

    The defaults are those of the appendix for a ResNet (I.1), from white noise.

    Attributes:
        start: ``noise``, ``stats`` (noise with the moments of the data), ``lowfreq``, ``stem`` (a
            few steps of the lowest piece towards random values with the right moments), ``pmi``,
            or a function (:data:`pmi_cl.inversion.starts.Initialiser`).
        steps: of the full-model stage, 280 (App. I.1).
        lr: learning rate of Adam in that stage, 0.15 (App. I.1).
        schedule: ``constant`` (appendix), ``cosine`` to 0, or ``released``, that of the released
            code (:func:`learning_rate`).
        schedule_steps: how many steps the schedule takes to its end; None: ``steps``.
        beta2: second decay of Adam in that stage.
        terms: what is minimised through the whole network.
        transforms: random transforms of the input inside the loop.
        pruning: which patches are dropped in the full-model stage (SMI); None: none. Needs a
            :class:`~pmi_cl.inversion.networks.token_network.TokenNetwork`.
        spectrum: of the full-model stage. 0 optimises pixels; above it, frequencies damped by
            1 / f^spectrum (:class:`~pmi_cl.inversion.parts.image_space.Spectrum`).
        batch: the most samples that are optimised together. Their moments are the batch statistics,
            so 200 or more is wise.
        keep_best: whether the iterate after the step of the lowest loss is kept, not the last.
        boost: whether a term of the full-model stage above its first value doubles its weight, up
            to 10 times, as in the released code. It steers the gradient alone.
        pmi: the settings of the ``pmi`` start.
        stem_steps: how many steps the ``stem`` start takes.
        direction: of the KL between the statistics of the batch and the stored ones; "l2":
            DeepInversion's distance in place of the KL.
        precision: of the network, float32 or bfloat16. Images and statistics stay in float32.
        compiled: whether ``torch.compile`` compiles the full-model pass, which pays after some
            thousand image-steps.
    """

    start: StartName | Initialiser = "noise"
    steps: int = 280
    lr: float = 0.15
    schedule: Schedule = "constant"
    schedule_steps: int | None = None
    beta2: float = 0.999
    terms: tuple[Term, ...] = (FeatureMatch(1.0), StatisticsMatch(1.6))
    transforms: Transforms = field(default_factory=Transforms)
    pruning: PruningConfig | None = None
    spectrum: float = 0.0
    batch: int = 4000
    keep_best: bool = False
    boost: bool = False
    pmi: PmiConfig = field(default_factory=PmiConfig)
    stem_steps: int = 10
    direction: Direction = "synthetic_to_real"
    precision: torch.dtype = torch.float32
    compiled: bool = False

    def __post_init__(self) -> None:
        """Refuse settings that would fail at a step, or would silently mean something else.

        Raises:
            ValueError: a setting does not fit; names it.
        """
        _check_whole(self, "steps", 0)
        _check_whole(self, "stem_steps", 0)
        _check_whole(self, "batch", 1)
        if self.schedule_steps is not None:
            _check_whole(self, "schedule_steps", 1)
        _check(self, "lr", _is_finite(self.lr) and self.lr > 0, "a finite number above 0")
        _check(self, "beta2", _is_finite(self.beta2) and 0 <= self.beta2 < 1, "a number from 0 to below 1")
        _check(self, "spectrum", _is_finite(self.spectrum) and self.spectrum >= 0, "a finite number from 0")
        _check(self, "schedule", self.schedule in get_args(Schedule), f"one of {', '.join(get_args(Schedule))}")
        _check(self, "direction", self.direction in get_args(Direction), f"one of {', '.join(get_args(Direction))}")
        terms_fit = isinstance(self.terms, Sequence) and len(self.terms) > 0 and all(map(callable, self.terms))
        _check(self, "terms", terms_fit, "a tuple of one or more terms, such as (CrossEntropy(0.1),)")
        _check(
            self, "transforms", isinstance(self.transforms, Transforms), "Transforms(...); Transforms() changes nothing"
        )
        _check(self, "pmi", isinstance(self.pmi, PmiConfig), "PmiConfig(...)")
        floating = isinstance(self.precision, torch.dtype) and self.precision.is_floating_point
        _check(self, "precision", floating, "torch.float32 or torch.bfloat16")

    @classmethod
    def deep_inversion(cls, student: nn.Module | None = None, **changes: Any) -> InversionConfig:
        """Return the settings of DeepInversion on CIFAR (Yin et al., CVPR 2020).

        Images are optimised from noise for labels, for BatchNorm's statistics and for smoothness.
        With ``keep_best`` the iterate of the lowest loss is kept; the released code, which stores
        no copy, returns the last.

        Args:
            student: with it, a further term favours images on which student and network disagree
                (Adaptive DeepInversion).
            changes: fields with other values.
        """
        terms: tuple[Term, ...] = (CrossEntropy(1.0), StatisticsMatch(10.0), BatchTV(2.5e-5))
        terms = terms if student is None else (*terms, Competition(0.2, student))
        transforms = Transforms(roll=2, flip=True)
        own: dict[str, Any] = {"steps": 2000, "lr": 0.05, "batch": 256, "direction": "l2"}
        return cls(**{**own, "terms": terms, "transforms": transforms, **changes})

    def new_start(self) -> Start:
        """Make the start that ``start`` names. Raise ValueError if there is none of that name."""
        return make_start(self.start, self.pmi, self.stem_steps)

    def full_rate(self, step: int) -> float:
        """Return the learning rate of step ``step`` of the full-model stage."""
        return learning_rate(self.schedule, self.lr, step, self.schedule_steps or self.steps)


def _is_finite(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _check_whole(config: InversionConfig, name: str, low: int) -> None:
    value = getattr(config, name)
    _check(
        config,
        name,
        isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= low,
        f"a whole number from {low}",
    )


def _check(config: InversionConfig, name: str, fits: bool, wanted: str) -> None:
    if not fits:
        raise ValueError(f"{name}={getattr(config, name)!r}: give {wanted}")


def learning_rate(schedule: Schedule, lr: float, step: int, steps: int) -> float:
    """Return the learning rate of step ``step`` (from 0) of ``steps``.

    ``released`` is that of the released code. Its scheduler warms up over five steps and halves the
    rate 5 steps after 1/2 and 3/4 of the steps (at 85 and 125 of its 160). It is asked behind each
    step, so that the first of the five rates serves twice: 1/5, 1/5, 2/5, 3/5, 4/5, 1.
    """
    if schedule == "cosine":
        return lr * 0.5 * (1 + math.cos(math.pi * min(step / max(steps, 1), 1)))
    if schedule == "released":
        halvings = (step >= steps // 2 + 5) + (step >= 3 * steps // 4 + 5)
        return lr * min(max(step, 1), 5) / 5 * 0.5**halvings
    return lr


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 in hardware.

    That is CUDA from compute capability 8, or a CPU with AVX512-bf16 or AMX. Before torch 2.6 a CPU
    does not say, and the answer is no.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, check)()) for check in checks if hasattr(torch.cpu, check))


def inversion_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the precision of an inversion on a device.

    Args:
        precision: ``fp32``, ``bf16``, or ``auto``: bfloat16 where the device multiplies it in
            hardware.
        device: which the inversion runs on.
    """
    fast = precision == "bf16" or (precision == "auto" and has_fast_bfloat16(device))
    return torch.bfloat16 if fast else torch.float32
