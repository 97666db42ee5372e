"""Test the engine of inversion: what it computes, its starts, its refusals, and that it works."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.engine.descent import NonFiniteInversion
from pmi_cl.inversion.engine.engine import Inversion
from pmi_cl.inversion.engine.problem import Problem, frozen_network
from pmi_cl.inversion.features.statistics import Moments, batch_moments
from pmi_cl.inversion.objectives import CrossEntropy, FeatureMatch, StatisticsMatch, TotalVariation
from pmi_cl.inversion.parts.colour import Colour
from pmi_cl.inversion.starts import STARTS, low_frequency_noise, matched_noise, white_noise
from pmi_cl.inversion.transforms import Transforms
from pmi_cl.inversion.ways.pmi import PmiConfig
from pmi_cl.seeding import seeded
from tests.support.slow_references import hooked_kls
from tests.support.small_inversions import EVERYTHING, FEATURES, SHAPE, finished, inversion, moments
from tests.support.small_networks import trained_on_digits, two_blocks


def naive_batch(number: int, targets: Tensor, steps: int, transforms: Transforms) -> tuple[Tensor, list[float]]:
    """Run full-model inversion by the loop that everybody writes first.

    It has hooks on every BatchNorm and computes in float64.
    """
    network = two_blocks().double()
    x = white_noise((len(targets), *SHAPE), seeded(0, "start", number, -1)).requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.15)
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        features, kls = hooked_kls(_Features(network), transforms(x, 0, number, step).double())
        loss = F.mse_loss(features, targets.double()) + 1.6 * torch.stack(kls).sum()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return x.detach(), losses


class _Features(torch.nn.Module):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network.features(x)


@pytest.mark.parametrize("transforms", [Transforms(), Transforms(roll=2, flip=True, noise=0.1)])
def test_full_model_inversion_equals_the_naive_loop_batch_by_batch(transforms: Transforms) -> None:
    config = InversionConfig(steps=12, batch=4, precision=torch.float64, transforms=transforms)
    whole = inversion(config, n=8)
    losses = [float(progress.loss) for progress in whole.run()]
    assert whole.plan.targets is not None
    for number in range(2):
        rows = slice(4 * number, 4 * number + 4)
        images, expected = naive_batch(number, whole.plan.targets[rows], 12, transforms)
        assert losses[12 * number : 12 * number + 12] == pytest.approx(expected, rel=1e-5)
        torch.testing.assert_close(whole.images()[rows], images, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("spectrum", [0.0, 0.5])
@pytest.mark.parametrize("start", STARTS)
def test_the_loss_falls_from_every_start(start: Any, spectrum: float) -> None:
    config = InversionConfig(
        start=start,
        steps=30,
        spectrum=spectrum,
        pmi=PmiConfig(steps=10),
        terms=(FeatureMatch(), StatisticsMatch(), TotalVariation()),
    )
    whole = finished(config)
    losses = whole.report.losses[-1]["losses"]
    assert losses[-1] < 0.8 * losses[0]
    assert whole.images().shape == (10, *SHAPE) and whole.images().dtype == torch.float32
    assert bool(torch.isfinite(whole.images()).all()) and not whole.images().requires_grad


def test_the_stages_of_each_start() -> None:
    starts: tuple[Any, ...] = STARTS
    stages = {
        start: [e["stage"] for e in finished(replace(EVERYTHING, start=start, batch=10)).report.losses]
        for start in starts
    }
    assert stages["pmi"] == ["layer 2", "layer 1", "layer 0", "full model"]
    assert stages["stem"] == ["layer 0", "full model"]
    assert all(stages[start] == ["full model"] for start in ("noise", "stats", "lowfreq"))


@pytest.mark.parametrize("start", STARTS)
def test_the_seed_decides(start: Any) -> None:
    config = replace(EVERYTHING, start=start)
    first, again, other = (finished(config, seed=seed).images() for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_bfloat16_ends_near_float32() -> None:
    config = InversionConfig(steps=20)
    low, high = (finished(replace(config, precision=dtype)) for dtype in (torch.bfloat16, torch.float32))
    assert low.images().dtype == torch.float32
    assert float(low.report.losses[-1]["losses"][-1]) == pytest.approx(
        float(high.report.losses[-1]["losses"][-1]), rel=0.1
    )


# Starts.


def test_white_noise_is_standard_normal() -> None:
    noise = white_noise((200, 3, 8, 8), seeded(0))
    assert abs(float(noise.mean())) < 0.02 and float(noise.std()) == pytest.approx(1.0, abs=0.02)


def test_matched_noise_has_the_stored_moments() -> None:
    wanted = Moments(torch.tensor([-1.0, 0.0, 3.0]), torch.tensor([0.25, 1.0, 4.0]), 1)
    got = batch_moments(matched_noise((300, 3, 8, 8), wanted, seeded(0)))
    torch.testing.assert_close(got.mean, wanted.mean, rtol=0, atol=0.05)
    torch.testing.assert_close(got.var, wanted.var, rtol=0.05, atol=0)


@pytest.mark.parametrize("size", [(32, 32), (16, 8), (3, 5)])
def test_low_frequency_noise_is_smooth_with_unit_variance(size: tuple[int, int]) -> None:
    noise = low_frequency_noise((100, 3, *size), seeded(0))
    assert noise.shape == (100, 3, *size)
    assert float(noise.std()) == pytest.approx(1.0, abs=1e-4)
    assert float((noise[..., 1:] - noise[..., :-1]).std()) < 0.5


@pytest.mark.parametrize("spectrum", [0.0, 0.5])
@pytest.mark.parametrize("start", ["noise", "stats", "lowfreq"])
def test_without_steps_the_images_are_the_start(start: Any, spectrum: float) -> None:
    images = finished(InversionConfig(start=start, steps=0, schedule="cosine", spectrum=spectrum), n=4).images()
    generator, shape = seeded(0, "start", 0, -1), (4, *SHAPE)
    expected = {
        "noise": lambda: white_noise(shape, generator),
        "stats": lambda: matched_noise(shape, moments()[0], generator),
        "lowfreq": lambda: low_frequency_noise(shape, generator),
    }[start]()
    torch.testing.assert_close(images, expected, rtol=1e-4 if spectrum else 0, atol=1e-5 if spectrum else 0)


@pytest.mark.parametrize("spectrum", [0.0, 0.5])
def test_a_users_start_gives_images_also_where_another_space_is_optimised(spectrum: float) -> None:
    drawn = torch.tensor([1.0, -1.0, 0.5]).view(1, 3, 1, 1).expand(4, *SHAPE)
    config = InversionConfig(
        start=lambda shape, generator: drawn.clone(), steps=0, schedule="cosine", spectrum=spectrum
    )
    mixed = torch.randn(3, 3, generator=seeded(1))
    images = finished(config, n=4, colour=Colour.of(mixed @ mixed.T)).images()
    torch.testing.assert_close(images, drawn, rtol=1e-4, atol=1e-4)


# Refusals.


@pytest.mark.parametrize(
    ("start", "changes", "message"),
    [
        ("noise", {"targets": None, "labels": None}, r"targets .* or labels"),
        ("blue", {}, "unknown start 'blue'.*lowfreq"),
        ("pmi", {"input_moments": None}, "start 'pmi' needs input_moments, one for each of the 3 pieces"),
        ("stats", {"input_moments": None}, "start 'stats' needs input_moments"),
        ("stem", {"input_moments": []}, "start 'stem' needs input_moments"),
        ("pmi", {"targets": None}, "PMI inverts target features"),
        ("noise", {"labels": torch.arange(9)}, "10 targets but 9 labels"),
        ("noise", {"targets": torch.zeros(0, FEATURES), "labels": None}, r"one or more features \(n, d\)"),
        ("noise", {"targets": torch.zeros(10)}, r"not of the shape \(10,\)"),
        ("noise", {"contexts": torch.zeros(10, 3)}, "take no context"),
    ],
)
def test_what_is_missing_is_named(start: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        finished(replace(EVERYTHING, start=start, terms=(CrossEntropy(),)), **changes)


def test_a_network_in_one_piece_has_no_stem() -> None:
    network = torch.nn.Sequential(*two_blocks().pieces())
    config = replace(EVERYTHING, start="stem", terms=(FeatureMatch(),))
    with pytest.raises(ValueError, match="two pieces"):
        frozen = frozen_network([network], None, config, moments()[:1])
        Inversion(Problem(frozen, config, image_shape=SHAPE, targets=torch.zeros(2, FEATURES)))


@pytest.mark.parametrize("changed", [{"lr": 1e30}, {"pmi": PmiConfig(steps=3, lr=1e30)}])
def test_a_loss_that_is_not_finite_names_the_layer(changed: dict[str, Any]) -> None:
    name = "layer 2" if "pmi" in changed else "full model"
    with pytest.raises(NonFiniteInversion, match=name):
        finished(replace(EVERYTHING, start="pmi", **changed))


def test_images_before_the_first_batch_are_refused() -> None:
    with pytest.raises(RuntimeError, match="run"):
        inversion(EVERYTHING).images()


# On a trained network.


@pytest.mark.parametrize("terms", [(FeatureMatch(), StatisticsMatch(0.1)), (CrossEntropy(), StatisticsMatch(0.1))])
def test_a_trained_network_sees_what_was_asked_for(terms: tuple[Any, ...]) -> None:
    """It was asked for by features drawn from class Gaussians, and by labels alone."""
    trained = trained_on_digits()
    network, labels = trained.network, torch.arange(60) % 5
    targets = trained.gaussians.sample(labels, seeded(3)) if isinstance(terms[0], FeatureMatch) else None
    config = InversionConfig(start="lowfreq", steps=40, terms=terms)
    frozen = frozen_network(network.pieces(), network.head, config)
    whole = Inversion(Problem(frozen, config, image_shape=SHAPE, targets=targets, labels=labels))
    for _ in whole.run():
        pass
    logits = network(whole.images())
    assert isinstance(logits, Tensor) and (logits.argmax(1) == labels).float().mean() > 0.9
    if targets is not None:
        assert F.mse_loss(network.features(whole.images()), targets) < 0.1 * targets.var()
