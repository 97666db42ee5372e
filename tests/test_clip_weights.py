"""CLIP weights in all their forms and places: found, loaded as they are, and recorded by a run."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pmi_cl.backbones import clip_tiny, clip_weights
from pmi_cl.backbones.clip_backbones import NAMES
from pmi_cl.backbones.clip_network import MEAN
from pmi_cl.backbones.clip_weights import check_weights
from pmi_cl.backbones.open_clip_library import open_clip_module
from pmi_cl.cli import main
from pmi_cl.registry.catalogue import entries
from tests.support.clip_weight_files import (
    CONFIGS,
    NAMED,
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
    "compiled": lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
    "a compiled tower": lambda state: {name.replace("visual.", "visual._orig_mod."): v for name, v in state.items()},
    "Lightning": lambda state: {
        "epoch": 3,
        "state_dict": {f"model.{name}": value for name, value in state.items()},
        "optimizer_states": [{}],
    },
    "model": lambda state: {"model": state, "optimizer": {}},
    "model_state_dict": lambda state: {"model_state_dict": state, "loss": 0.5},
    "all of them": lambda state: {
        "model": {"state_dict": {f"module._orig_mod.model.{name}": value for name, value in state.items()}}
    },
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
    wrong = ["{", "[" * 100_000, "[]", "{}", '{"model_cfg": 3}']
    wrong += [
        json.dumps({**config, "preprocess_cfg": {"std": std}}) for std in ("abc", [1, 1], [1, 1, 0], 3, ["a"] * 3)
    ]
    for text in wrong:
        (tmp_path / "some/open_clip_config.json").write_text(text)
        assert "open_clip_config.json is damaged" in refusal(args_of(tmp_path / "some"))


def test_check_shows_the_activation_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "zsclip", "--dataset", "seq-digits", "--check", "--backbone", "clip-vit-b-32"]
    for typed, shown in (
        (["--clip_weights", "random"], ["quick", "weights"]),
        (["--clip_weights", "random", "--clip_gelu", "exact"], ["exact", "flag"]),
    ):
        assert main([*words, *typed]) == 0
        (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("clip_gelu")]
        assert row[1:] == shown


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
        ("clip:Tiny-Test", "mine.pt", "auto", False),  # open_clip has it without QuickGELU alone
        ("clip:Twin-Test", "mine.pt", "exact", False),
        ("clip:Twin-Test-quickgelu", "mine.pt", "auto", True),
        ("clip:Tiny-Test-quickgelu", "mine.pt", "auto", True),
        ("clip:Tiny-Test-quickgelu", "openai.pt", "auto", True),
    ],
)
def test_the_activation_is_known_or_told(tmp_path: Path, backbone: str, weights: str, gelu: str, quick: bool) -> None:
    model = TWIN if "Twin" in backbone else TINY
    network = loaded(args_of(written(tmp_path / weights, model=model), backbone, clip_gelu=gelu))
    assert is_quick(network) is quick
    assert check_weights(args_of(tmp_path / weights, backbone, clip_gelu=gelu), NAMED) is quick  # as --check shows it


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_names_under_a_prefix_are_the_same_in_every_form_of_file(tmp_path: Path, ending: str) -> None:
    wrapped = {f"model._orig_mod.{name}": value for name, value in state_of().items()}
    assert holds(loaded(args_of(written(tmp_path / f"a.{ending}", wrapped), clip_gelu="quick")), state_of())


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
        assert clip_weights.published_by_openai(clip_weights.published(model)["openai"]["url"].split("/")[-2])
