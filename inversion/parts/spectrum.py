"""Images by their spatial frequencies, the fine ones damped: a step changes what natural images have much of more than what they lack."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Spectrum:
    """x = F^-1 (w_f F z) with the orthonormal Fourier transform F and w_f ~ 1 / f^power, of mean square 1: white z gives x unit variance.

    Natural images have amplitudes ~ 1 / f, so Adam's equal steps in z are steps in x that are as large, at each frequency, as real
    images are. (The idea is that of feature visualisation's Fourier parameterisation: Olah et al., 2017.)
    """

    weights: Tensor

    @classmethod
    def of(cls, height: int, width: int, power: float) -> Spectrum:
        """For images of that size; ``power`` 0 is the identity."""
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
        """The same on a device."""
        return Spectrum(self.weights.to(device))

    def images(self, z: Tensor) -> Tensor:
        """Amplitudes laid out as an image (b, c, h, w) to images (b, c, h, w)."""
        return self._filtered(z, self.weights.to(z.device))

    def channels(self, images: Tensor) -> Tensor:
        """The inverse of :meth:`images`."""
        return self._filtered(images, 1 / self.weights.to(images.device))

    def _filtered(self, x: Tensor, weights: Tensor) -> Tensor:
        filtered = torch.fft.irfft2(torch.fft.rfft2(x.float()) * weights, s=x.shape[-2:])
        return filtered.contiguous(memory_format=torch.channels_last)
