"""The space in which images are optimised: pixels, or coordinates in which the colours and frequencies of real images are alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pmi_cl.inversion.parts.colour import Colour
from pmi_cl.inversion.parts.spectrum import Spectrum


@dataclass(frozen=True)
class ImageSpace:
    """coordinates -> (spectrum) -> uncorrelated channels -> (colour) -> images, all (b, c, h, w); without either they are the same."""

    colour: Colour | None = None
    spectrum: Spectrum | None = None

    def to(self, device: torch.device) -> ImageSpace:
        """The same on a device: what is sent there at every step makes the host wait for it."""
        return ImageSpace(self.colour and self.colour.to(device), self.spectrum and self.spectrum.to(device))

    def images(self, coordinates: Tensor) -> Tensor:
        """Coordinates to images."""
        channels = coordinates if self.spectrum is None else self.spectrum.images(coordinates)
        return channels if self.colour is None else self.colour.images(channels)

    def coordinates(self, images: Tensor) -> Tensor:
        """The inverse of :meth:`images`, on the colours that there are."""
        return self.of_channels(images if self.colour is None else self.colour.channels(images))

    def of_channels(self, channels: Tensor) -> Tensor:
        """Uncorrelated channels to coordinates."""
        return channels if self.spectrum is None else self.spectrum.channels(channels)
