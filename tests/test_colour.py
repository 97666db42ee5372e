"""Test the colour space of the real images: its root, its inverse, its covariance."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pmi_cl.inversion.parts.colour import Colour, channel_covariance


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def covariance(channels: int = 3) -> Tensor:
    mixing = randn(channels, channels, seed=1)
    return mixing @ mixing.T


def test_the_root_is_symmetric_and_its_square_is_the_covariance() -> None:
    root = Colour.of(covariance()).root
    torch.testing.assert_close(root, root.T)
    torch.testing.assert_close(root @ root, covariance(), rtol=1e-5, atol=1e-5)


def test_white_channels_become_pixels_with_the_real_covariance() -> None:
    images = Colour.of(covariance()).images(randn(64, 3, 32, 32))
    found = np.cov(images.permute(1, 0, 2, 3).reshape(3, -1).double().numpy())
    np.testing.assert_allclose(found, covariance().numpy(), rtol=0.05, atol=0.05)


def test_images_against_a_loop_over_pixels() -> None:
    colour, z = Colour.of(covariance()), randn(2, 3, 4, 5)
    images = colour.images(z)
    assert images.shape == z.shape
    for b, row, column in np.ndindex(2, 4, 5):
        np.testing.assert_allclose(
            images[b, :, row, column], colour.root.numpy() @ z[b, :, row, column].numpy(), rtol=1e-4, atol=1e-5
        )


def test_there_and_back() -> None:
    colour, images = Colour.of(covariance()), randn(4, 3, 6, 6)
    torch.testing.assert_close(colour.images(colour.channels(images)), images, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(colour.channels(colour.images(images)), images, rtol=1e-3, atol=1e-4)


def test_grey_images_stay_grey() -> None:
    """The covariance has rank one.

    Whatever is optimised, the three channels are equal, and grey images are kept as they are.
    """
    colour = Colour.of(torch.ones(3, 3))
    images = colour.images(randn(4, 3, 6, 6))
    torch.testing.assert_close(images[:, 0], images[:, 1])
    torch.testing.assert_close(images[:, 0], images[:, 2])
    grey = randn(4, 1, 6, 6).expand(-1, 3, -1, -1)
    torch.testing.assert_close(colour.images(colour.channels(grey)), grey, rtol=1e-4, atol=1e-5)


def test_no_variance_at_all_gives_finite_values() -> None:
    colour = Colour.of(torch.zeros(3, 3))
    assert not colour.root.any() and not colour.inverse.any()


def test_gradients_and_half_precision_pass_through() -> None:
    colour, z = Colour.of(covariance()), randn(2, 3, 4, 4).requires_grad_()
    (gradient,) = torch.autograd.grad(colour.images(z).sum(), z)
    expected = colour.root.sum(0).view(1, 3, 1, 1).expand_as(gradient)
    torch.testing.assert_close(gradient, expected)
    assert colour.images(z.detach().bfloat16()).dtype == torch.bfloat16


def test_covariance_against_numpy() -> None:
    """It is about the mean, over the pixels of all batches, whatever their sizes."""
    batches = [5 + 2 * randn(n, 3, 4, 5, seed=n) * torch.tensor([1.0, 2, 3]).view(1, 3, 1, 1) for n in (7, 2, 4)]
    found, count = channel_covariance(batches)
    pixels = np.concatenate([batch.double().permute(1, 0, 2, 3).reshape(3, -1).numpy() for batch in batches], axis=1)
    assert count == 13 * 20
    np.testing.assert_allclose(found, np.cov(pixels, ddof=0), rtol=1e-5, atol=1e-6)


def test_covariance_of_images_whose_mean_is_far_from_zero() -> None:
    found, _ = channel_covariance([1000 + randn(50, 3, 8, 8)])
    np.testing.assert_allclose(found, np.eye(3), atol=0.06)
