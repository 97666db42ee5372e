"""Where the images of an inversion start: white noise, noise with the data's moments, or low-frequency noise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from pmi_cl.inversion.statistics import Moments

STARTS = ("noise", "stats", "lowfreq", "stem", "pmi")
Initialiser = Callable[[tuple[int, ...], torch.Generator], Tensor]  # (shape (b, c, h, w), CPU generator) -> images on the CPU


def white_noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """N(0, 1) per element, on the CPU: the paper's start in normalised pixel space (spec 3.7)."""
    return torch.randn(shape, generator=generator)


def matched_noise(shape: tuple[int, ...], moments: Moments, generator: torch.Generator) -> Tensor:
    """White noise with the stored mean and variance of each channel (or position); ``shape`` (b, c, h, w) or (b, t, c), on the CPU."""
    noise = torch.randn(shape, generator=generator)
    last = len(shape) == 3 and moments.axis == "channel"
    view = (1, 1, -1) if last else (1, -1) + (1,) * (len(shape) - 2)
    return noise * moments.var.cpu().sqrt().view(view) + moments.mean.cpu().view(view)


def low_frequency_noise(shape: tuple[int, ...], generator: torch.Generator, coarser: int = 4) -> Tensor:
    """N(0, 1) on a grid ``coarser`` times smaller, upsampled bilinearly and scaled back to unit variance: natural images are smooth.

    (Prototype: cut the full-model steps to an equal loss by 1.9 to 2.3, ``docs/findings.md``.)
    """
    b, c, h, w = shape
    small = torch.randn(b, c, max(h // coarser, 1), max(w // coarser, 1), generator=generator)
    smooth = F.interpolate(small, size=(h, w), mode="bilinear", align_corners=False)
    return smooth / smooth.std().clamp_min(1e-8)
