"""Test files that are not the CLIP weights that were asked for.

They are refused before any work, in one line that says why.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pmi_cl.backbones.open_clip_library import open_clip_module
from tests.support.clip_weight_files import (
    OTHER,
    TINY,
    TWIN,
    args_of,
    holds,
    is_quick,
    loaded,
    refusal,
    state_of,
    written,
)

pytestmark = pytest.mark.usefixtures("tiny_models")

ASKED = "and the network asked for has"
CLASHES = [
    (
        "clip:Tiny-Test",
        "openai.pt",
        "auto",
        f"{ASKED} the exact GELU: say --backbone clip:Tiny-Test-quickgelu or clip-tiny-test",
    ),
    (
        "clip:Tiny-Test-quickgelu",
        "laion_e1.pt",
        "auto",
        f"with the exact GELU, {ASKED} QuickGELU: say --backbone clip:Tiny-Test or",
    ),
    (
        "clip-tiny-test",
        "openai.pt",
        "exact",
        f"'openai' were trained with QuickGELU, {ASKED} the exact GELU: leave --clip_gelu out",
    ),
    ("clip-tiny-test", "mine.pt", "auto", "mine.pt do not say their activation: add --clip_gelu quick"),
    (
        "clip:Twin-Test",
        "mine.pt",
        "auto",
        "mine.pt do not say their activation: say --backbone clip:Twin-Test-quickgelu (OpenAI's, MetaCLIP's, DFN's) "
        "or add --clip_gelu exact",
    ),
    (
        "clip:Tiny-Test",
        "mine.pt",
        "quick",
        "clip:Tiny-Test has the exact GELU; say --backbone clip:Tiny-Test-quickgelu",
    ),
]


@pytest.mark.parametrize(("backbone", "weights", "gelu", "message"), CLASHES)
def test_another_activation_is_refused(tmp_path: Path, backbone: str, weights: str, gelu: str, message: str) -> None:
    model = TWIN if "Twin" in backbone else TINY
    assert message in refusal(args_of(written(tmp_path / weights, model=model), backbone, clip_gelu=gelu))


# Files that are refused.


class Malice:
    """An object whose unpickling makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("way", ["torch", "pickle"])
def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, way: str) -> None:
    mark, path = tmp_path / "mark", tmp_path / "evil.pt"
    content = {**state_of(), "evil": Malice(mark)}
    if way == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps({"evil": Malice(mark)}))
    assert "was refused and nothing in it was run" in refusal(args_of(path, clip_gelu="quick"))
    # The file is not first asked for its activation.
    assert "was refused and nothing in it was run" in refusal(args_of(path))
    assert not mark.exists()


def archive(path: Path, state: dict[str, Tensor]) -> Path:
    """Write a TorchScript archive whose parameters have the names of the state, as OpenAI's has."""

    class Holder(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    top = Holder()
    for name, value in state.items():
        *parents, last = name.split(".")
        module: nn.Module = top
        for part in parents:
            if not hasattr(module, part):
                module.add_module(part, Holder())
            module = getattr(module, part)
        module.register_buffer(last, value)
    torch.jit.script(top).save(str(path))
    return path


def test_a_torchscript_archive_is_read_only_if_openai_published_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archive(tmp_path / "tiny.pt", {**state_of(), "input_resolution": torch.tensor(16)})
    assert "TorchScript archive, which holds code, and not one that OpenAI published" in refusal(args_of(path))
    assert "TorchScript" in refusal(args_of(path, clip_gelu="quick"))
    url = f"http://127.0.0.1:9/{hashlib.sha256(path.read_bytes()).hexdigest()}/tiny.pt"
    monkeypatch.setitem(open_clip_module("pretrained")._PRETRAINED, TINY, {"openai": {"url": url, "quick_gelu": True}})
    network = loaded(args_of(path))
    assert holds(network, state_of()) and is_quick(network) and network.weights_record["tag"] == "openai"


@pytest.mark.parametrize("name", ["tiny.safetensors", "tiny.pt"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.999])
def test_a_truncated_file_is_refused_before_any_work(tmp_path: Path, name: str, part: float) -> None:
    path = written(tmp_path / name)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    assert "truncated or damaged: fetch it again" in refusal(args_of(path, clip_gelu="quick"))


def test_a_changed_byte_in_an_archive_is_seen(tmp_path: Path) -> None:
    path = written(tmp_path / "tiny.pt")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert "truncated or damaged" in refusal(args_of(path, clip_gelu="quick"))


@pytest.mark.parametrize("content", [b"", b"short", b"<!DOCTYPE html><html>no such file</html>", b"\xff" * 300])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tiny.pt"
    path.write_bytes(content)
    assert "is no file of weights" in refusal(args_of(path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for text in ("gone.pt", str(tmp_path / "gone"), "./gone"):
        assert "no file of weights at" in refusal(args_of(text))


@pytest.mark.parametrize("content", [torch.zeros(3), {"a": 1}, {}, [torch.zeros(1)]])
def test_a_file_without_a_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    assert "holds no state dict" in refusal(args_of(written(tmp_path / "a.pt", content), clip_gelu="quick"))


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
def test_weights_of_another_network_are_refused_and_named(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, model=OTHER)
    said = refusal(args_of(path, clip_gelu="quick"))
    assert f"{name} does not fit {TINY} (visual." in said and said.endswith(
        "more); its weights are those of --backbone clip:Other-Test"
    )
    if name == "a.safetensors":
        assert refusal(args_of(path, clip_gelu="quick")) == said


def test_what_differs_is_named(tmp_path: Path) -> None:
    state = state_of()
    state["visual.conv1.weight"] = torch.zeros(32, 3, 2, 2)
    said = refusal(args_of(written(tmp_path / "a.safetensors", state), clip_gelu="quick"))
    assert said.endswith(f"(visual.conv1.weight is 32x3x2x2, not 32x3x4x4); give weights of open_clip's {TINY}")
    lacking = {name: value for name, value in state_of().items() if name != "ln_final.bias"}
    assert "(it lacks ln_final.bias)" in refusal(args_of(written(tmp_path / "b.pt", lacking), clip_gelu="quick"))
    beyond = {**state_of(), "logit_bias": torch.zeros(())}
    assert "(it has logit_bias)" in refusal(args_of(written(tmp_path / "c.pt", beyond), clip_gelu="quick"))
    theirs = {"vision_model.embeddings.class_embedding": torch.zeros(32)}
    assert "in the form of the library transformers" in refusal(
        args_of(written(tmp_path / "d.safetensors", theirs), clip_gelu="quick")
    )


@pytest.mark.parametrize(
    ("weights", "backbone", "message"),
    [
        ("opneai", "clip-tiny-test", "unknown weights of Tiny-Test 'opneai': did you mean openai?"),
        (
            None,
            "clip:Plain-Test",
            "clip:Plain-Test has no weights of its own: say --clip_weights with one of random or a FILE",
        ),
        (None, "clip:Tiny-Test", None),
    ],
)
def test_tags(weights: str | None, backbone: str, message: str | None) -> None:
    said = refusal(args_of(weights, backbone))
    assert said == message if message else "the weights 'laion_e1' of Tiny-Test are not here" in said


# Files that would fill the memory, and numbers that are none.


def bomb(path: Path, part: str, size: int = 1 << 20) -> Path:
    """Write a file of torch.save, compressed, in which one part is a megabyte of zeros."""
    saved = io.BytesIO()
    torch.save(state_of(), saved)
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, bytes(size) if name.endswith(part) else source.read(name))
    return path


@pytest.mark.parametrize("part", ["data.pkl", "/data/0"])
def test_a_compressed_archive_is_not_unpacked(tmp_path: Path, part: str) -> None:
    said = refusal(args_of(bomb(tmp_path / "a.pt", part), clip_gelu="quick"))
    assert "a.pt was refused and nothing in it was read: its part" in said and "is compressed" in said


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path, name: str, value: float) -> None:
    state = state_of()
    state["visual.transformer.resblocks.0.mlp.c_fc.weight"][0, 0] = value
    said = refusal(args_of(written(tmp_path / name, state), clip_gelu="quick"))
    assert said.endswith(
        "holds numbers that are not finite (in visual.transformer.resblocks.0.mlp.c_fc.weight): give other weights"
    )


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_a_prefix_that_is_not_known_is_named(tmp_path: Path, name: str) -> None:
    state = {f"backbone.clip.{own}": value for own, value in state_of().items()}
    said = refusal(args_of(written(tmp_path / name, state), clip_gelu="quick"))
    assert said.endswith("its names begin with 'backbone.clip.': save the state dict of that part alone")
    mixed = {**{f"model.{own}": value for own, value in state_of().items()}, "loss.weight": torch.ones(1)}
    said = refusal(args_of(written(tmp_path / f"mixed-{name}", mixed), clip_gelu="quick"))
    assert said.endswith("its names begin with 'model.': save the state dict of that part alone")


HEADERS = {
    "offsets that are text": {"a": {"dtype": "F32", "shape": [1], "data_offsets": ["0", "4"]}},
    "no header": [],
    "a number": {"a": 3},
    "a negative side": {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
    "another length": {"a": {"dtype": "F32", "shape": [5], "data_offsets": [0, 4]}},
    "no such type": {"a": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}},
}


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_of_safetensors_is_read_with_care(tmp_path: Path, header: str) -> None:
    text = json.dumps(HEADERS[header]).encode()
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    said = refusal(args_of(tmp_path / "a.safetensors", clip_gelu="quick"))
    assert "truncated or damaged: fetch it again" in said or "is no file of weights" in said
