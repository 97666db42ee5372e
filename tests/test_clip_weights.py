"""CLIP's weights: found where they may lie, refused with a reason where they cannot be used, and recorded exactly; with real files."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pmi_cl.backbones import clip_fit, clip_tiny, clip_weights
from pmi_cl.backbones.clip_backbones import NAMES
from pmi_cl.backbones.clip_network import MEAN, ClipNetwork
from pmi_cl.backbones.clip_weights import check_weights
from pmi_cl.backbones.open_clip_library import open_clip_module
from pmi_cl.cli import main
from pmi_cl.errors import UserError
from pmi_cl.registry.catalogue import entries
from tests.support.small_clips import TEXT, VISION

ROOT = Path(__file__).resolve().parent.parent
TINY, OTHER, PLAIN = "Tiny-Test", "Other-Test", "Plain-Test"
NAMED = {f"clip:{name}": name for name in (OTHER, TINY, PLAIN)}
CONFIGS: dict[str, Any] = {
    TINY: {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT},
    OTHER: {"embed_dim": 16, "vision_cfg": {**VISION, "patch_size": 8, "layers": 3}, "text_cfg": TEXT},
    PLAIN: {"embed_dim": 8, "vision_cfg": VISION, "text_cfg": TEXT},
}
TAGS = {
    "openai": {"url": f"http://127.0.0.1:9/{'0' * 64}/tiny.pt", "hf_hub": "someone/tiny.openai/", "quick_gelu": True},
    "laion_e1": {"url": "http://127.0.0.1:9/tiny-laion_e1.pt", "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)},
}


@pytest.fixture(autouse=True)
def tiny_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """open_clip knows three tiny models, one of them with weights; home and the hub's cache are empty; no network is used."""
    factory, pretrained = open_clip_module("factory"), open_clip_module("pretrained")
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", {**factory._MODEL_CONFIGS, **CONFIGS})
    monkeypatch.setitem(pretrained._PRETRAINED, TINY, TAGS)
    monkeypatch.setitem(clip_weights.MODELS, "clip-tiny-test", TINY)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def args_of(weights: str | Path | None, backbone: str = "clip-tiny-test", **changes: Any) -> SimpleNamespace:
    given = {
        "backbone": backbone,
        "clip_weights": weights and str(weights),
        "clip_gelu": "auto",
        "base_path": "data",
        "offline": True,
    }
    return SimpleNamespace(**given | changes)


def state_of(model: str = TINY, seed: int = 1) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return clip_fit.new_model(model, False).state_dict()


def written(path: Path, content: Any = None, model: str = TINY) -> Path:
    """A file of weights: safetensors or torch.save by its ending; random weights where no content is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = state_of(model) if content is None else content
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


def loaded(args: SimpleNamespace) -> ClipNetwork:
    check_weights(args, NAMED)
    return clip_weights.load(args, NAMED)


def refusal(args: SimpleNamespace) -> str:
    """The error of a run that is refused before any work."""
    with pytest.raises(UserError) as caught:
        check_weights(args, NAMED)
    return str(caught.value)


def late_refusal(args: SimpleNamespace) -> str:
    """The error of a run whose weights have to be read to be refused."""
    with pytest.raises(UserError) as caught:
        loaded(args)
    return str(caught.value)


def is_quick(network: ClipNetwork) -> bool:
    return all(type(block.block.mlp.gelu).__name__ == "QuickGELU" for block in [*network.blocks, *network.text_blocks])


def holds(network: ClipNetwork, state: dict[str, Tensor]) -> bool:
    """Whether the first and the last parameters are those of the state."""
    conv, projection = network.image_tower[0].conv.weight, network.text_tower.projection  # type: ignore[union-attr]
    return torch.equal(conv, state["visual.conv1.weight"].float()) and torch.equal(
        projection, state["text_projection"].float()
    )  # type: ignore[arg-type]


# Where weights are found.


@pytest.mark.parametrize("name", ["tiny.safetensors", "tiny.pt", "tiny.pth", "tiny.bin"])
def test_a_file_is_loaded_and_recorded(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name)
    network = loaded(args_of(path, clip_gelu="exact"))
    assert holds(network, state_of()) and not is_quick(network) and not network.training
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert network.weights_record == {
        "name": "clip-tiny-test",
        "model": TINY,
        "tag": None,
        "file": name,
        "sha256": digest,
    }
    assert (network.name, network.weights_record["tag"], network.weights_record["sha256"], network.mean) == (
        "clip-tiny-test",
        None,
        digest,
        MEAN,
    )


FORMS: dict[str, Any] = {
    "checkpoint": lambda state: {"epoch": 32, "state_dict": state},
    "module": lambda state: {f"module.{name}": value for name, value in state.items()},
    "half": lambda state: {name: value.half() for name, value in state.items()},
    "archive": lambda state: {
        **state,
        "logit_scale": state["logit_scale"].reshape(1),
        "context_length": torch.tensor(24),
    },
    "text apart": lambda state: {
        name if name.startswith(("vis", "logit")) else f"text.{name}": value for name, value in state.items()
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_in_which_weights_are_published(tmp_path: Path, form: str) -> None:
    network = loaded(args_of(written(tmp_path / "a.pt", FORMS[form](state_of())), clip_gelu="quick"))
    assert holds(network, FORMS["half"](state_of()) if form == "half" else state_of())
    assert is_quick(network) and network.weights_record["model"] == f"{TINY}-quickgelu"


PLACES = {
    "openai": [
        "data/clip/Tiny-Test-openai.safetensors",
        "data/clip/Tiny-Test-openai.pt",
        "data/clip/Tiny-Test-openai/open_clip_model.safetensors",
        "data/clip/tiny.pt",
        "hub/models--someone--tiny.openai/snapshots/abc/open_clip_pytorch_model.bin",
    ],
    "laion_e1": ["data/clip/Tiny-Test-laion_e1.bin", "home/.cache/clip/tiny-laion_e1.pt"],
}


@pytest.mark.parametrize(("tag", "place"), [(tag, place) for tag, places in PLACES.items() for place in places])
def test_places_where_the_weights_of_a_tag_are_looked_for(tmp_path: Path, tag: str, place: str) -> None:
    path = written(tmp_path / place)
    if place.startswith("hub/"):
        (path.parents[2] / "refs").mkdir()
        (path.parents[2] / "refs" / "main").write_text("abc")
    network = loaded(args_of(tag))
    assert holds(network, state_of()) and (network.weights_record["tag"], network.weights_record["file"]) == (
        tag,
        path.name,
    )
    assert is_quick(network) == (tag == "openai")
    assert network.mean == (MEAN if tag == "openai" else (0.1, 0.2, 0.3))


def test_without_a_word_the_weights_are_openais(tmp_path: Path) -> None:
    written(tmp_path / "data/clip/Tiny-Test-openai.safetensors")
    assert loaded(args_of(None)).weights_record["tag"] == "openai"
    assert loaded(args_of("OpenAI")).weights_record["tag"] == "openai"


def test_a_cached_download_that_broke_off_is_passed_over(tmp_path: Path) -> None:
    written(tmp_path / "home/.cache/clip/tiny.pt")  # its address promises another sha256
    assert "cannot be fetched (--offline 1)" in refusal(args_of("openai"))


def test_a_folder_stands_for_the_file_in_it(tmp_path: Path) -> None:
    written(tmp_path / "some/open_clip_model.safetensors")
    config = {"model_cfg": {"quick_gelu": True}, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}}
    (tmp_path / "some/open_clip_config.json").write_text(json.dumps(config))
    network = loaded(args_of(tmp_path / "some"))
    assert is_quick(network) and network.mean == (0.5, 0.5, 0.5) and network.std == (0.25, 0.25, 0.25)
    (tmp_path / "some/open_clip_config.json").write_text("{")
    assert "open_clip_config.json is damaged" in refusal(args_of(tmp_path / "some"))


def test_a_folder_with_several_files_or_none(tmp_path: Path) -> None:
    for name in ("a.pt", "b.pt"):
        written(tmp_path / "two" / name)
    assert "give a folder with one file of weights; it has a.pt, b.pt" in refusal(args_of(tmp_path / "two"))
    (tmp_path / "empty").mkdir()
    assert "it has none (.safetensors, .bin, .pt, .pth)" in refusal(args_of(tmp_path / "empty"))


def test_random_weights_are_drawn_from_the_global_numbers() -> None:
    torch.manual_seed(1)
    network = loaded(args_of("random", "clip:Tiny-Test"))
    record = {"name": "clip:Tiny-Test", "model": TINY, "tag": "random", "file": None, "sha256": None}
    assert holds(network, state_of(seed=1)) and network.weights_record == record and not is_quick(network)
    assert is_quick(loaded(args_of("random")))  # as the weights that it would have had


def test_the_outline_is_what_will_be_built() -> None:
    outline, network = (
        clip_weights.outline_of(args_of("random", "clip:Tiny-Test")),
        loaded(args_of("random", "clip:Tiny-Test")),
    )
    assert (outline.name, outline.width, outline.context_length) == (
        network.name,
        network.width,
        network.context_length,
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_network_has_an_outline(name: str) -> None:
    outline = clip_weights.outline_of(args_of("random", f"clip:{name}"))
    assert outline.width >= 384 and len(outline.tokenize(["a photo of a cat"])) == 1


# The activation.


@pytest.mark.parametrize(
    ("backbone", "weights", "gelu", "quick"),
    [
        ("clip-tiny-test", "openai.pt", "auto", True),
        ("clip-tiny-test", "openai.pt", "quick", True),
        ("clip-tiny-test", "My-LAION-e1-copy.pt", "auto", False),
        ("clip-tiny-test", "openai/laion_e1.pt", "auto", False),
        ("clip-tiny-test", "mine.pt", "quick", True),
        ("clip:Tiny-Test", "mine.pt", "auto", False),
        ("clip:Tiny-Test-quickgelu", "mine.pt", "auto", True),
        ("clip:Tiny-Test-quickgelu", "openai.pt", "auto", True),
    ],
)
def test_the_activation_is_known_or_told(tmp_path: Path, backbone: str, weights: str, gelu: str, quick: bool) -> None:
    network = loaded(args_of(written(tmp_path / weights), backbone, clip_gelu=gelu))
    assert is_quick(network) is quick


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
        "clip:Tiny-Test",
        "mine.pt",
        "quick",
        "clip:Tiny-Test has the exact GELU; say --backbone clip:Tiny-Test-quickgelu",
    ),
]


@pytest.mark.parametrize(("backbone", "weights", "gelu", "message"), CLASHES)
def test_another_activation_is_refused(tmp_path: Path, backbone: str, weights: str, gelu: str, message: str) -> None:
    assert message in refusal(args_of(written(tmp_path / weights), backbone, clip_gelu=gelu))


# Files that are refused.


class Malice:
    """Pickled, it makes a file when it is loaded."""

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
    assert "was refused and nothing in it was run" in late_refusal(args_of(path, clip_gelu="quick"))
    assert "was refused and nothing in it was run" in refusal(
        args_of(path)
    )  # and is not first asked for its activation
    assert not mark.exists()


def archive(path: Path, state: dict[str, Tensor]) -> Path:
    """A TorchScript archive whose parameters have the names of the state, as OpenAI's has."""

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
    assert "TorchScript" in late_refusal(args_of(path, clip_gelu="quick"))
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
    assert "truncated or damaged" in late_refusal(args_of(path, clip_gelu="quick"))


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
    assert "holds no state dict" in late_refusal(args_of(written(tmp_path / "a.pt", content), clip_gelu="quick"))


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
def test_weights_of_another_network_are_refused_and_named(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, model=OTHER)
    said = late_refusal(args_of(path, clip_gelu="quick"))
    assert f"{name} does not fit {TINY} (visual." in said and said.endswith(
        "more); its weights are those of --backbone clip:Other-Test"
    )
    if name == "a.safetensors":
        assert refusal(args_of(path, clip_gelu="quick")) == said


def test_what_differs_is_named(tmp_path: Path) -> None:
    state = state_of()
    state["visual.conv1.weight"] = torch.zeros(32, 3, 2, 2)
    said = late_refusal(args_of(written(tmp_path / "a.safetensors", state), clip_gelu="quick"))
    assert said.endswith(f"(visual.conv1.weight is 32x3x2x2, not 32x3x4x4); give weights of open_clip's {TINY}")
    lacking = {name: value for name, value in state_of().items() if name != "ln_final.bias"}
    assert "(it lacks ln_final.bias)" in late_refusal(args_of(written(tmp_path / "b.pt", lacking), clip_gelu="quick"))
    beyond = {**state_of(), "logit_bias": torch.zeros(())}
    assert "(it has logit_bias)" in late_refusal(args_of(written(tmp_path / "c.pt", beyond), clip_gelu="quick"))
    theirs = {"vision_model.embeddings.class_embedding": torch.zeros(32)}
    assert "in the form of the library transformers" in late_refusal(
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


# Fetching.


def test_what_is_missing_is_told_with_where_to_get_it_and_where_to_put_it() -> None:
    said = refusal(args_of("openai"))
    assert (
        "the weights 'openai' of Tiny-Test are not here and cannot be fetched (--offline 1): get open_clip_model.safetensors of "
        in said
    )
    assert "/someone/tiny.openai and put it at data/clip/Tiny-Test-openai.safetensors (or .bin, .pt)" in said
    assert said.endswith("or say --clip_weights FILE; --backbone clip-tiny needs no download")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a web server on this machine; it serves the folder ``served``."""
    (tmp_path / "served").mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *words: Any) -> None:
            super().__init__(*words, directory=str(tmp_path / "served"))

        def log_message(self, *words: Any) -> None: ...

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()


def test_weights_are_fetched_once_into_open_clips_cache(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "served/tiny-laion_e1.pt")
    url = f"{server}/tiny-laion_e1.pt"
    monkeypatch.setitem(open_clip_module("pretrained")._PRETRAINED, TINY, {"laion_e1": {"url": url}})
    args = args_of("laion_e1", offline=False)
    assert holds(loaded(args), state_of())
    (tmp_path / "served/tiny-laion_e1.pt").unlink()
    assert holds(loaded(args), state_of())
    assert (tmp_path / "home/.cache/clip/tiny-laion_e1.pt").is_file()


def test_published_weights_are_known_by_their_sha256(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "renamed.bin")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    tags = {
        "other_e2": {"url": "http://127.0.0.1:9/tiny-e2-00000000.pt"},
        "laion_e1": {"url": f"http://127.0.0.1:9/tiny-e1-{digest[:8]}.pt"},
    }
    monkeypatch.setitem(open_clip_module("pretrained")._PRETRAINED, TINY, tags)
    network = loaded(args_of(path))
    assert network.weights_record["tag"] == "laion_e1" and not is_quick(network)


def test_a_server_without_the_file(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(open_clip_module("pretrained")._PRETRAINED, TINY, {"laion_e1": {"url": f"{server}/gone.pt"}})
    assert "cannot be fetched (HTTP Error 404" in late_refusal(args_of("laion_e1", offline=False))


def test_a_server_that_says_nothing_is_given_up_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pmi_cl.backbones.clip_sources.TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/tiny.pt"
        monkeypatch.setitem(open_clip_module("pretrained")._PRETRAINED, TINY, {"laion_e1": {"url": url}})
        started = time.perf_counter()
        assert "are not here and cannot be fetched (" in refusal(args_of("laion_e1", offline=False))
        assert time.perf_counter() - started < 3


def test_the_command_says_it_in_one_line_within_seconds(tmp_path: Path) -> None:
    """A real run without a network: the hub's address leads nowhere."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HOME": str(tmp_path / "hub"),
        "HOME": str(tmp_path),
    }
    words = [
        "--model",
        "zsclip",
        "--dataset",
        "seq-digits",
        "--backbone",
        "clip-vit-b-16",
        "--base_path",
        str(tmp_path / "data"),
        "--results_path",
        str(tmp_path / "runs"),
    ]
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "main.py", *words], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert f"put it at {tmp_path}/data/clip/ViT-B-16-openai.safetensors" in done.stderr
    assert "--clip_weights FILE" in done.stderr and "--backbone clip-tiny" in done.stderr
    assert time.perf_counter() - started < 40  # of which open_clip's import takes most
    assert not (tmp_path / "runs").exists()


# What a run records.


def test_a_run_records_its_weights_and_goes_on_with_the_same_ones_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "--model",
        "vpt",
        "--dataset",
        "seq-digits",
        "--backbone",
        "clip-tiny",
        "--n_epochs",
        "1",
        "--train_per_class",
        "4",
    ]
    words += [
        "--n_classes",
        "4",
        "--n_tasks",
        "2",
        "--num_threads",
        "1",
        "--non_verbose",
        "1",
        "--model_config",
        "none",
    ]
    assert main([*words, "--results_path", str(tmp_path), "--run_name", "one", "--stop_after", "1"]) == 0
    folder = tmp_path / "vpt/seq-digits/one"
    digest = hashlib.sha256(clip_tiny.WEIGHTS.read_bytes()).hexdigest()
    for name in ("args.json", "results.json"):
        found = json.loads((folder / name).read_text())["backbone_weights"]
        assert (found["name"], found["file"], found["sha256"]) == ("clip-tiny", "clip_tiny.safetensors", digest)
    changed = shutil.copy(clip_tiny.WEIGHTS, tmp_path / "clip_tiny.safetensors")
    save_file(
        {name: value + 1 if name == "logit_scale" else value for name, value in load_file(changed).items()}, changed
    )
    monkeypatch.setattr(clip_tiny, "WEIGHTS", changed)
    assert main(["--resume", str(folder), "--stop_after", "2"]) == 2
    assert (
        f"checkpoint.pt was written with backbone_weights {digest[:37]}..., this run has backbone_weights "
        in capsys.readouterr().err
    )


# The names that can be typed.


def test_every_plain_vit_of_open_clip_can_be_named() -> None:
    factory = open_clip_module("factory")
    plain = set()
    for name in factory.list_models():
        config = factory.get_model_config(name)
        vision, text = config["vision_cfg"], config["text_cfg"]
        is_vit = (
            "timm_model_name" not in vision and isinstance(vision["layers"], int) and "multimodal_cfg" not in config
        )
        if is_vit and not any(key.startswith("hf_") for key in text):
            plain.add(name)
    assert plain - set(CONFIGS) == set(NAMES)


def test_the_three_of_their_own_have_openais_weights() -> None:
    named = {entry.name for entry in entries("backbone") if entry.module == "pmi_cl.backbones.clip_backbones"}
    assert named == {"clip-vit-b-16", "clip-vit-b-32", "clip-vit-l-14", "clip:NAME"}
    for backbone in named - {"clip:NAME"}:
        model = clip_weights.MODELS[backbone]
        assert clip_weights.published(model)["openai"]["quick_gelu"]
        assert clip_weights.is_openais(clip_weights.published(model)["openai"]["url"].split("/")[-2])
