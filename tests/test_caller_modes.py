"""invert() under the modes of its caller, with tensors that have a history, and at odd sizes.

All of them give what a plain call gives, or are refused by name. The modes are as before.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.engine.stages import InversionStep
from pmi_cl.inversion.features.statistics import Moments
from pmi_cl.inversion.invert import InversionResult, invert
from pmi_cl.inversion.networks.pieces import measure_input_moments
from pmi_cl.inversion.objectives import (
    CrossEntropy,
    DirectionalTV,
    FeatureMatch,
    StatisticsMatch,
    TotalVariation,
)
from pmi_cl.inversion.parts.colour import Colour
from pmi_cl.inversion.starts import STARTS
from pmi_cl.inversion.transforms import Transforms
from pmi_cl.inversion.ways.pmi import PmiConfig
from pmi_cl.seeding import seeded
from tests.support.foreign_networks import facts, images, plain_network

CONFIG = InversionConfig(
    start="pmi", steps=2, pmi=PmiConfig(steps=2), terms=(FeatureMatch(), CrossEntropy(), StatisticsMatch())
)
CONFIG_BY_LABEL = InversionConfig(steps=1, terms=(CrossEntropy(), StatisticsMatch()))


def targets() -> Tensor:
    return torch.randn(4, 8, generator=seeded(7))


def network_of_layers() -> nn.Sequential:
    """Return always the same small network, without a random number of the caller."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return plain_network()  # type: ignore[return-value]


@functools.cache
def moments() -> list[Moments]:
    """Return the moments of the network's two pieces, measured in no mode but torch's own."""
    network = network_of_layers()
    with torch.autocast("cpu", enabled=False), torch.inference_mode(False):
        return measure_input_moments([network[:3], network[3:5]], [images(8, 8)])


def inverted(**given: Any) -> InversionResult:
    """Invert targets and labels with moments and a colour space, as a caller has them."""
    network = given.pop("network", None) or network_of_layers()
    pieces = [network[:3], network[3:5]]
    arguments = {
        "image_shape": (3, 8, 8),
        "targets": targets(),
        "labels": torch.arange(4),
        "input_moments": moments(),
        "colour": Colour.of(torch.eye(3) + 0.5),
        "config": CONFIG,
        **given,
    }
    return invert(network, pieces=pieces, head=network[5], **arguments)


def modes() -> tuple[object, ...]:
    """Return all of the process that invert() may change while it runs."""
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.get_rng_state().tolist(),
    )


def bfloat16() -> AbstractContextManager[Any]:
    return torch.autocast("cpu", dtype=torch.bfloat16)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, bfloat16])
def test_the_modes_of_the_caller_change_nothing(mode: Callable[[], AbstractContextManager[Any]]) -> None:
    expected = inverted()
    with mode():
        before = modes()
        found = inverted()
        assert modes() == before
    assert torch.equal(found.images, expected.images) and found.judged == expected.judged
    assert not found.images.requires_grad and not found.images.is_inference()


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_the_default_type_of_the_caller_changes_nothing(kind: torch.dtype) -> None:
    network, made = network_of_layers(), targets()
    expected = invert(network, image_shape=(3, 8, 8), targets=made, config=InversionConfig(steps=2))
    torch.set_default_dtype(kind)
    try:
        found = invert(network, image_shape=(3, 8, 8), targets=made, config=InversionConfig(steps=2))
        assert torch.get_default_dtype() == kind
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found.images, expected.images)


def test_the_default_device_of_the_caller_changes_nothing() -> None:
    network, made = network_of_layers(), targets()
    expected = invert(network, image_shape=(3, 8, 8), targets=made, config=InversionConfig(steps=2))
    with torch.device("meta"):
        found = invert(network, image_shape=(3, 8, 8), targets=made, config=InversionConfig(steps=2))
        assert torch.get_default_device().type == "meta"
    assert torch.equal(found.images, expected.images)


def test_tensors_with_a_graph_are_copied() -> None:
    grown = targets().requires_grad_() * 1.0
    expected, found = inverted(), inverted(targets=grown)
    assert torch.equal(found.images, expected.images)
    grown.sum().backward()  # the graph is still the caller's


def test_tensors_and_networks_made_in_inference_mode_are_copied() -> None:
    expected = inverted()
    with torch.inference_mode():
        made = network_of_layers()
        given = {
            "network": made,
            "targets": targets(),
            "labels": torch.arange(4),
            "input_moments": measure_input_moments([made[:3], made[3:5]], [images(8, 8)]),
            "colour": Colour.of(torch.eye(3) + 0.5),
        }
    assert torch.equal(inverted(**given).images, expected.images)


def test_a_network_made_in_inference_mode_is_cut_by_itself_too() -> None:
    with torch.inference_mode():
        network = network_of_layers()
    assert invert(network, image_shape=(3, 8, 8), labels=torch.arange(4), config=CONFIG_BY_LABEL).report.steps == 1


def test_narrow_targets_are_widened() -> None:
    half = targets().half()
    assert torch.equal(inverted(targets=half).images, inverted(targets=half.float()).images)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_targets_that_are_not_finite_are_named_before_the_first_step(value: float) -> None:
    seen: list[InversionStep] = []
    broken = targets()
    broken[1:3, 5] = value
    with pytest.raises(ValueError, match=r"targets must be finite numbers: 2 of 4 hold NaN or infinity.*number 1"):
        inverted(targets=broken, progress=seen.append)
    assert seen == []


class Interrupted(Exception):
    """What a caller raises in the midst of an inversion."""


def interrupt(step: InversionStep) -> None:
    torch.randn(1)
    raise Interrupted


@pytest.mark.parametrize("mode", [nullcontext, torch.no_grad, bfloat16])
def test_all_is_put_back_after_an_exception(mode: Callable[[], AbstractContextManager[Any]]) -> None:
    network = network_of_layers().train()
    network[0].requires_grad_(False)
    network[2].register_forward_hook(lambda module, given, found: None)
    with mode():
        before, left = modes(), facts(network)
        for given in ({"progress": interrupt}, {"targets": targets() * math.nan}, {"image_shape": (1, 8, 8)}):
            with pytest.raises((Interrupted, ValueError)):
                inverted(network=network, **given)
            assert modes() == before and facts(network) == left


def test_a_wrapper_of_torch_is_seen_through() -> None:
    network = network_of_layers()
    expected = invert(network, image_shape=(3, 8, 8), labels=torch.arange(4), config=CONFIG_BY_LABEL)
    found = invert(nn.DataParallel(network), image_shape=(3, 8, 8), labels=torch.arange(4), config=CONFIG_BY_LABEL)
    assert torch.equal(found.images, expected.images)


# Images of one pixel, or of one row.


def any_size() -> nn.Module:
    """Return a network that takes images of any size."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 1)])
@pytest.mark.parametrize("spectrum", [0.0, 0.5])
def test_terms_transforms_and_spectrum_take_the_smallest_images(size: tuple[int, int], spectrum: float) -> None:
    config = InversionConfig(
        start="lowfreq",
        steps=3,
        spectrum=spectrum,
        terms=(CrossEntropy(), StatisticsMatch(0.1), TotalVariation(), DirectionalTV()),
        transforms=Transforms(roll=2, flip=True, noise=0.1),
    )
    for n in (1, 4):
        result = invert(any_size(), image_shape=(3, *size), labels=torch.arange(n), config=config)
        assert result.images.shape == (n, 3, *size) and bool(torch.isfinite(result.images).all())
        assert all(math.isfinite(value) for value in result.judged.values())
        assert (result.judged["TotalVariation"] == 0) == (size == (1, 1))


@pytest.mark.parametrize("start", STARTS)
def test_every_start_takes_a_single_grey_pixel(start: Any) -> None:
    layers = [nn.Conv2d(1, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)]
    pieces = [nn.Sequential(*layers[:2]), nn.Sequential(*layers[2:4])]
    config = InversionConfig(start=start, steps=2, pmi=PmiConfig(steps=2), stem_steps=2, terms=(FeatureMatch(),))
    moments = measure_input_moments(pieces, [torch.randn(8, 1, 1, 1, generator=seeded(0))])
    result = invert(
        nn.Sequential(*layers),
        pieces=pieces,
        head=layers[4],
        image_shape=(1, 1, 1),
        targets=torch.ones(1, 8),
        config=config,
        input_moments=moments,
    )
    assert bool(torch.isfinite(result.images).all())
