"""What invert() refuses before its first step, and how it names what does not fit."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.engine.stages import InversionStep
from pmi_cl.inversion.invert import invert
from pmi_cl.inversion.networks.pieces import split_network
from pmi_cl.inversion.objectives import CrossEntropy, StatisticsMatch
from pmi_cl.inversion.transforms import Transforms
from tests.support.foreign_networks import PoolsOtherwise, facts, images, ours, plain_network


class ChangesInPlace(nn.Module):
    """A network that tracing misses: a sum into a tensor that is looked at again."""

    def forward(self, x: Tensor) -> Tensor:
        kept = x
        x += x.mean()
        return kept + x


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"targets": torch.zeros(4, 1)}, "the targets have 1 values each, the network's features 8"),
        (
            {"targets": torch.zeros(4, 8), "labels": torch.tensor([0, 1, 2, 4])},
            "label 4 is none of the network's 4 classes",
        ),
        (
            {"labels": torch.arange(4), "pieces": [ChangesInPlace(), plain_network()[:5]], "head": None},
            "changes tensors in place",
        ),
    ],
)
def test_what_does_not_fit_is_said_before_the_first_step(given: dict[str, Any], message: str) -> None:
    seen: list[InversionStep] = []
    config = InversionConfig(steps=2, terms=(StatisticsMatch(0.1),))
    with pytest.raises(ValueError, match=message):
        invert(plain_network(), image_shape=(3, 8, 8), config=config, progress=seen.append, **given)
    assert seen == []


def without_statistics(norm: Callable[[int], nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), norm(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


@pytest.mark.parametrize(
    "norm",
    [
        nn.InstanceNorm2d,
        functools.partial(nn.GroupNorm, 2),
        functools.partial(nn.BatchNorm2d, track_running_stats=False),
    ],
)
def test_statistics_are_not_matched_where_there_are_none(norm: Callable[[int], nn.Module]) -> None:
    model, labels = without_statistics(norm), torch.arange(4)
    with pytest.raises(
        ValueError, match=r"StatisticsMatch needs BatchNorms with running statistics.*choose terms without it"
    ):
        invert(
            model,
            image_shape=(3, 8, 8),
            labels=labels,
            config=InversionConfig(steps=1, terms=(CrossEntropy(), StatisticsMatch())),
        )
    config = InversionConfig(steps=1, terms=(CrossEntropy(), StatisticsMatch(0.0)))
    assert invert(model, image_shape=(3, 8, 8), labels=labels, config=config).images.shape == (4, 3, 8, 8)


class GivesTwo(nn.Module):
    """A network that returns logits and something beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.network = plain_network()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.network(x), x


def broken_network() -> nn.Module:
    model = plain_network()
    with torch.no_grad():
        model[0].weight[0] = torch.nan  # type: ignore[index]
    return model


def with_broken_statistics() -> nn.Module:
    model = plain_network()
    model[1].running_mean[0] = torch.nan  # type: ignore[index]
    return model


@pytest.mark.parametrize(
    ("network", "given", "message"),
    [
        (plain_network, {"image_shape": (8, 8)}, r"image_shape=\(8, 8\): give \(channels, height, width\)"),
        (plain_network, {"image_shape": (1, 8, 8)}, r"does not take images of the shape \(1, 8, 8\).*image_shape"),
        (plain_network, {"image_shape": (3, 1, 1)}, r"does not take images of the shape \(3, 1, 1\)"),
        (ours, {"image_shape": (1, 32, 32)}, r"images of the shape \(1, 32, 32\) do not go through pieces and head"),
        (plain_network, {"pieces": []}, "pieces must be one or more modules"),
        (
            plain_network,
            {"pieces": [plain_network()[1], plain_network()[0]]},
            "do not go through pieces and head.*order of the pieces",
        ),
        (plain_network, {"pieces": [plain_network()[0]], "head": nn.ReLU()}, r"must end in features \(n, d\)"),
        (plain_network, {"head": nn.Linear(8, 4)}, "head goes with pieces"),
        (plain_network, {"pieces": [plain_network()[:5]]}, "CrossEntropy needs a network with a classifier"),
        (lambda: plain_network().half(), {}, "weights must be float32, 0.weight is float16: give it .float()"),
        (lambda: plain_network().double(), {}, "weights must be float32, 0.weight is float64: give it .float()"),
        (broken_network, {}, "weights must be finite numbers, 0.weight is not"),
        (with_broken_statistics, {}, r"what Sequential gives for random images of the shape \(3, 8, 8\) is not finite"),
        (GivesTwo, {}, "GivesTwo gives no tensor but a tuple"),
        (lambda: torch.relu, {}, "model must be a torch.nn.Module, not a builtin_function_or_method"),
        (plain_network, {"labels": [0, 1]}, r"labels must be a tensor \(n,\), not a list"),
        (plain_network, {"labels": torch.zeros(2)}, "labels must be whole class numbers, not torch.float32"),
        (
            plain_network,
            {"labels": torch.zeros(2, 2, dtype=torch.long)},
            r"labels must be class numbers \(n,\), not of the shape \(2, 2\)",
        ),
        (plain_network, {"labels": None, "targets": torch.zeros(2, 8)}, "CrossEntropy needs labels"),
        (
            plain_network,
            {"targets": torch.zeros(4, 8, dtype=torch.long)},
            "targets must be a tensor of floating-point features",
        ),
    ],
)
def test_an_argument_that_is_none_is_named(
    network: Callable[[], nn.Module], given: dict[str, Any], message: str
) -> None:
    arguments = {
        "image_shape": (3, 8, 8),
        "labels": torch.arange(4),
        "config": InversionConfig(steps=1, terms=(CrossEntropy(),)),
        **given,
    }
    with pytest.raises(ValueError, match=message):
        invert(network(), **arguments)


def test_labels_may_be_any_whole_numbers() -> None:
    model, config = plain_network(), InversionConfig(steps=2, terms=(CrossEntropy(),))
    made = [
        invert(model, image_shape=(3, 8, 8), labels=torch.arange(4, dtype=kind), config=config)
        for kind in (torch.int64, torch.int32, torch.uint8)
    ]
    assert all(torch.equal(other.images, made[0].images) and other.judged == made[0].judged for other in made)


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ({"steps": 1.5}, "a whole number from 0"),
        ({"steps": -1}, "a whole number from 0"),
        ({"steps": True}, "a whole number from 0"),
        ({"stem_steps": -1}, "a whole number from 0"),
        ({"schedule_steps": 0}, "a whole number from 1"),
        ({"batch": 0}, "a whole number from 1"),
        ({"lr": -1}, "a finite number above 0"),
        ({"lr": "a"}, "a finite number above 0"),
        ({"lr": math.inf}, "a finite number above 0"),
        ({"beta2": 1.0}, "a number from 0 to below 1"),
        ({"spectrum": -0.5}, "a finite number from 0"),
        ({"schedule": "cos"}, "one of constant, cosine, released"),
        ({"direction": "forward"}, "one of"),
        ({"terms": ()}, "a tuple of one or more terms"),
        ({"terms": CrossEntropy(0.1)}, "a tuple of one or more terms"),
        ({"terms": (0.1,)}, "a tuple of one or more terms"),
        ({"transforms": None}, "Transforms"),
        ({"pmi": None}, "PmiConfig"),
        ({"precision": "bf16"}, "torch.float32 or torch.bfloat16"),
    ],
)
def test_a_setting_that_means_nothing_is_named(setting: dict[str, Any], wanted: str) -> None:
    (name,) = setting
    with pytest.raises(ValueError, match=rf"^{name}=.*: give {wanted}"):
        InversionConfig(**setting)


def test_settings_may_be_numbers_of_numpy() -> None:
    config = InversionConfig(steps=np.int64(2), lr=np.float32(0.1), terms=[CrossEntropy()], transforms=Transforms())  # type: ignore[arg-type]
    assert invert(plain_network(), image_shape=(3, 8, 8), labels=torch.arange(4), config=config).report.steps == 2


def test_a_refused_model_is_left_as_it_was() -> None:
    model = PoolsOtherwise().train()
    model.layer1.eval()
    before = facts(model)
    with pytest.raises(ValueError, match="children in order"):
        split_network(model, images(2, 8))
    assert facts(model) == before
