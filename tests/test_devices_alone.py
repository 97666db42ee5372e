"""Test the data sets, ``invert()`` and the engine on a pretended GPU.

They give the numbers of the CPU, wherever their arguments are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pmi_cl.datasets import placement
from pmi_cl.datasets.input_form import InputForm
from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.engine.engine import Inversion
from pmi_cl.inversion.engine.problem import Problem, frozen_network
from pmi_cl.inversion.invert import InversionResult, invert
from pmi_cl.inversion.networks.pieces import measure_input_moments
from pmi_cl.inversion.objectives import CrossEntropy, StatisticsMatch, TotalVariation
from pmi_cl.inversion.parts.colour import Colour, channel_covariance
from pmi_cl.inversion.starts import STARTS
from pmi_cl.inversion.transforms import Transforms
from pmi_cl.inversion.ways.pmi import PmiConfig
from pmi_cl.registry import catalogue
from pmi_cl.seeding import seeded
from pmi_cl.utils.arguments.command_line import resolve
from tests.support.hot_steps import watched
from tests.support.pretend_device import GPU, PretendGpu, on_cpu, on_gpu
from tests.support.small_networks import two_blocks
from tests.support.small_runs import words_of


@pytest.mark.parametrize("share", [placement.SHARE, 0], ids=["on the device", "too large for it"])
@pytest.mark.parametrize("form", [None, InputForm(20, (0.5,) * 3, (0.3,) * 3, augment="crop")], ids=["plain", "form"])
def test_batches_are_those_of_the_cpu(monkeypatch: pytest.MonkeyPatch, share: float, form: InputForm | None) -> None:
    args = resolve(words_of("sgd", train_per_class=20)).args
    kind = catalogue.load("dataset", "seq-digits")
    plain = kind(args, "cpu")
    monkeypatch.setattr(placement, "SHARE", share)
    with PretendGpu() as gpu:
        there = kind(args, GPU)
        assert there.train.images.device == (GPU if share else torch.device("cpu"))
        if form is not None:
            plain.present_as(form)
            there.present_as(form)
        expected = [*plain.train_batches(1, 0, 8), *plain.plain_batches(0, "test", 8)]
        found = [*there.train_batches(1, 0, 8), *there.plain_batches(0, "test", 8)]
        assert all(tensor.device == GPU for batch in found for tensor in batch)
        batches = there.train_batches(1, 1, 8)
        next(batches)
        before = gpu.waits.copy()
        next(batches)
        assert gpu.waits == before
    # A GPU resizes floats, the CPU bytes: within two grey levels of the right one each.
    grey = 0.0 if form is None else 4 / 255 / 0.3
    torch.testing.assert_close(on_cpu(found), expected, rtol=0, atol=grey)


CONFIG = InversionConfig(
    steps=3,
    batch=4,
    stem_steps=2,
    keep_best=True,
    spectrum=0.5,
    transforms=Transforms(roll=1, flip=True, noise=0.1),
    terms=(CrossEntropy(0.5), StatisticsMatch(0.1), TotalVariation(0.1)),
    pmi=PmiConfig(steps=3, boost=True),
)


def inverted(
    network: Any, real: Tensor, targets: Tensor | None, labels: Tensor, config: InversionConfig
) -> InversionResult:
    """Call ``invert()``. Labels and targets may be on any device."""
    moments, colour = measure_input_moments(network.pieces(), [real]), Colour.of(channel_covariance([real])[0])
    parts = {"pieces": network.pieces(), "head": network.head, "input_moments": moments, "colour": colour}
    return invert(network, image_shape=(3, 8, 8), targets=targets, labels=labels, config=config, **parts)


@pytest.mark.parametrize("move", [on_cpu, on_gpu], ids=["targets on the CPU", "targets on the device"])
@pytest.mark.parametrize("begin", STARTS)
def test_a_network_of_ones_own_is_inverted(begin: str, move: Callable[[Any], Any]) -> None:
    network, config = two_blocks(), replace(CONFIG, start=begin)
    real, labels = torch.randn(9, 3, 8, 8, generator=seeded(0, "real")), torch.arange(7) % 3
    targets = torch.randn(7, 32, generator=seeded(0, "targets"))
    plain = inverted(network, real, targets, labels, config)
    with PretendGpu() as gpu, watched(gpu) as waits:
        there = inverted(two_blocks().to(GPU), real.to(GPU), move(targets), move(labels), config)
        assert there.images.device == GPU
    assert torch.equal(on_cpu(there.images), plain.images) and there.judged == plain.judged
    assert waits == {}


@pytest.mark.parametrize("move", [on_cpu, on_gpu], ids=["read to the CPU", "read to the device"])
@pytest.mark.parametrize("stop", [2, 11, 17])
def test_an_inversion_goes_on_wherever_its_state_was_read_to(stop: int, move: Callable[[Any], Any]) -> None:
    real, targets = (
        torch.randn(9, 3, 8, 8, generator=seeded(0, "real")),
        torch.randn(4, 32, generator=seeded(0, "targets")),
    )
    terms = (StatisticsMatch(0.1), TotalVariation(0.1))

    def engine(network: Any, value: Tensor) -> Inversion:
        moments = measure_input_moments(network.pieces(), [value])
        config = replace(CONFIG, start="pmi", terms=terms)
        frozen = frozen_network(network.pieces(), network.head, config, moments)
        return Inversion(Problem(frozen, config, image_shape=(3, 8, 8), targets=targets))

    plain = engine(two_blocks(), real)
    list(plain.run())
    with PretendGpu():
        network = two_blocks().to(GPU)
        first, second = engine(network, real.to(GPU)), engine(network, real.to(GPU))
        for _, _step in zip(range(stop), first.run(), strict=False):
            pass
        second.load(move(first.state()))
        list(second.run())
    assert torch.equal(on_cpu(second.images()), plain.images())
