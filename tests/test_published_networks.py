"""Networks of torchvision and timm, as the README's table lists them, small ones of each class."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.invert import InversionResult, invert
from pmi_cl.inversion.networks.folding import keeps_statistics
from pmi_cl.inversion.networks.pieces import split_network
from pmi_cl.inversion.objectives import CrossEntropy, StatisticsMatch
from tests.support.foreign_networks import images, torchvision_models
from tests.support.small_networks import randomise_norms

README = Path(__file__).resolve().parents[1] / "README.md"


def of_torchvision(name: str) -> nn.Module:
    """Return a network of a class of torchvision that is built in no time."""
    m: Any = torchvision_models()
    rows = m.mobilenetv3.InvertedResidualConfig
    blocks, scaled = m.efficientnet.MBConvConfig, m.convnext.CNBlockConfig
    build: dict[str, Callable[[], nn.Module]] = {
        "ResNet": lambda: m.ResNet(m.resnet.BasicBlock, [1, 1, 1, 1], num_classes=4),
        "ResNeXt": lambda: m.ResNet(m.resnet.Bottleneck, [1, 1, 1, 1], num_classes=4, groups=8, width_per_group=4),
        "VGG": lambda: small_vgg(m),
        "DenseNet": lambda: m.DenseNet(4, (2, 2), 8, num_classes=4),
        "GoogLeNet": lambda: m.GoogLeNet(4, aux_logits=False, init_weights=False),
        "SqueezeNet": lambda: m.SqueezeNet("1_1", num_classes=4),
        "ShuffleNetV2": lambda: m.ShuffleNetV2([1, 1, 1], [8, 16, 32, 64, 64], num_classes=4),
        "MobileNetV2": lambda: m.MobileNetV2(4, 0.25, [[1, 8, 1, 1], [6, 16, 1, 2]]),
        "MobileNetV3": lambda: m.MobileNetV3(
            [rows(8, 3, 16, 8, True, "RE", 2, 1, 1), rows(8, 3, 16, 8, True, "HS", 1, 1, 1)], 32, num_classes=4
        ),
        "MNASNet": lambda: m.MNASNet(0.1, 4),
        "EfficientNet": lambda: m.EfficientNet(
            [blocks(1, 3, 1, 8, 8, 1, 1, 1), blocks(4, 3, 2, 8, 16, 1, 1, 1)], 0.0, num_classes=4
        ),
        "RegNet": lambda: m.RegNet(
            m.regnet.BlockParams([1, 1], [8, 16], [8, 8], [1.0, 1.0], [2, 2], 0.25), 4, stem_width=8
        ),
        "ConvNeXt": lambda: m.ConvNeXt([scaled(8, 16, 1), scaled(16, None, 1)], num_classes=4),
        "VisionTransformer": lambda: m.VisionTransformer(16, 4, 2, 2, 16, 32, num_classes=4),
        "SwinTransformer": lambda: m.SwinTransformer([2, 2], 8, [2, 2], [1, 2], [2, 2], num_classes=4),
    }
    torch.manual_seed(0)
    return with_weights(build[name]())


def with_weights(model: nn.Module) -> nn.Module:
    """Give norms and classifiers weights as after training; some classifiers begin with zeros."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear) and not layer.weight.any():
            nn.init.normal_(layer.weight, std=0.1)
    return randomise_norms(model)


def small_vgg(m: Any) -> nn.Module:
    """Return a VGG, the parameters of whose first linear layer are not 400 MB."""
    with torch.device("meta"):
        network = m.VGG(nn.Sequential(), init_weights=False)
    network.features = m.vgg.make_layers([8, "M", 16, "M"], batch_norm=True)
    network.classifier[0], network.classifier[3] = nn.Linear(16 * 49, 8), nn.Linear(8, 8)
    network.classifier[6] = nn.Linear(8, 4)
    return network


def of_timm(name: str, **sizes: Any) -> nn.Module:
    """Return a network of timm. Skip the test where there is none of that name."""
    torchvision_models()  # which timm imports
    timm = pytest.importorskip("timm")
    if name not in timm.list_models():
        pytest.skip(f"this timm has no {name}")
    torch.manual_seed(0)
    return with_weights(timm.create_model(name, num_classes=4, **sizes))


def recognised(model: nn.Module, size: int = 32, **parts: Any) -> InversionResult:
    """Invert two labels in two steps, with the statistics where there are any."""
    terms = (CrossEntropy(), *([StatisticsMatch(0.1)] if keeps_statistics(model) else []))
    config = InversionConfig(steps=2, terms=terms)
    return invert(model, image_shape=(3, size, size), labels=torch.arange(2), config=config, **parts)


PIECES = {  # of the small ones
    "ResNet": 5,
    "ResNeXt": 5,
    "VGG": 2,
    "DenseNet": 4,
    "GoogLeNet": 1,
    "ShuffleNetV2": 5,
    "MobileNetV2": 4,
    "MobileNetV3": 4,
    "MNASNet": 10,
    "EfficientNet": 4,
    "RegNet": 3,
    "ConvNeXt": 4,
    "VisionTransformer": 4,
    "SwinTransformer": 4,
}
SIZES = {"VisionTransformer": 16, "SwinTransformer": 16}


@pytest.mark.parametrize("name", PIECES)
def test_a_network_of_torchvision_works_by_itself(name: str) -> None:
    model, size = of_torchvision(name), SIZES.get(name, 32)
    pieces, head = split_network(model, images(2, size))
    assert len(pieces) == PIECES[name] and isinstance(head, nn.Linear)
    result = recognised(model, size)
    assert result.images.shape == (2, 3, size, size)
    losses = result.report.losses[0]["losses"]
    assert losses[1] < losses[0]


TIMM: dict[str, tuple[int, dict[str, Any]]] = {  # by name: the pieces, the sizes
    "resnet10t": (7, {}),
    "test_efficientnet": (6, {}),
    "test_convnext": (6, {}),
    "test_nfnet": (8, {}),
    "test_byobnet": (5, {}),
    "vit_tiny_patch16_224": (1, {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}),
}


@pytest.mark.parametrize("name", TIMM)
def test_a_network_of_timm_works_by_itself(name: str) -> None:
    pieces, sizes = TIMM[name]
    model = of_timm(name, **sizes)
    assert len(split_network(model, images(2))[0]) == pieces
    losses = recognised(model).report.losses[0]["losses"]
    assert losses[1] < losses[0]


def test_the_statistics_of_a_norm_with_its_activation_inside_are_compared() -> None:
    model = of_timm("test_efficientnet")
    norms = sum(isinstance(part, nn.BatchNorm2d) for part in model.modules())
    assert norms > 0 and recognised(model).judged["StatisticsMatch"] > 0


def test_a_squeezenet_says_what_to_give_and_works_with_it() -> None:
    model = of_torchvision("SqueezeNet")
    with pytest.raises(ValueError, match=r"pass pieces=\[\.\.\.\] and head=\.\.\."):
        recognised(model)
    assert recognised(model, pieces=[model.features, nn.Sequential(model.classifier, nn.Flatten())], head=nn.Identity())


def test_a_googlenet_with_its_auxiliary_classifiers_says_what_to_give() -> None:
    with_them = torchvision_models().GoogLeNet(4, init_weights=False).eval()
    with pytest.raises(ValueError, match=r"pass pieces=\[\.\.\.\] and head=\.\.\."):
        split_network(with_them, images(2))


def test_what_cannot_be_traced_says_what_to_give() -> None:
    model = of_timm("vit_tiny_patch16_224", img_size=32, embed_dim=16, depth=1, num_heads=2, dynamic_img_size=True)
    with pytest.raises(ValueError, match=r"cannot be traced.*pass pieces=\[\.\.\.\] and head=\.\.\."):
        recognised(model)


class Detaches(nn.Module):
    """A layer through which no gradient goes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.detach()


def test_a_network_without_a_gradient_says_what_to_give() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Detaches(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))
    with pytest.raises(ValueError, match=r"no gradient goes through.*pass pieces=\[\.\.\.\] and head=\.\.\."):
        recognised(model)


@functools.cache
def listed() -> set[str]:
    """Return the names in the table of the README."""
    table = README.read_text().split("| network | of | what it takes |")[1].split("\n\n")[0]
    return {name for line in table.splitlines()[2:] for name in re.findall(r"`([A-Za-z0-9_]+)`", line.split("|")[1])}


def test_the_table_of_the_readme_lists_what_is_tried_here() -> None:
    assert listed() == {*PIECES, *TIMM, "SqueezeNet"}
