"""Random transforms of the whole batch inside the inversion loop: what makes the images transfer to other networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pmi_cl.seeding import mix, seeded


@dataclass(frozen=True)
class Transforms:
    """Roll, flip and noise, drawn anew at every step from the seed and the step's number.

    Attributes:
        roll: the batch is rolled by up to so many pixels in either direction (DeepInversion's jitter).
        flip: mirrored left to right at every second step, on average. Not for digits.
        noise: standard deviation of Gaussian noise added to the input, in units of the input.
    """

    roll: int = 0
    flip: bool = False
    noise: float = 0.0

    def __call__(self, x: Tensor, seed: int, *keys: int | str) -> Tensor:
        """Images (b, c, h, w) to transformed images; the same seed and keys give the same transform."""
        bits = mix(seed, "transform", *keys)
        if self.roll:
            span = 2 * self.roll + 1
            dy, dx = bits % span - self.roll, bits // span % span - self.roll
            x = torch.roll(x, (dy, dx), dims=(-2, -1))
        if self.flip and (bits >> 40) & 1:
            x = x.flip(-1)
        if self.noise:
            x = x + self.noise * torch.randn(x.shape, generator=seeded(seed, "noise", *keys)).to(
                x.device, non_blocking=True
            )
        return x

    def __bool__(self) -> bool:
        return bool(self.roll or self.flip or self.noise)
