"""Images as mixtures of uncorrelated channels: what is optimised cannot leave the colours that the real images have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Colour:
    """x = W z at every pixel, with W the symmetric root of the real images' channel covariance (c, c).

    White z then has the real covariance, and a step in z is a step in the directions in which real pixels vary; grey images stay grey.
    (The idea is that of feature visualisation's decorrelated colour space: Olah et al., 2017.)
    """

    root: Tensor
    inverse: Tensor

    @classmethod
    def of(cls, covariance: Tensor) -> Colour:
        """From a covariance (c, c); directions with less than a millionth of the largest variance are left out."""
        values, vectors = torch.linalg.eigh(covariance.double())
        kept = values > 1e-6 * values.max()
        roots = torch.where(kept, values.clamp_min(0).sqrt(), 0)
        inverse = torch.where(kept, 1 / roots.clamp_min(1e-12), 0)
        return cls((vectors * roots @ vectors.T).float(), (vectors * inverse @ vectors.T).float())

    def to(self, device: torch.device) -> Colour:
        """The same on a device."""
        return Colour(self.root.to(device), self.inverse.to(device))

    def images(self, z: Tensor) -> Tensor:
        """Uncorrelated channels (b, c, h, w) to images (b, c, h, w)."""
        return torch.einsum("dc,bchw->bdhw", self.root.to(z), z)

    def channels(self, images: Tensor) -> Tensor:
        """The inverse of :meth:`images`, on the directions that are kept."""
        return torch.einsum("dc,bchw->bdhw", self.inverse.to(images), images)


def channel_covariance(batches: Iterable[Tensor]) -> tuple[Tensor, int]:
    """The covariance (c, c) of all pixels of real images (b, c, h, w), about their mean, and how many pixels there were."""
    count, total, square = 0, torch.zeros(()), torch.zeros(())
    for images in batches:
        pixels = images.permute(0, 2, 3, 1).flatten(0, 2).double()
        count, total, square = count + len(pixels), total + pixels.sum(0).cpu(), square + (pixels.T @ pixels).cpu()
    mean = total / count
    return (square / count - torch.outer(mean, mean)).float(), count
