"""R-DFCIL's generator: its size, its output, and each term of its loss against a slow formula."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.errors import UserError
from pmi_cl.inversion.networks.frozen import FrozenNetwork
from pmi_cl.inversion.ways.generator import Generator, GeneratorWeights, diversity, generator_loss, smoothed
from pmi_cl.models.run_outline import RunOutline
from tests.support.slow_references import hooked_kls
from tests.support.small_networks import two_blocks
from tests.support.small_runs import start


@pytest.fixture(autouse=True)
def original_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what ``small_generator`` does for all tests."""
    monkeypatch.setattr(Generator, "NOISE", 1000)
    monkeypatch.setattr(Generator, "WIDTH", 128)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def parameters(generator: nn.Module) -> int:
    return sum(parameter.numel() for parameter in generator.parameters())


@pytest.mark.parametrize(("side", "millions"), [(32, 8.42), (64, 8.57)])
def test_the_size_of_the_original(side: int, millions: float) -> None:
    assert round(parameters(Generator((side, side))) / 1e6, 2) == millions


def test_the_layers_of_the_original() -> None:
    """Linear to 128 maps of 8 x 8, twice (up, convolution, BatchNorm, LeakyReLU 0.2), convolution,
    Tanh.

    The BatchNorms have eps 0.8 (R-DFCIL's code).
    """
    layers = list(Generator((32, 32)).layers)
    kinds = [
        nn.BatchNorm2d,
        *[nn.Upsample, nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU] * 2,
        nn.Conv2d,
        nn.Tanh,
        nn.BatchNorm2d,
    ]
    assert [type(layer) for layer in layers] == kinds
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size, c.bias is not None) for c in convolutions] == [
        (128, 128, (3, 3), True),
        (128, 64, (3, 3), True),
        (64, 3, (3, 3), True),
    ]
    norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
    assert [norm.eps for norm in norms[1:-1]] == [0.8, 0.8] and norms[0].eps == norms[-1].eps == 1e-5
    assert all(norm.momentum == 0.1 for norm in norms) and not norms[-1].affine
    assert all(layer.negative_slope == 0.2 for layer in layers if isinstance(layer, nn.LeakyReLU))
    assert all(layer.mode == "nearest" for layer in layers if isinstance(layer, nn.Upsample))


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (32, 32), (28, 28), (64, 64), (16, 32), (12, 20)])
def test_any_size_of_image(size: tuple[int, int]) -> None:
    with torch.no_grad():
        assert Generator(size)(randn(2, 1000)).shape == (2, 3, *size)


def test_images_have_zero_mean_and_unit_variance() -> None:
    images = Generator((16, 16))(randn(24, 1000)).detach()
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(images.var((0, 2, 3), unbiased=False), torch.ones(3), atol=1e-2, rtol=0)


def test_evaluation_mode_makes_every_image_alone() -> None:
    generator = Generator((16, 16))
    with torch.no_grad():
        for step in range(3):
            generator(randn(16, 1000, seed=step))
        generator.eval()
        before = {name: value.clone() for name, value in generator.state_dict().items()}
        z = randn(8, 1000, seed=9)
        torch.testing.assert_close(generator(z)[:1], generator(z[:1]), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())


@pytest.mark.parametrize("classes", [2, 5, 40])
def test_diversity_against_a_loop(classes: int) -> None:
    logits = 3 * randn(6, classes).double()
    mean = [0.0] * classes
    for row in logits.tolist():
        total = sum(math.exp(value) for value in row)
        for c, value in enumerate(row):
            mean[c] += math.exp(value) / total / 6
    entropy = -sum(p * math.log(p) for p in mean)
    assert float(diversity(logits)) == pytest.approx(1 - entropy / math.log(classes), rel=1e-9)


def test_diversity_is_zero_for_equal_shares_and_one_for_a_single_class() -> None:
    assert float(diversity(50 * torch.eye(4))) == pytest.approx(0, abs=1e-6)
    collapsed = torch.zeros(8, 4)
    collapsed[:, 2] = 80
    assert float(diversity(collapsed)) == pytest.approx(1, abs=1e-6)


def test_diversity_of_a_network_with_one_class_is_a_constant() -> None:
    logits = randn(4, 1).requires_grad_()
    value = diversity(logits)
    value.backward()
    assert value.item() == 1 and logits.grad is not None and not logits.grad.any()


def test_the_smoothing_kernel() -> None:
    """Taps of sigma sqrt(2) are seen in the image of a single bright pixel (R-DFCIL's code)."""
    taps = np.array([0.1117, 0.2365, 0.3036, 0.2365, 0.1117])
    point = torch.zeros(1, 2, 11, 11)
    point[0, 0, 5, 5] = 1
    found = smoothed(point)[0]
    np.testing.assert_allclose(found[0, 3:8, 3:8], np.outer(taps, taps), atol=5e-5)
    assert float(found[0].sum()) == pytest.approx(1, abs=1e-6)
    assert not found[1].any()  # channels do not mix


def test_smoothing_against_a_loop_with_mirrored_borders() -> None:
    image = randn(1, 1, 6, 7)[0, 0].double().numpy()
    weights = np.exp(-((np.arange(5) - 2) ** 2) / 4)
    weights = np.outer(weights, weights) / weights.sum() ** 2
    mirrored = np.pad(image, 2, mode="reflect")
    expected = [
        [(mirrored[row : row + 5, column : column + 5] * weights).sum() for column in range(7)] for row in range(6)
    ]
    np.testing.assert_allclose(smoothed(torch.from_numpy(image)[None, None])[0, 0], expected, atol=1e-6)


def test_the_loss_is_the_sum_of_its_four_terms() -> None:
    """The statistics come from hooks on the network itself.

    They are KL(real || synthetic), averaged over the BatchNorms (R-DFCIL's code).
    """
    network = two_blocks()
    images = randn(12, 3, 8, 8)
    weights = GeneratorWeights(temperature=7.0, smoothness=0.3, statistics=11.0)
    with torch.no_grad():
        logits, kls = hooked_kls(network, images, "real_to_synthetic")
        expected = (
            F.cross_entropy(logits / 7, logits.argmax(1))
            + diversity(logits)
            + 0.3 * ((images - smoothed(images)) ** 2).mean()
        ) + 11 * sum(float(kl) for kl in kls) / len(kls)
        frozen = FrozenNetwork(network.pieces(), network.head, direction="real_to_synthetic")
        found = generator_loss(frozen, images, weights)
    assert len(kls) == 5
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_weights_of_the_original() -> None:
    assert GeneratorWeights() == GeneratorWeights(temperature=1000.0, smoothness=1e-3, statistics=50.0)


def test_training_it_lowers_the_loss() -> None:
    network = two_blocks()
    frozen = FrozenNetwork(network.pieces(), network.head, direction="real_to_synthetic")
    torch.manual_seed(0)
    generator = Generator((8, 8))
    optimizer = torch.optim.Adam(generator.parameters(), lr=1e-3)
    losses = []
    for step in range(15):
        loss = generator_loss(frozen, generator(randn(16, 1000, seed=step)), GeneratorWeights())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


@pytest.mark.parametrize(("side", "fits"), [(16, True), (28, True), (32, True), (224, True), (33, False), (101, False)])
def test_sizes_that_no_generator_reaches_by_doubling_are_refused(side: int, fits: bool) -> None:
    run = start("rdfcil")
    with (
        contextlib.nullcontext() if fits else pytest.raises(UserError, match=f"rdfcil cannot make images of {side} pi")
    ):
        type(run.model).check(run.model.args, RunOutline(6, 3, None, side))
