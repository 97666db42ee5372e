"""Test what a backbone's file says of its network against the network itself.

The room that is reserved for samples must be what they take.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from pmi_cl.backbones import clip_fit, clip_tiny
from pmi_cl.backbones.clip_backbones import NAMES
from pmi_cl.backbones.clip_fit import configuration, new_model
from pmi_cl.backbones.clip_network import ClipNetwork
from pmi_cl.backbones.clip_outline import ClipOutline
from pmi_cl.backbones.clip_plan import MODELS, QUICK
from pmi_cl.backbones.clip_weights import outline_of
from pmi_cl.backbones.open_clip_library import tokenizer_of
from pmi_cl.models.host import NullHost
from pmi_cl.models.run_outline import RunOutline
from pmi_cl.registry import catalogue
from pmi_cl.utils.arguments.command_line import resolve
from pmi_cl.utils.run.building import build_model
from pmi_cl.utils.run.preflight import outline_of as outline_of_run
from pmi_cl.utils.run.training import Training
from tests.support.small_runs import CPU, begin, start, tensors_in

ENTRIES = catalogue.entries("backbone")
RESNETS = [entry.name for entry in ENTRIES if entry.constants.get("KIND", "resnet") == "resnet"]
FAMILIES = [name for name in RESNETS if name.endswith(":NAME")]  # test_library_backbones.py
CLIPS = [*MODELS, *(f"clip:{name}" for name in NAMES)]


def test_every_backbone_is_looked_at_here() -> None:
    assert {entry.name for entry in ENTRIES} == {*RESNETS, *MODELS, "clip-tiny", "clip:NAME"}


@pytest.mark.parametrize("side", [16, 32, 36])
@pytest.mark.parametrize("name", [name for name in RESNETS if name not in FAMILIES])
def test_the_outline_of_a_resnet_is_what_is_built(name: str, side: int) -> None:
    entry = catalogue.find("backbone", name)
    outline = entry.load_module().outline(SimpleNamespace(backbone=name))
    network: Any = entry.load()()
    shapes, x = [], torch.zeros(1, 3, side, side)
    for piece in network.pieces():
        shapes.append(tuple(x.shape[1:]))
        x = piece(x)
    assert outline.input_shapes(side) == shapes and outline.feature_dim == network.feature_dim == x.shape[1]
    assert outline.name == name
    assert outline.largest_input(side) == max(channels * height * width for channels, height, width in shapes)


def with_one_block(model: str) -> dict[str, Any]:
    """Return open_clip's configuration of a model, with one block in each tower."""
    found = configuration(model)
    return {**found, **{tower: {**found[tower], "layers": 1} for tower in ("vision_cfg", "text_cfg")}}


@pytest.mark.parametrize("name", [name for name in CLIPS if not name.endswith(QUICK)])  # QuickGELU changes no shape
def test_the_outline_of_a_clip_is_what_is_built(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the device "meta", where nothing is allocated: the largest has five billion parameters.

    An outline does not say how many blocks there are, so one of each tower is built.
    """
    monkeypatch.setattr(clip_fit, "configuration", with_one_block)
    model = MODELS.get(name, name.removeprefix("clip:").removesuffix(QUICK))
    with torch.device("meta"):
        network = ClipNetwork(new_model(model, False), tokenizer_of(model), name=name)
        maps = network.pieces()[0](torch.zeros(1, 3, network.image_size, network.image_size))
        features = network.features_from(maps, 1)
    outline = outline_of(SimpleNamespace(backbone=name, clip_weights="random", clip_gelu="auto"))
    assert outline == network.outline
    assert maps.shape == (1, outline.width, outline.grid, outline.grid)
    assert features.shape == (1, outline.feature_dim)


def test_the_outline_of_clip_tiny_is_what_is_built() -> None:
    assert clip_tiny.outline(SimpleNamespace()) == clip_tiny.clip_tiny(SimpleNamespace()).outline


class WeighingHost(NullHost):
    """Weighs the synthetic samples, finished and under way, at each safe point of a run."""

    def __init__(self) -> None:
        self.most_mib = 0.0
        self.model: Any = None

    def safe_point(self) -> None:
        state = self.model.state()
        kept = [state["buffer"], state["inversion"], state["bank"]]
        storages = {tensor.untyped_storage().data_ptr(): tensor for tensor in tensors_in(kept)}
        self.most_mib = max(self.most_mib, sum(map(mib, storages.values())))


def mib(tensor: Tensor) -> float:
    return tensor.untyped_storage().nbytes() / 2**20


@pytest.mark.parametrize(
    ("method", "backbone", "flags"),
    [
        ("pmi_vpt", "clip-tiny", {"samples_per_class": 40, "inv_batch": 200}),
        ("pmi_vpt", "clip-tiny", {"samples_per_class": 40, "inv_batch": 20, "cfs": 0}),
        ("pmi_rdfcil", "resnet20", {"buffer_images": 400, "inv_start": "pmi", "inv_batch": 400}),
        ("pmi_rdfcil", "resnet20", {"buffer_images": 400, "inv_start": "noise", "inv_batch": 100}),
    ],
)
def test_the_room_for_samples_is_what_they_take(method: str, backbone: str, flags: dict[str, Any]) -> None:
    """Never less than what a run has at any safe point, and not three times as much."""
    sizes = {"n_classes": 4, "n_tasks": 2, "train_per_class": 8, "n_epochs": 1, "cont_epochs": 1}
    sizes |= {"inv_steps": 2, "pmi_steps": 2}
    flags = {"backbone": backbone, **sizes, **flags}
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    run = resolve(["--model", method, "--dataset", "seq-digits", "--model_config", "smoke", *words])
    kind = run.dataset.load()
    estimate = run.model.load().samples_mib(run.args, outline_of_run(run.args, kind, run.backbone.load_module()))
    host, dataset = WeighingHost(), kind(run.args, CPU)
    host.model = model = build_model(run, dataset)
    model.host = host
    training = Training(model, dataset, run.args, host, lambda: None)  # type: ignore[arg-type]
    training.run()
    assert host.most_mib <= estimate <= 3 * host.most_mib


def test_a_network_without_an_outline_is_not_counted_as_the_largest() -> None:
    words = ["--dataset", "seq-cifar100", "--model"]
    clip, resnet = (resolve([*words, method]) for method in ("pmi_vpt", "pmi_rdfcil"))
    unknown = RunOutline(100, 10, None, 32)
    assert clip.model.load().samples_mib(clip.args, unknown) == 0
    images = 4 * 3 * 32**2 * (20000 + 6 * 4000) / 2**20
    assert resnet.model.load().samples_mib(resnet.args, unknown) == pytest.approx(images)


def test_a_b_32_needs_a_quarter_of_a_b_16() -> None:
    outlines = [
        ClipOutline("b-32", 768, 77, lambda texts, length: torch.zeros(0), 7, 512, 224),
        ClipOutline("b-16", 768, 77, lambda texts, length: torch.zeros(0), 14, 512, 224),
    ]
    run = resolve(["--model", "pmi_vpt", "--dataset", "seq-cifar100", "--cfs", "0"])
    small, large = (run.model.load().samples_mib(run.args, RunOutline(100, 10, outline)) for outline in outlines)
    assert 4 * small == pytest.approx(large) and small == pytest.approx(4 * 768 * 49 * (500 + 6 * 20) / 2**20)


def test_a_state_within_the_bare_tower_has_the_pools() -> None:
    """A run may be saved while the blocks are bare. The checkpoint then has the same pools."""
    training = start("pmi_codap", n_classes=4, n_tasks=2, synthetic_last_task=1)
    model: Any = begin(training, 0)
    tasks: list[int] = []
    model.host.safe_point = lambda: tasks.append(model.state()["pool_tasks"])
    model.eval().end_task(training.shown)
    assert tasks and set(tasks) == {1}
