"""Random transforms of the whole batch inside the inversion loop.

They make the images transfer to other networks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pmi_cl.seeding import mix, seeded


@dataclass(frozen=True)
class Transforms:
    """Roll, flip and noise, drawn anew at every step from the seed and the number of the step.

    Attributes:
        roll: the most pixels by which the batch is rolled in either direction (the jitter of
            DeepInversion).
        flip: whether the batch is mirrored left to right, at every second step on average. Not
            for digits.
        noise: standard deviation of the Gaussian noise that is added, in units of the input.
    """

    roll: int = 0
    flip: bool = False
    noise: float = 0.0

    def __call__(self, x: Tensor, seed: int, *keys: int | str) -> Tensor:
        """Transform images (b, c, h, w); the same seed and keys give the same transform."""
        bits = mix(seed, "transform", *keys)
        if self.roll:
            span = 2 * self.roll + 1
            dy, dx = bits % span - self.roll, bits // span % span - self.roll
            x = torch.roll(x, (dy, dx), dims=(-2, -1))
        if self.flip and (bits >> 40) & 1:
            x = x.flip(-1)
        if self.noise:
            drawn = torch.randn(x.shape, generator=seeded(seed, "noise", *keys))
            x = x + self.noise * drawn.to(x.device, non_blocking=True)
        return x

    def __bool__(self) -> bool:
        return bool(self.roll or self.flip or self.noise)
