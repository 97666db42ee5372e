"""Networks of torchvision and timm as backbones: what is built, what is refused, whole runs."""

from __future__ import annotations

import copy
import functools
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import pmi_cl
from pmi_cl.backbones import library_network
from pmi_cl.backbones.library_backbones import check
from pmi_cl.backbones.library_network import LibraryNetwork, built, outline_of, with_small_stem
from pmi_cl.backbones.library_outline import LibraryOutline
from pmi_cl.cli import main
from pmi_cl.errors import UserError
from pmi_cl.mammoth.bridge import _entries
from pmi_cl.models.continual_model import ContinualModel
from pmi_cl.models.network_checks import check_outline
from pmi_cl.registry import catalogue
from pmi_cl.seeding import global_seed
from tests.support.command_runs import quick, results_in
from tests.support.foreign_networks import images, torchvision_models
from tests.support.run_figures import same_figures

SHUFFLE, RESNET, GROUPNORM = "torchvision:shufflenet_v2_x0_5", "timm:test_resnet", "timm:test_efficientnet_gn"
NAMES = (SHUFFLE, RESNET, GROUPNORM)


@functools.cache
def network_of(name: str, stem: str = "small") -> LibraryNetwork:
    try:
        with global_seed(0, "network"):
            return built(name, stem)
    except UserError as error:
        assert str(error).startswith("unknown backbone 'timm:test_")
        pytest.skip(f"this timm is older: {error}")


def of_the_library(name: str) -> Any:
    """Return the network of the library, with the weights of :func:`network_of`."""
    with global_seed(0, "network"):
        return library_network._of_library(name)


def library_features(model: Any, name: str, x: torch.Tensor) -> torch.Tensor:
    """Return what the library's network gives below its classifier."""
    if name.startswith("timm:"):
        return model.forward_head(model.forward_features(x), pre_logits=True)
    model.fc = nn.Identity()
    return model(x)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_features_are_those_of_the_library(name: str, training: bool) -> None:
    ours, theirs = copy.deepcopy(network_of(name, "own")), of_the_library(name)
    x = images(4, 64)
    found = ours.train(training).features(x)
    torch.testing.assert_close(found, library_features(theirs.train(training), name, x), rtol=1e-4, atol=1e-5)
    assert found.shape == (4, ours.feature_dim)


@pytest.mark.parametrize("name", NAMES)
def test_the_pieces_compose_and_the_head_grows(name: str) -> None:
    network = network_of(name).eval()
    network.head.tasks = nn.ModuleList()
    for classes in (2, 3):
        network.head.grow(classes, torch.Generator().manual_seed(0))
    x = value = images(2)
    for piece in network.pieces():
        value = piece(value)
    logits, features = network(x, returnt="both")
    assert torch.equal(features, value) and logits.shape == (2, 5)
    assert len(network.pieces()) > 3
    names = {name.partition(".")[0] for name, _ in network.named_parameters()}
    assert names == {"layers", "head"}  # the library's classifier is gone
    assert sum(p.numel() for p in network.head.parameters()) == 5 * network.feature_dim


@pytest.mark.parametrize("name", NAMES)
def test_the_outline_is_what_is_built(name: str) -> None:
    network, outline = network_of(name).eval(), outline_of(name, "small")
    for side in (16, 32):
        shapes, x = [], images(2, side)
        for piece in network.pieces():
            shapes.append(tuple(x.shape[1:]))
            x = piece(x)
        assert outline.input_shapes(side) == shapes
        assert outline.largest_input(side) == max(c * h * w for c, h, w in shapes)
    assert (outline.name, outline.feature_dim) == (name, network.feature_dim)
    assert outline.keeps_statistics == (name != GROUPNORM)


def test_an_outline_leaves_torchs_random_numbers_alone() -> None:
    network_of(RESNET)
    outline_of.cache_clear()
    before = torch.get_rng_state()
    outline_of(RESNET, "small")
    assert torch.equal(torch.get_rng_state(), before)


def small_models() -> dict[str, nn.Module]:
    m: Any = torchvision_models()
    return {
        "resnet": m.ResNet(m.resnet.BasicBlock, [1, 1, 1, 1], num_classes=2),
        "densenet": m.DenseNet(4, (2, 2), 8, num_classes=2),
        "mobilenet": m.MobileNetV2(2, 0.25, [[1, 8, 1, 1], [6, 16, 1, 2]]),
        "vgg": nn.Sequential(m.vgg.make_layers([8, "M", 16, "M"])),
        "alexnet": nn.Sequential(nn.Conv2d(3, 8, 11, stride=4, padding=2), nn.MaxPool2d(3, 2)),
    }


def kernels(model: nn.Module) -> list[tuple[Any, ...]]:
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.MaxPool2d)]
    return [(type(layer).__name__, layer.kernel_size, layer.stride) for layer in layers[:2]]


def test_a_small_stem_keeps_the_size_of_the_image() -> None:
    three, one = (3, 3), (1, 1)
    found = {}
    for name, model in small_models().items():
        with_small_stem(model)
        found[name] = kernels(model)
    assert found["resnet"] == [("Conv2d", three, one), ("Conv2d", three, one)]
    assert found["densenet"] == [("Conv2d", three, one), ("Conv2d", one, one)]
    assert found["mobilenet"][0] == ("Conv2d", three, one)
    for name in ("vgg", "alexnet"):  # of another kind
        assert found[name] == kernels(small_models()[name])


def test_nothing_is_dropped_at_random() -> None:
    model = nn.Sequential(nn.Dropout(0.2), nn.Sequential(nn.Dropout2d(0.5)))
    x = torch.rand(3, 4, 5, 5)
    assert torch.equal(library_network._without_drops(model).train()(x), x)


# what is refused


@pytest.mark.parametrize(
    ("typed", "near"), [("torchvision:resnet81", "torchvision:resnet18"), ("timm:resnte18d", "timm:resnet18d")]
)
def test_a_wrong_name_gets_the_nearest(typed: str, near: str) -> None:
    with pytest.raises(UserError, match=f"^unknown backbone '{typed}': did you mean .*{near}"):
        check(SimpleNamespace(backbone=typed, stem="small"))


def test_a_name_like_no_other_gets_no_list_of_a_thousand() -> None:
    with pytest.raises(UserError) as caught:
        check(SimpleNamespace(backbone="timm:" + "qj" * 20, stem="small"))
    assert len(str(caught.value)) < 200 and "timm.list_models()" in str(caught.value)


@pytest.mark.parametrize("typed", ["timm:", "timm:NAME", "torchvision:a b", "timm:../x"])
def test_what_is_no_name_is_refused_without_torch(typed: str) -> None:
    with pytest.raises(UserError, match=r"write a name of t.* after the colon"):
        catalogue.find("backbone", typed)


def test_names_are_found_as_they_are_spelled_there() -> None:
    assert catalogue.find("backbone", "TORCHVISION:MobileNet-V2").name == "torchvision:mobilenet_v2"


@pytest.mark.parametrize(("library", "module"), [("torchvision", "torchvision.models"), ("timm", "timm")])
def test_a_library_that_is_missing_is_named(library: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=f"^--backbone {library}:x: {library} cannot be imported .* pip install"):
        built(f"{library}:x", "own")


def test_a_network_without_a_linear_classifier_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    monkeypatch.setattr(library_network, "_of_library", lambda name: pool)
    with pytest.raises(UserError, match=r"^--backbone timm:x: its classifier is not one linear layer"):
        built("timm:x", "own")


def test_a_network_that_is_not_its_children_in_order_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Backwards(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.flip(3)) * 2

    network = Backwards(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    monkeypatch.setattr(library_network, "_of_library", lambda name: network)
    with pytest.raises(UserError, match=r"^--backbone timm:x cannot be taken apart into pieces .*: choose another$"):
        built("timm:x", "own")


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("rdfcil", f"--generator_statistics 50 weighs the running statistics of BatchNorms, and {GROUPNORM} has none"),
        ("pmi_rdfcil", "--inv_alpha 0.1 weighs the running statistics of BatchNorms"),
    ],
)
def test_a_method_that_needs_statistics_names_those_that_do_not(
    method: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network_of(GROUPNORM)
    words = ["--dataset", "seq-digits", "--backbone", GROUPNORM, "--inv_alpha", "0.1", "--results_path", str(tmp_path)]
    words = [word for word in words if method == "pmi_rdfcil" or word not in ("--inv_alpha", "0.1")]
    assert main(["--model", method, *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    others = line.rpartition("that needs none: ")[2].split(", ")
    assert message in line and {"sgd", "joint"} <= set(others) and not {"rdfcil", "pmi_rdfcil"} & set(others)
    assert list(tmp_path.iterdir()) == []


def test_images_that_are_too_small_are_refused() -> None:
    outline = LibraryOutline("timm:x", 4, True, (nn.Conv2d(3, 4, 20, device="meta"),))
    check_outline(ContinualModel, SimpleNamespace(), outline, 20)
    with pytest.raises(UserError, match=r"^--backbone timm:x does not take images of 16 pixels \(.*\): choose another"):
        check_outline(ContinualModel, SimpleNamespace(), outline, 16)


# whole runs


@pytest.mark.parametrize("backbone", [RESNET, GROUPNORM])
def test_a_run_resumes_to_the_same_figures_and_its_network_is_used(backbone: str, tmp_path: Path) -> None:
    network_of(backbone)
    whole = quick("sgd", tmp_path, "whole", backbone=backbone)[1]
    part = quick("sgd", tmp_path, "part", backbone=backbone, stop_after=1)[1]
    assert main(["--resume", str(part), "--stop_after", "2"]) == 0
    assert same_figures(results_in(part), results_in(whole))
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    expected = pmi_cl.load(whole).logits(pixels)
    assert expected.shape == (2, 4) and torch.equal(pmi_cl.load(part).logits(pixels), expected)
    assert main(["export", str(whole), "-o", str(tmp_path / "net.safetensors")]) == 0
    assert torch.equal(pmi_cl.load(tmp_path / "net.safetensors").logits(pixels), expected)


@pytest.mark.parametrize(("method", "backbone"), [("pmi_rdfcil", RESNET), ("rdfcil", SHUFFLE)])
def test_methods_that_invert_take_them(method: str, backbone: str, tmp_path: Path) -> None:
    network_of(backbone)
    code, folder = quick(method, tmp_path, "run", backbone=backbone, generator_steps=2, generator_batch=4)
    assert code == 0 and results_in(folder)["class_il"]["last"] >= 0


def test_mammoth_which_needs_names_is_not_offered_the_families() -> None:
    names = {entry.name for entry in _entries("backbone")}
    assert "resnet18" in names and not any(name.endswith(":NAME") for name in names)
