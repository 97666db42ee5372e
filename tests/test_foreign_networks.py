"""The engine on networks that are not ours: taking them apart, inverting them, and leaving them as they were."""

from __future__ import annotations

import copy
import doctest
import functools
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.engine.descent import NonFiniteInversion
from pmi_cl.inversion.engine.stages import InversionStep
from pmi_cl.inversion.invert import invert, judge
from pmi_cl.inversion.networks.frozen import FrozenNetwork
from pmi_cl.inversion.networks.pieces import measure_input_moments, split_network
from pmi_cl.inversion.objectives import CrossEntropy, FeatureMatch, Objective, StatisticsMatch, TotalVariation
from pmi_cl.inversion.starts import STARTS
from pmi_cl.inversion.transforms import Transforms
from pmi_cl.inversion.ways.pmi import PmiConfig
from pmi_cl.seeding import seeded
from tests.support.foreign_networks import (
    PUBLISHED_RESNET32,
    CifarResNet,
    ClassifierOfLayers,
    FlattensInside,
    InAWrapper,
    LayersThenPooling,
    StagesOfLayers,
    cifar_resnet20,
    published_resnet32,
    stages_in_a_row,
    torchvision_models,
)
from tests.support.slow_references import hooked_kls, numpy_moments
from tests.support.small_networks import randomise_norms, trained_on_digits

ROOT = Path(__file__).resolve().parents[1]


def images(n: int = 4, size: int = 32) -> Tensor:
    return torch.randn(n, 3, size, size, generator=seeded(0, n, size))


def torchvision_resnet18() -> nn.Module:
    torch.manual_seed(0)
    return randomise_norms(torchvision_models().resnet18())


def ours() -> nn.Module:
    return trained_on_digits().network


def plain_network() -> nn.Module:
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
    return randomise_norms(nn.Sequential(*layers))


# --- taking apart ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "count"),
    [(cifar_resnet20, 10), (published_resnet32, 16), (torchvision_resnet18, 9), (ours, 10), (plain_network, 1)],
)
def test_pieces_and_head_make_up_the_network(network: Callable[[], nn.Module], count: int) -> None:
    model = network().eval()
    pieces, head = split_network(model, images(2))
    assert len(pieces) == count and head is not None
    value = images()
    for piece in pieces:
        value = piece.eval()(value)
    torch.testing.assert_close(head(value), model(images()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        (LayersThenPooling, 2),
        (StagesOfLayers, 3),
        (FlattensInside, 2),
        (ClassifierOfLayers, 1),
        (InAWrapper, 2),
        (stages_in_a_row, 2),
    ],
)
def test_a_network_of_plain_layers_is_taken_apart_and_inverted(kind: Callable[[], nn.Module], count: int) -> None:
    torch.manual_seed(0)
    model = randomise_norms(kind()).eval()
    pieces, head = split_network(model, images(2, 16))
    assert len(pieces) == count and isinstance(head, nn.Linear)
    with torch.no_grad():
        torch.testing.assert_close(
            head(nn.Sequential(*pieces)(images(4, 16))), model(images(4, 16)), rtol=1e-5, atol=1e-5
        )
        network = FrozenNetwork(pieces, head)
        kls, expected = network(images(4, 16))[1], hooked_kls(model, images(4, 16))[1]
    torch.testing.assert_close(torch.stack(kls), torch.stack(expected), rtol=1e-4, atol=1e-5)
    config = InversionConfig(steps=12, terms=(CrossEntropy(), StatisticsMatch(0.1)))
    losses = invert(model, image_shape=(3, 16, 16), labels=torch.arange(8) % 4, config=config).report.losses[0][
        "losses"
    ]
    assert losses[-1] < losses[0]


def test_pieces_may_be_single_layers() -> None:
    model = plain_network()
    config = InversionConfig(steps=3, terms=(CrossEntropy(), StatisticsMatch(0.1)))
    whole = invert(model, image_shape=(3, 8, 8), labels=torch.arange(4), config=config)
    layers = list(model)
    parts = invert(
        model, image_shape=(3, 8, 8), labels=torch.arange(4), config=config, pieces=layers[:-1], head=layers[-1]
    )
    torch.testing.assert_close(parts.images, whole.images, rtol=1e-3, atol=1e-3)
    assert parts.judged["StatisticsMatch"] > 0


class SwapsColours(nn.Module):
    """Not its children in order: it does something before them."""

    def __init__(self) -> None:
        super().__init__()
        self.network = plain_network()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.flip(1))


class OtherOrder(nn.Module):
    """Its children are listed in another order than they are called."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU())
        self.stem = nn.Conv2d(3, 8, 3)
        self.classifier = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.block(self.stem(x)).amax(dim=(2, 3)))


class PoolsOtherwise(CifarResNet):
    """As registered, but the largest value is taken instead of the mean: untrained, both are 0 on an image of zeros."""

    def __init__(self) -> None:
        super().__init__(1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.bn1(self.conv1(x)).relu())))
        return self.linear(x.amax(dim=(2, 3)))


class TakesTokens(nn.Module):
    """Its children do not take what the ones before give, and say so with an error of their own."""

    class Tokens(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert x.dim() == 3, "tokens (b, t, c) are wanted"
            return x

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.tokens, self.fc = nn.Conv2d(3, 8, 4, stride=4), self.Tokens(), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.tokens(self.patches(x).flatten(2).transpose(1, 2)).mean(dim=1))


@pytest.mark.parametrize("kind", [SwapsColours, OtherOrder, PoolsOtherwise, TakesTokens])
def test_a_network_that_is_not_its_children_in_order_is_refused(kind: type[nn.Module]) -> None:
    labels, config = torch.arange(2), InversionConfig(steps=1, terms=(CrossEntropy(),))
    with pytest.raises(ValueError, match=rf"{kind.__name__} is not its children in order.*pass pieces"):
        invert(kind(), image_shape=(3, 8, 8), labels=labels, config=config)


def test_pieces_given_by_hand_are_used() -> None:
    model = SwapsColours().eval()
    layers = list(model.network.children())

    class Swap(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flip(1)

    pieces, head = [nn.Sequential(Swap(), layers[0], layers[1]), nn.Sequential(*layers[2:5])], layers[5]
    config = InversionConfig(steps=2, terms=(CrossEntropy(), StatisticsMatch()))
    result = invert(model, image_shape=(3, 8, 8), labels=torch.arange(4), config=config, pieces=pieces, head=head)
    assert result.images.shape == (4, 3, 8, 8)


def keep_input(inputs: list[Tensor], module: nn.Module, args: tuple[Tensor]) -> None:
    inputs.append(args[0].detach())


def test_input_moments_equal_numpy_over_all_batches() -> None:
    model = randomise_norms(cifar_resnet20())
    pieces, _ = split_network(model, images(2, 16))
    batches = [images(n, 16) for n in (5, 2, 9)]
    measured = measure_input_moments(pieces, batches)
    caught: list[list[Tensor]] = [[] for _ in pieces]
    for piece, inputs in zip(pieces, caught, strict=True):
        piece.register_forward_pre_hook(functools.partial(keep_input, inputs))
    for batch in batches:
        value = batch
        for piece in pieces:
            value = piece(value)
    for moments, inputs in zip(measured, caught, strict=True):
        mean, var = numpy_moments(inputs)
        np.testing.assert_allclose(moments.mean, mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(moments.var, var, rtol=1e-4)


def test_measuring_moments_leaves_a_training_network_as_it_was() -> None:
    model = cifar_resnet20().train()
    before = copy.deepcopy(model.state_dict())
    measure_input_moments(split_network(model, images(2, 8))[0], [images(4, 8)])
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# --- inverting ------------------------------------------------------------------------------------------------------------------

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
    model = randomise_norms(cifar_resnet20())
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


# --- the user's model -----------------------------------------------------------------------------------------------------------


def facts(model: nn.Module) -> dict[str, object]:
    """All that the engine must leave alone."""
    return {
        "modes": [m.training for m in model.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()],
        "trainable": [p.requires_grad for p in model.parameters()],
        "gradients": [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
        "state": {name: value.tolist() for name, value in model.state_dict().items()},
        "layout": [p.stride() for p in model.parameters()],
    }


def used_network() -> nn.Module:
    """In the midst of its owner's work: one part frozen, one in evaluation mode, gradients and a hook in place."""
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


class ChangesInPlace(nn.Module):
    """What tracing misses: a sum into a tensor that is looked at again."""

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
    """Logits, and something beside them."""

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


# --- what the README shows ------------------------------------------------------------------------------------------------------


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, cwd=ROOT)


def test_torchvision_imports_after_the_shim_called_any_number_of_times() -> None:
    torchvision_models()  # skips where it is not installed
    shim = "from pmi_cl.machine.torchvision_shim import ensure_torchvision as e"
    code = f"{shim}; e(); e(); import torchvision; e(); torchvision.models.resnet18()"
    done = run("-c", code)
    assert done.returncode == 0, done.stderr


def test_the_example_of_the_readme_makes_a_picture(tmp_path: Path) -> None:
    from PIL import Image

    torchvision_models()
    picture = tmp_path / "grid.png"
    size = ["--size", "32", "--steps", "2", "--per-class", "3", "--classes", "0", "7"]
    done = run("examples/invert_your_network.py", *size, "--out", str(picture))
    assert done.returncode == 0, done.stderr
    assert "2 steps" in done.stdout and str(picture) in done.stdout
    with Image.open(picture) as grid:
        assert grid.size == (3 * 32, 2 * 32) and len(set(grid.convert("L").tobytes())) > 20


def test_the_example_takes_any_network_and_its_published_weights(tmp_path: Path) -> None:
    published_resnet32()  # skips where the weights are not at hand
    options = [
        "--network",
        "tests.support.foreign_networks:cifar_resnet32",
        "--weights",
        str(PUBLISHED_RESNET32),
        "--size",
        "16",
    ]
    done = run(
        "examples/invert_your_network.py",
        *options,
        "--steps",
        "40",
        "--per-class",
        "2",
        "--out",
        str(tmp_path / "grid.png"),
    )
    assert done.returncode == 0, done.stderr
    recognised = re.search(r"20 images, 40 steps, .* recognises (\d+) %", done.stdout)
    assert recognised and int(recognised[1]) >= 80


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("my_package.networks:resnet32", "there is no module my_package: give MODULE:FUNCTION of a network of yours"),
        ("tests.support.foreign_networks:resnet99", "write MODULE:FUNCTION, such as"),
        ("tests.support.foreign_networks", "write MODULE:FUNCTION, such as"),
        (":resnet32", "write MODULE:FUNCTION, such as"),
    ],
)
def test_the_example_says_what_is_wrong_with_a_network(network: str, message: str) -> None:
    done = run("examples/invert_your_network.py", "--network", network)
    assert done.returncode == 2 and done.stderr.startswith(f"--network {network}: ") and message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--weights", "gone.pt"], "--weights gone.pt: not the weights of this network (FileNotFoundError"),
        (["--weights", "README.md"], "--weights README.md: not the weights of this network ("),
        (["--classes", "0", "10"], "--classes 10: the network has 10 outputs, give numbers from 0 to 9"),
        (["--out", "nowhere/x.png"], "--out nowhere/x.png: give a file in a folder that exists"),
        (["--out", "x.pgn"], "--out x.pgn: end it with .png"),
        (["--steps", "0"], "give 1 or more"),
    ],
)
def test_the_example_refuses_before_the_work(words: list[str], message: str) -> None:
    done = run(
        "examples/invert_your_network.py",
        "--network",
        "tests.support.foreign_networks:cifar_resnet32",
        "--size",
        "16",
        *words,
    )
    assert done.returncode == 2 and message in done.stderr
    assert done.stderr.count("\n") == 1 and "inverted.png" not in {path.name for path in ROOT.iterdir()}


def test_the_example_of_invert_runs() -> None:
    from pmi_cl.inversion import invert as module

    outcome = doctest.testmod(module)
    assert outcome.attempted == 5 and outcome.failed == 0
