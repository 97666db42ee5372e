"""The colour space of real images: its covariance against numpy, and inversions that stay in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pmi_cl.inversion.colour import Colour, channel_covariance
from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.starts import STARTS
from pmi_cl.inversion.statistics import batch_moments
from pmi_cl.seeding import seeded
from tests.test_engine import EVERYTHING, SHAPE, curves, finished, inversion, moments, through_a_file

MIX = torch.tensor([[1.0, 0.9, 0.8], [0.0, 0.3, 0.2], [0.0, 0.0, 0.1]])


def coloured(n: int) -> torch.Tensor:
    return torch.einsum("dc,bdhw->bchw", MIX, torch.randn(n, *SHAPE, generator=seeded(0, n))) + 3.0


@pytest.fixture(scope="module")
def colour() -> Colour:
    return Colour.of(channel_covariance([coloured(40)])[0])


def test_covariance_equals_numpys_over_unequal_batches() -> None:
    batches = [coloured(n) for n in (3, 11, 6)]
    covariance, count = channel_covariance(batches)
    pixels = torch.cat(batches).permute(1, 0, 2, 3).flatten(1).double().numpy()
    np.testing.assert_allclose(covariance, np.cov(pixels, bias=True), rtol=1e-5)
    assert count == pixels.shape[1]


def test_white_channels_become_images_with_the_real_covariance(colour: Colour) -> None:
    white = torch.randn(400, *SHAPE, generator=seeded(1))
    torch.testing.assert_close(channel_covariance([colour.images(white)])[0], MIX.T @ MIX, rtol=0.05, atol=0.02)


def test_channels_are_the_inverse_of_images(colour: Colour) -> None:
    images = coloured(4)
    torch.testing.assert_close(colour.images(colour.channels(images)), images, rtol=1e-3, atol=1e-3)


def test_grey_images_stay_grey() -> None:
    grey = torch.randn(20, 1, 8, 8, generator=seeded(2)).expand(-1, 3, -1, -1)
    colour = Colour.of(channel_covariance([grey])[0])
    images = colour.images(torch.randn(5, *SHAPE, generator=seeded(3)))
    assert (images - images.mean(1, keepdim=True)).abs().max() < 1e-3 * images.abs().max()
    assert bool(torch.isfinite(colour.channels(images)).all())
    torch.testing.assert_close(colour.images(colour.channels(grey)), grey, rtol=1e-3, atol=1e-3)


def test_a_start_with_the_datas_moments_has_them_in_the_images(colour: Colour) -> None:
    images = finished(InversionConfig(start="stats", steps=0), n=300, colour=colour).images()
    measured = batch_moments(images)
    torch.testing.assert_close(measured.mean, moments()[0].mean, rtol=0, atol=0.05)
    torch.testing.assert_close(measured.var, moments()[0].var, rtol=0.05, atol=0)


@pytest.mark.parametrize("start", STARTS)
def test_a_coloured_inversion_lowers_its_loss_and_resumes_bit_for_bit(start: str, colour: Colour) -> None:
    config = replace(EVERYTHING, start=start)  # type: ignore[arg-type]
    whole = finished(config, colour=colour)
    first, second = inversion(config, colour=colour), inversion(config, colour=colour)
    steps = first.run()
    for _ in range(whole.total_steps // 2):
        next(steps)
    second.load(through_a_file(first.state()))
    for _ in second.run():
        pass
    assert torch.equal(second.images(), whole.images()) and curves(second) == curves(whole)
    longer = finished(InversionConfig(start="noise", steps=30), colour=colour).report.losses[-1]["losses"]
    assert longer[-1] < 0.8 * longer[0]
