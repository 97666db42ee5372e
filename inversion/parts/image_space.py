"""The space in which images are optimised: pixels, or coordinates of colours and frequencies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pmi_cl.inversion.parts.colour import Colour


@dataclass(frozen=True)
class Spectrum:
    """Map white coordinates z to images x = F^-1 (w_f F z) whose fine frequencies are damped.

    F is the orthonormal Fourier transform. The weights w_f ~ 1 / f^power have mean square 1, so
    that white z gives x of unit variance.

    Natural images have amplitudes ~ 1 / f. Adam takes steps of equal size in z, which become
    steps in x that are as large, at each frequency, as real images are there. (The idea is that
    of feature visualisation's Fourier parameterisation: Olah et al., 2017.)

    Attributes:
        weights: (h, w // 2 + 1), w_f.
    """

    weights: Tensor

    @classmethod
    def of(cls, height: int, width: int, power: float) -> Spectrum:
        """Return the spectrum of images of that size; ``power`` 0 is the identity."""
        down, across = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
        frequency = (down**2 + across**2).sqrt()
        frequency[0, 0] = 1 / max(height, width)  # the mean is damped no more than the coarsest wave
        weights = frequency**-power
        doubled = torch.full((weights.shape[1],), 2.0)  # the half that a real image's spectrum leaves out
        doubled[0] = 1
        if width % 2 == 0:
            doubled[-1] = 1
        mean_square = (weights**2 * doubled).sum() / (height * width)
        return cls(weights / mean_square.sqrt())

    def to(self, device: torch.device) -> Spectrum:
        """Return the same spectrum on a device."""
        return Spectrum(self.weights.to(device))

    def images(self, z: Tensor) -> Tensor:
        """Map coordinates (b, c, h, w) to images (b, c, h, w)."""
        return self._filtered(z, self.weights.to(z.device))

    def channels(self, images: Tensor) -> Tensor:
        """Map images to coordinates: the inverse of :meth:`images`."""
        return self._filtered(images, 1 / self.weights.to(images.device))

    def _filtered(self, x: Tensor, weights: Tensor) -> Tensor:
        filtered = torch.fft.irfft2(torch.fft.rfft2(x.float()) * weights, s=x.shape[-2:])
        return filtered.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class ImageSpace:
    """Map coordinates -> (spectrum) -> uncorrelated channels -> (colour) -> images.

    All are (b, c, h, w). Without a spectrum and a colour, coordinates are the images.
    """

    colour: Colour | None = None
    spectrum: Spectrum | None = None

    def to(self, device: torch.device) -> ImageSpace:
        """Return the same space on a device: sending it at every step would make the host wait."""
        return ImageSpace(self.colour and self.colour.to(device), self.spectrum and self.spectrum.to(device))

    def images(self, coordinates: Tensor) -> Tensor:
        """Map coordinates to images."""
        channels = coordinates if self.spectrum is None else self.spectrum.images(coordinates)
        return channels if self.colour is None else self.colour.images(channels)

    def coordinates(self, images: Tensor) -> Tensor:
        """Map images to coordinates, the inverse of :meth:`images` in the colours that are kept."""
        return self.of_channels(images if self.colour is None else self.colour.channels(images))

    def of_channels(self, channels: Tensor) -> Tensor:
        """Map uncorrelated channels to coordinates."""
        return channels if self.spectrum is None else self.spectrum.channels(channels)
