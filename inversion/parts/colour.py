"""Images as mixtures of uncorrelated channels, which keep to the colours of real images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Colour:
    """Map uncorrelated channels z to x = W z at every pixel.

    W is the symmetric root of the channel covariance (c, c) of real images. White z then has the
    real covariance, and a step in z is a step in the directions in which real pixels vary: grey
    images stay grey. (The idea is that of feature visualisation's decorrelated colour space: Olah
    et al., 2017.)

    Attributes:
        root: (c, c), W.
        inverse: (c, c), the inverse of W in the directions that are kept.
    """

    root: Tensor
    inverse: Tensor

    @classmethod
    def of(cls, covariance: Tensor) -> Colour:
        """Return the colour space of a covariance (c, c).

        Directions with less than a millionth of the largest variance are left out.
        """
        values, vectors = torch.linalg.eigh(covariance.double())
        kept = values > 1e-6 * values.max()
        roots = torch.where(kept, values.clamp_min(0).sqrt(), 0)
        inverse = torch.where(kept, 1 / roots.clamp_min(1e-12), 0)
        return cls((vectors * roots @ vectors.T).float(), (vectors * inverse @ vectors.T).float())

    def to(self, device: torch.device) -> Colour:
        """Return the same colour space on a device."""
        return Colour(self.root.to(device), self.inverse.to(device))

    def images(self, z: Tensor) -> Tensor:
        """Map uncorrelated channels (b, c, h, w) to images (b, c, h, w)."""
        return torch.einsum("dc,bchw->bdhw", self.root.to(z), z)

    def channels(self, images: Tensor) -> Tensor:
        """Map images to channels, the inverse of :meth:`images` in the directions that are kept."""
        return torch.einsum("dc,bchw->bdhw", self.inverse.to(images), images)


def channel_covariance(batches: Iterable[Tensor]) -> tuple[Tensor, int]:
    """Return the covariance (c, c) of all pixels of real images about their mean, and their number.

    Args:
        batches: images (b, c, h, w) each.
    """
    count, total, square = 0, torch.zeros(()), torch.zeros(())
    for images in batches:
        pixels = images.permute(0, 2, 3, 1).flatten(0, 2).double()
        count, total, square = count + len(pixels), total + pixels.sum(0).cpu(), square + (pixels.T @ pixels).cpu()
    mean = total / count
    return (square / count - torch.outer(mean, mean)).float(), count
