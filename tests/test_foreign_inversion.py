"""Test invert() on networks of others.

It finds images that they recognise, judges them rightly, and leaves the model as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.engine.descent import NonFiniteInversion
from pmi_cl.inversion.engine.stages import InversionStep
from pmi_cl.inversion.invert import invert, judge
from pmi_cl.inversion.networks.frozen import FrozenNetwork
from pmi_cl.inversion.networks.pieces import measure_input_moments, split_network
from pmi_cl.inversion.objectives import CrossEntropy, FeatureMatch, Objective, StatisticsMatch, TotalVariation
from pmi_cl.inversion.starts import STARTS
from pmi_cl.inversion.ways.pmi import PmiConfig
from pmi_cl.seeding import seeded
from tests.support.foreign_networks import (
    CifarResNet,
    cifar_resnet20,
    facts,
    images,
    plain_network,
    published_resnet32,
    torchvision_resnet18,
)
from tests.support.slow_references import hooked_kls
from tests.support.small_networks import randomise_norms

BY_LABEL = InversionConfig(start="lowfreq", steps=40, lr=0.2, terms=(CrossEntropy(), StatisticsMatch(0.02)))


@pytest.mark.parametrize("network", [published_resnet32, torchvision_resnet18])
def test_labels_are_inverted_to_images_that_the_network_recognises(network: Callable[[], nn.Module]) -> None:
    model, labels = network(), torch.arange(20) % 10
    result = invert(model, image_shape=(3, 32, 32), labels=labels, config=BY_LABEL)
    losses = result.report.losses[0]["losses"]
    assert losses[-1] < 0.5 * losses[0]
    with torch.no_grad():
        assert (model.eval()(result.images).argmax(1) == labels).float().mean() > 0.9
    assert result.report.images == 20 and result.report.steps == 40


def test_features_of_a_foreign_network_are_inverted_from_every_start() -> None:
    model = randomise_norms(CifarResNet(1))
    pieces, _ = split_network(model, images(2, 16))
    moments = measure_input_moments(pieces, [images(64, 16)])
    with torch.no_grad():
        targets = nn.Sequential(*pieces)(images(12, 16))
    starts: tuple[Any, ...] = STARTS
    for start in starts:
        config = InversionConfig(start=start, steps=8, pmi=PmiConfig(steps=3))
        result = invert(model, image_shape=(3, 16, 16), targets=targets, config=config, input_moments=moments)
        assert result.report.losses[-1]["losses"][-1] < result.report.losses[-1]["losses"][0]


def test_the_judge_equals_the_naive_losses() -> None:
    model, labels = randomise_norms(cifar_resnet20()), torch.arange(20) % 10
    pieces, head = split_network(model, images(2, 16))
    seen = images(20, 16)
    with torch.no_grad():
        targets = torch.randn(20, 64, generator=seeded(5))
        objective = Objective((FeatureMatch(2.0), CrossEntropy(0.5), StatisticsMatch(0.1), TotalVariation(0.01)))
        judged = judge(FrozenNetwork(pieces, head), objective, seen, targets, labels)
        logits, kls = hooked_kls(model, seen)
        features = nn.Sequential(*pieces)(seen)
    expected = {
        "FeatureMatch": 2.0 * float((features - targets).pow(2).mean()),
        "CrossEntropy": 0.5 * float(nn.functional.cross_entropy(logits, labels)),
        "StatisticsMatch": 0.1 * float(torch.stack(kls).sum()),
    }
    for name, value in expected.items():
        assert judged[name] == pytest.approx(value, rel=1e-4)
    assert judged["total"] == pytest.approx(sum(value for name, value in judged.items() if name != "total"))


def test_the_result_is_judged_in_float32_whatever_the_precision() -> None:
    model, labels = randomise_norms(cifar_resnet20()), torch.arange(20) % 10
    config = InversionConfig(steps=3, terms=(CrossEntropy(), StatisticsMatch(0.1)), precision=torch.bfloat16)
    result = invert(model, image_shape=(3, 16, 16), labels=labels, config=config)
    network = FrozenNetwork(*split_network(model, images(2, 16)))
    assert judge(network, Objective(config.terms), result.images, None, labels) == pytest.approx(result.judged)


def test_progress_is_reported_and_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[InversionStep] = []
    config = InversionConfig(steps=3, terms=(CrossEntropy(),))
    invert(plain_network(), image_shape=(3, 8, 8), labels=torch.arange(4), config=config, progress=seen.append)
    assert [(step.stage, step.done, step.total) for step in seen] == [("full model", k, 3) for k in (1, 2, 3)]
    assert capsys.readouterr() == ("", "")


# The user's model.


def used_network() -> nn.Module:
    """Return a network in the midst of its owner's work.

    One part is frozen, one in evaluation mode, gradients and a hook are in place.
    """
    torch.manual_seed(0)
    model = CifarResNet(1)
    model(images(4, 8)).sum().backward()
    model.train()
    model.layer2.eval()
    model.linear.weight.requires_grad_(False)
    model.layer1.register_forward_hook(lambda module, inputs, output: None)
    return model


@pytest.mark.parametrize("lr", [0.15, 1e30])
def test_the_users_model_is_left_as_it_was_also_when_the_inversion_fails(lr: float) -> None:
    model = used_network()
    before = facts(model)
    config = InversionConfig(steps=3, lr=lr, terms=(CrossEntropy(), StatisticsMatch(0.1)))
    try:
        invert(model, image_shape=(3, 8, 8), labels=torch.arange(4), config=config)
        assert lr < 1
    except NonFiniteInversion:
        assert lr > 1
    assert facts(model) == before
