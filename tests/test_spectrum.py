"""The Fourier space of images: its weights, its inverse, and the inversion in it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pmi_cl.inversion.parts.colour import Colour
from pmi_cl.inversion.parts.image_space import ImageSpace, Spectrum

SIZES = [(8, 8), (6, 10), (7, 9), (16, 5)]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", SIZES)
def test_images_against_numpys_whole_spectrum(size: tuple[int, int]) -> None:
    """Every frequency of the full transform is multiplied by 1 / f^power, scaled to a mean square
    of one.
    """
    power, z = 0.7, randn(2, 3, *size)
    height, width = size
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    frequency[0, 0] = 1 / max(size)
    weights = frequency**-power
    weights /= np.sqrt((weights**2).mean())
    expected = np.fft.ifft2(np.fft.fft2(z.double().numpy()) * weights)
    assert abs(expected.imag).max() < 1e-12
    np.testing.assert_allclose(Spectrum.of(*size, power).images(z).numpy(), expected.real, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_there_and_back(size: tuple[int, int]) -> None:
    spectrum, x = Spectrum.of(*size, 1.0), randn(3, 3, *size)
    torch.testing.assert_close(spectrum.images(spectrum.channels(x)), x, rtol=1e-4, atol=1e-5)


def test_white_coordinates_give_smooth_images_of_unit_variance() -> None:
    images = Spectrum.of(32, 32, 1.0).images(randn(64, 3, 32, 32))
    assert float(images.var()) == pytest.approx(1, rel=0.05)
    steps = (images[..., 1:] - images[..., :-1]).pow(2).mean()
    assert float(steps) < 1  # white noise: 2


def test_a_power_of_zero_is_the_identity() -> None:
    torch.testing.assert_close(Spectrum.of(8, 8, 0.0).images(randn(2, 3, 8, 8)), randn(2, 3, 8, 8))


def test_the_gradient_is_that_of_the_linear_map() -> None:
    spectrum = Spectrum.of(4, 6, 0.5)
    z = randn(1, 1, 4, 6).double().requires_grad_()
    matrix = torch.stack([spectrum.images(row.view(1, 1, 4, 6)).flatten() for row in torch.eye(24)])
    target = randn(1, 1, 4, 6, seed=1)
    (spectrum.images(z) * target).sum().backward()
    assert z.grad is not None
    torch.testing.assert_close(z.grad.flatten().float(), matrix @ target.flatten(), rtol=1e-4, atol=1e-5)


def test_a_space_of_both_goes_there_and_back() -> None:
    mixing = randn(3, 3, seed=2)
    space = ImageSpace(Colour.of(mixing @ mixing.T), Spectrum.of(8, 8, 0.5))
    x = randn(2, 3, 8, 8)
    torch.testing.assert_close(space.images(space.coordinates(x)), x, rtol=1e-3, atol=1e-4)
    assert ImageSpace().images(x) is x and ImageSpace().coordinates(x) is x
