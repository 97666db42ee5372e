"""Presets: which is chosen, what outweighs what, and what a preset file may not hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pmi_cl.errors import UserError
from pmi_cl.help_text import listing
from pmi_cl.registry.catalogue import INSTALLED, Catalogue, entries
from pmi_cl.utils.arguments.command_line import all_specs, resolve
from pmi_cl.utils.arguments.presets import chosen_backbone, decide, presets_of
from tests.support.sample_registry import write_registry

FILE = "models/config/invert_it.yaml"


def decided(
    catalogue: Catalogue, dataset: str, flags: dict[str, str], model: str = "invert_it"
) -> tuple[dict[str, Any], dict[str, str]]:
    entry, data, presets = (
        catalogue.find("model", model),
        catalogue.find("dataset", dataset),
        presets_of(model, catalogue),
    )
    backbone = chosen_backbone(flags, presets, entry, data)
    assert backbone is not None
    return decide(all_specs(entry, data, catalogue.find("backbone", backbone)), flags, presets, entry, data)


def test_each_source_outweighs_the_next(tmp_path: Path) -> None:
    values, sources = decided(write_registry(tmp_path), "seq-hundred", {"lr": "0.5"})
    expected = {
        "lr": (0.5, "flag"),
        "n_epochs": (60, "preset paper (seq-hundred)"),
        "milestones": ((1, 2), "preset paper"),
        "progress": ("1", "preset paper (seq-hundred)"),
        "backbone": ("net-big", "data set"),
        "batch_size": (32, "default"),
        "model_config": ("paper", "default"),
    }
    assert {name: (values[name], sources[name]) for name in expected} == expected


def test_a_method_outweighs_the_data_set_and_a_preset_the_method(tmp_path: Path) -> None:
    catalogue = write_registry(tmp_path)
    values, sources = decided(catalogue, "seq-folder", {}, "prompts")
    assert (values["backbone"], sources["backbone"], values["n_epochs"], sources["n_epochs"]) == (
        "vit-b",
        "method",
        2,
        "method",
    )
    values, sources = decided(catalogue, "seq-folder", {"model_config": "small"}, "prompts")
    assert (values["backbone"], sources["backbone"]) == ("vit:Two-1", "preset small (seq-folder)")
    assert (values["weights"], sources["weights"]) == ("small", "preset small")
    assert (
        decided(catalogue, "seq-folder", {"model_config": "small", "backbone": "vit-b"}, "prompts")[0]["backbone"]
        == "vit-b"
    )


def test_a_preset_outweighs_the_data_set(tmp_path: Path) -> None:
    values, sources = decided(write_registry(tmp_path), "seq-folder", {})
    assert (values["n_epochs"], sources["n_epochs"]) == (1, "preset quick")
    assert (values["start"], sources["start"]) == ("noise", "data set")
    assert values["debug_mode"] is True


def test_yaml_reads_1e_3_as_text_and_it_is_a_number_all_the_same(tmp_path: Path) -> None:
    assert decided(write_registry(tmp_path), "seq-hundred", {})[0]["lr"] == 0.001


def test_none_is_no_preset(tmp_path: Path) -> None:
    values, sources = decided(write_registry(tmp_path), "seq-hundred", {"model_config": "none"})
    assert (values["model_config"], sources["model_config"], values["n_epochs"]) == (None, "flag", 7)


def test_a_method_without_presets_has_its_defaults(tmp_path: Path) -> None:
    values, sources = decided(write_registry(tmp_path), "seq-hundred", {}, model="finetune")
    assert (values["n_epochs"], sources["n_epochs"], values["model_config"]) == (5, "default", None)


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ("papr", "unknown preset 'papr': did you mean paper?"),
        ("wrong-key", f"{FILE}: preset wrong-key: unknown key 'n_epoch': did you mean n_epochs"),
        ("wrong-type", f"{FILE}: preset wrong-type: n_epochs many: it must be a whole number"),
        ("wrong-bound", f"{FILE}: preset wrong-bound: shift 3: it must be between -2 and 2"),
    ],
)
def test_a_preset_that_does_not_fit_is_refused(tmp_path: Path, preset: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        decided(write_registry(tmp_path), "seq-hundred", {"model_config": preset})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("paper: [1, 2", "is not readable as YAML"),
        ("- paper", "write it as 'name: value' lines"),
        ("", "write it as 'name: value' lines"),
        ("paper: 3", "preset paper: write it as"),
        ("paper: {all: 3}", "preset paper, all: write it as"),
        ("paper: {1: {lr: 1}}", "preset paper: write it as"),
        ("paper: {seq-hunderd: {lr: 1}}", "preset paper: unknown section 'seq-hunderd': did you mean seq-hundred"),
        ("{default: {seq-hunderd: paper}, paper: {}}", "default: unknown section 'seq-hunderd'"),
        ("{default: {all: papr}, paper: {}}", "default: unknown preset 'papr': did you mean paper?"),
        ("{default: {all: 1}, paper: {}}", "default: unknown preset '1'"),
        ("{default: {all: [1]}, paper: {}}", "default: unknown preset"),
        ("paper: {all: {lr: 2024-99-99}}", "is not readable as YAML"),
        ("paper: {all: {lr: !!bool abc}}", "line 1: tags (tag:yaml.org,2002:bool) are not read"),
        ("paper: {all: {lr: !own 1}}", "tags (!own) are not read"),
        ("about: x\npaper: {all: &a {lr: 1}}", "line 2: anchors and aliases (&x, *x) are not read"),
        ("paper: {all: {<<: {lr: 1}}}", "merge keys (<<) are not read"),
        ("paper: " + "[" * 20_000 + "]" * 20_000, "more than 10 deep"),
        ("paper: " + "{a: " * 20_000, "more than 10 deep"),
        ("paper: {all: {n_epochs: " + "9" * 5000 + "}}", "is not readable as YAML"),
        ("# " + "x" * 2**20, "it is no file of presets"),
        ("!!python/object/apply:os.getcwd []", "is not readable as YAML"),
        ("{base: gone, paper: {}}", "base gone: name a preset file beside it (gone.yaml) that has no base itself"),
        ("{base: [1], paper: {}}", "base [1]: name a preset file beside it"),
        ("{base: invert_it, paper: {}}", "base invert_it: name a preset file beside it"),
    ],
)
def test_a_preset_file_of_the_wrong_shape_is_refused(tmp_path: Path, text: str, message: str) -> None:
    catalogue = write_registry(tmp_path)
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError) as caught:
        presets_of("invert_it", catalogue)
    assert message in str(caught.value)


def test_a_file_adds_to_the_presets_of_its_base(tmp_path: Path) -> None:
    catalogue = write_registry(tmp_path)
    shared = (
        "{paper: {about: shared, all: {lr: 0.3, n_epochs: 4}, seq-hundred: {lr: 0.2}}, quick: {all: {n_epochs: 1}}}"
    )
    (tmp_path / FILE).with_name("shared.yaml").write_text(shared)
    (tmp_path / FILE).write_text(
        "{base: shared, default: {all: paper}, paper: {all: {n_epochs: 9}, seq-hundred: {batch_size: 8}}, own: {}}"
    )
    found = presets_of("invert_it", catalogue)
    assert list(found.presets) == ["paper", "quick", "own"]
    assert found.presets["paper"].about == "shared"
    assert found.presets["paper"].sections == {
        "all": {"lr": 0.3, "n_epochs": 9},
        "seq-hundred": {"lr": 0.2, "batch_size": 8},
    }
    values, sources = decided(catalogue, "seq-hundred", {})
    assert (values["lr"], values["n_epochs"], values["batch_size"], sources["lr"]) == (
        0.2,
        9,
        8,
        "preset paper (seq-hundred)",
    )


@pytest.mark.parametrize("key", ["model", "dataset", "model_config", "resume"])
def test_what_a_run_is_cannot_stand_in_a_preset(tmp_path: Path, key: str) -> None:
    catalogue = write_registry(tmp_path)
    (tmp_path / FILE).write_text(f"paper: {{all: {{{key}: x}}}}")
    with pytest.raises(UserError, match=f"unknown key '{key}'"):
        decided(catalogue, "seq-hundred", {"model_config": "paper"})


@pytest.mark.parametrize(
    ("model", "preset", "dataset"),
    [
        (model.name, preset, data.name)
        for model in entries("model")
        for preset in presets_of(model.name, INSTALLED).presets
        for data in entries("dataset")
    ],
)
def test_registered_presets_fit_every_data_set(model: str, preset: str, dataset: str) -> None:
    values, _ = decided(INSTALLED, dataset, {"model_config": preset}, model)
    assert values["model_config"] == preset


@pytest.mark.parametrize("model", [entry.name for entry in entries("model")])
def test_registered_presets_say_what_they_are(model: str) -> None:
    assert all(preset.about for preset in presets_of(model, INSTALLED).presets.values())


OWN = [
    ("lr: 0.3\nmilestones: [1, 2]\n", 0.3),
    ("about: mine\nlr: 3e-1\n", 0.3),
    ("default: {all: mine}\nmine: {about: x, all: {lr: 0.3}, seq-folder: {lr: 0.2}}\n", 0.3),
    ("mine: {all: {lr: 0.3}, seq-hundred: {lr: 0.2}}\n", 0.2),
]


@pytest.mark.parametrize(("text", "lr"), OWN)
def test_a_file_of_the_users_own_is_a_preset(
    tmp_path: Path, text: str, lr: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = write_registry(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(text)
    run = resolve(
        ["--model", "invert_it", "--dataset", "seq-hundred", "--model_config", "mine.yaml", "--steps", "7"], catalogue
    )
    assert (run.args.lr, run.args.steps, run.args.model_config) == (lr, 7, "mine.yaml")
    assert (
        run.sources["lr"].startswith("preset mine.yaml") and run.sources["steps"] == "flag" and run.args.n_epochs == 7
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lrr: 1", "mine.yaml: unknown key 'lrr': did you mean lr?"),
        ("lr: fast", "mine.yaml: lr fast: it must be a finite number"),
        ("model: finetune", "mine.yaml: unknown key 'model'"),
        (
            "a: {all: {lr: 1}}\nb: {all: {lr: 1}}",
            "mine.yaml has 2 presets (a, b): leave one, or write 'option: value' lines alone",
        ),
        ("a: {seq-hunderd: {lr: 1}}", "mine.yaml: preset a: unknown section 'seq-hunderd'"),
        ("a: {all: {lr: 0}}", "mine.yaml: lr 0: it must be above 0"),
        ("lr: [1, 2", "mine.yaml is not readable as YAML, line "),
        ("lr: 1\nsteps: 3\nlr: 2", "mine.yaml is not readable as YAML, line 3: the key 'lr' is given twice: keep one"),
        (
            "a: {all: {lr: 1, lr: 2}}",
            "mine.yaml is not readable as YAML, line 1: the key 'lr' is given twice: keep one",
        ),
        ("- lr", "mine.yaml: write it as 'name: value' lines"),
        ("", "mine.yaml: write it as 'name: value' lines"),
        (None, "cannot read mine.yaml (No such file or directory)"),
    ],
)
def test_an_own_file_that_does_not_fit_is_refused(
    tmp_path: Path, text: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = write_registry(tmp_path)
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        resolve(["--model", "invert_it", "--dataset", "seq-hundred", "--model_config", "./mine.yaml"], catalogue)
    assert str(caught.value).startswith(message)


def test_one_broken_preset_file_leaves_the_list_whole(tmp_path: Path) -> None:
    catalogue = write_registry(tmp_path)
    (tmp_path / FILE).write_text("paper: [1, 2")
    text = " ".join(listing(catalogue).split())
    assert "invert_it (broken)" in text and "models/config/invert_it.yaml is not readable as YAML" in text
    assert "prompts small" in text and "unicode string" not in text
