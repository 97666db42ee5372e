"""Test the static reading of methods, data sets and backbones: exact and quick."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import time
from pathlib import Path
from typing import Any

import pytest

from pmi_cl.errors import UserError
from pmi_cl.help_text import listing
from pmi_cl.options import OptionSpec, specs_of
from pmi_cl.registry.catalogue import INSTALLED, KINDS, Catalogue, Entry, entries
from pmi_cl.utils.arguments.presets import presets_of
from pmi_cl.utils.arguments.run_options import RunOptions
from tests.support.sample_registry import write_registry

REGISTERED = [pytest.param(entry, id=f"{kind}-{entry.name}") for kind in KINDS for entry in entries(kind)]


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return write_registry(tmp_path)


def test_lists_every_kind_by_name(catalogue: Catalogue) -> None:
    names = {kind: [entry.name for entry in catalogue.entries(kind)] for kind in KINDS}
    assert names == {
        "model": ["finetune", "invert_it", "prompts"],
        "dataset": ["seq-folder", "seq-hundred"],
        "backbone": ["net-big", "net-small", "vit-b", "vit:NAME"],
    }


def test_summary_is_the_first_line_of_the_docstring(catalogue: Catalogue) -> None:
    assert catalogue.find("model", "finetune").summary == "Plain fine-tuning."
    assert catalogue.find("backbone", "net-small").summary == "A small network."


def test_options_follow_inheritance_across_modules(catalogue: Catalogue) -> None:
    entry = catalogue.find("model", "invert_it")
    assert [spec.name for spec in entry.options] == [
        "lr",
        "n_epochs",
        "batch_size",
        "steps",
        "milestones",
        "start",
        "shift",
        "cfs",
    ]
    by_name = {spec.name: spec for spec in entry.options}
    assert by_name["lr"] == OptionSpec("lr", "float", 0.1, "learning rate", source="paper, Table 1", above=0)
    assert by_name["n_epochs"] == OptionSpec("n_epochs", "int", 7, "other passes", unit="epochs", low=1)
    assert by_name["milestones"] == OptionSpec(
        "milestones", "tuple[int, ...]", (48, 80), "where the rate falls", unit="epochs"
    )
    assert by_name["steps"].optional and by_name["steps"].scalar == "int"


def test_a_class_without_options_has_those_of_its_base(catalogue: Catalogue) -> None:
    assert [spec.name for spec in catalogue.find("model", "finetune").options] == ["lr", "n_epochs", "batch_size"]


def test_constants_are_inherited_literals(catalogue: Catalogue) -> None:
    hundred, folder = (catalogue.find("dataset", name).constants for name in ("seq-hundred", "seq-folder"))
    assert (hundred["N_CLASSES"], hundred["N_TASKS"], hundred["DEFAULTS"], hundred["SIZE"]) == (
        100,
        10,
        {"backbone": "net-big"},
        (32, 32),
    )
    assert "MEAN" not in hundred and "N_CLASSES" not in folder and folder["N_TASKS"] is None


def test_a_backbone_has_the_options_and_constants_of_its_file(catalogue: Catalogue) -> None:
    big, vit = catalogue.find("backbone", "net-big"), catalogue.find("backbone", "vit-b")
    assert (big.options, big.constants["BACKBONES"]) == ((), {"net-big": "big", "net-small": "small"})
    assert [spec.name for spec in vit.options] == ["weights"] and vit.constants["KIND"] == "vit"


@pytest.mark.parametrize("typed", ["vit:One-2", "VIT:one_2"])
def test_a_family_stands_for_its_members(catalogue: Catalogue, typed: str) -> None:
    found = catalogue.find("backbone", typed)
    assert (found.name, found.attribute, [spec.name for spec in found.options]) == ("vit:One-2", "any_vit", ["weights"])


@pytest.mark.parametrize("typed", ["vit:NAME", "vit:One-3", "vit:"])
def test_a_member_that_does_not_exist_gives_the_nearest(catalogue: Catalogue, typed: str) -> None:
    with pytest.raises(UserError, match=f"unknown backbone '{typed}': .*vit:One-2"):
        catalogue.find("backbone", typed)


@pytest.mark.parametrize("typed", ["invert_it", "invert-it", "INVERT_IT", "Invert-It"])
def test_spelling_of_names(catalogue: Catalogue, typed: str) -> None:
    assert catalogue.find("model", typed).name == "invert_it"


@pytest.mark.parametrize(
    ("kind", "typed", "near"), [("model", "finetun", "finetune"), ("dataset", "seq-hunderd", "seq-hundred")]
)
def test_unknown_name_gives_the_nearest(catalogue: Catalogue, kind: str, typed: str, near: str) -> None:
    with pytest.raises(UserError, match=f"unknown {KINDS[kind]} '{typed}'.*{near}"):
        catalogue.find(kind, typed)


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("class A(:\n    NAME = 'a'", r"new\.py:1: "),
        ("NAME = \0", r"new\.py"),
        ("class A:\n    NAME = 'a' * 2", r"new\.py:2: write a literal"),
        ("class A:\n    NAME = 'finetune'", r"'finetune' is taken twice, by .*finetune\.py and .*new\.py: change one"),
        ("class A:\n    NAME = 'Finetune'", r"'Finetune' is taken twice, by .*finetune\.py and .*new\.py: change one"),
        ("class A:\n    NAME = 'a'\n    Options = Missing", r"new\.py:3: Options must name a dataclass"),
        (
            "class O:\n    x: int = 3\nclass A:\n    NAME = 'a'\n    Options = O",
            r"new\.py:2: x: make the field with option",
        ),
        (
            "class O:\n    x: int = option(1 + len('a'), 'h')\nclass A:\n    NAME = 'a'\n    Options = O",
            r"new\.py:2: write a literal",
        ),
        (
            "class O:\n    x: list = option(1, 'h')\nclass A:\n    NAME = 'a'\n    Options = O",
            r"new\.py:2: x: the type list",
        ),
        (
            "class O:\n    x: int = option(1, 'h', lowest=1)\nclass A:\n    NAME = 'a'\n    Options = O",
            r"new\.py:2: .*lowest",
        ),
        (
            "class O:\n    x: int = new_default(1, 's')\nclass A:\n    NAME = 'a'\n    Options = O",
            r"new\.py:2: x: no base class has this option",
        ),
        (
            "@dataclass\nclass B:\n    x: int = option(1, 'h')\n@dataclass\nclass O(B):\n"
            "    x: int = new_default('1', 's')\nclass A:\n    NAME = 'a'\n    Options = O",
            r"new\.py:6: x: the default '1' is no int",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_line_and_stops_nothing_else(
    tmp_path: Path, source: str, fault: str
) -> None:
    catalogue = write_registry(tmp_path)
    before = {entry.name for entry in catalogue.entries("model")}
    catalogue = write_registry(tmp_path)
    (tmp_path / "models" / "new.py").write_text(source)
    left = {entry.name for entry in catalogue.entries("model")}
    ((name, error),) = catalogue.broken["model"].items()
    assert left == before - {name} and re.search(fault, str(error))
    assert name in listing(catalogue)
    with pytest.raises(UserError, match=fault):
        catalogue.find("model", name.upper())


def test_a_broken_file_is_listed_by_the_names_that_it_has(tmp_path: Path) -> None:
    catalogue = write_registry(tmp_path)
    (tmp_path / "models" / "new.py").write_text("class A:\n    NAME = 'one'\nclass B(:\n    NAME: str = 'two_words'\n")
    (tmp_path / "models" / "aaa.py").write_text("class A:\n    NAME = 'finetune'\n")  # before the one that has it
    (tmp_path / "datasets" / "own.py").write_text("class A:\n    NAME = 'seq-own'\n    return return\n")
    (tmp_path / "backbones" / "own.py").write_text(
        "BACKBONES = {'own': 'own', 'wide': 'missing'}\ndef own():\n    pass\n"
    )
    for kind, names in (
        ("model", {"one", "two-words", "finetune"}),
        ("dataset", {"seq-own"}),
        ("backbone", {"own", "wide"}),
    ):
        assert catalogue.entries(kind) and set(catalogue.broken[kind]) == names
    with pytest.raises(UserError, match=r"'finetune' is taken twice, by .*aaa\.py and .*finetune\.py"):
        catalogue.find("model", "finetune")


def test_presets_may_have_a_section_for_a_data_set_whose_file_is_broken(tmp_path: Path) -> None:
    catalogue = write_registry(tmp_path)
    (entry, *_) = catalogue.entries("dataset")
    (tmp_path / "models" / "config" / "finetune.yaml").write_text(f"mine:\n  {entry.name}: {{lr: 0.5}}\n")
    catalogue = Catalogue([tmp_path])
    path = tmp_path / Path(*entry.module.split(".")[1:]).with_suffix(".py")
    path.write_text(path.read_text() + "\n)\n")
    assert entry.name in catalogue.broken["dataset"] or entry.name not in [
        other.name for other in catalogue.entries("dataset")
    ]
    assert list(presets_of("finetune", catalogue).presets) == ["mine"]


def owner_of(entry: Entry) -> Any:
    """Return what holds the options and constants of an entry: its class, or the file of a
    backbone.
    """
    module = importlib.import_module(entry.module)
    return module if entry.kind == "backbone" else getattr(module, entry.attribute)


@pytest.mark.parametrize("entry", REGISTERED)
def test_registered_options_are_read_as_imported(entry: Entry) -> None:
    options_class = getattr(owner_of(entry), "Options", None)
    assert list(entry.options) == (list(specs_of(options_class)) if options_class else [])
    assert not {spec.name for spec in entry.options} & {field.name for field in dataclasses.fields(RunOptions)}


@pytest.mark.parametrize("entry", REGISTERED)
def test_registered_classes_are_read_as_imported(entry: Entry) -> None:
    imported = getattr(importlib.import_module(entry.module), entry.attribute)
    assert entry.summary and entry.summary == inspect.getdoc(imported).partition("\n")[0]
    for constant, value in entry.constants.items():
        assert getattr(owner_of(entry), constant) == value


@pytest.mark.parametrize("name", [entry.name for entry in entries("dataset")])
def test_data_set_defaults_are_options_of_someone(name: str) -> None:
    known = {spec.name for entry in entries("model") for spec in entry.options} | {
        field.name for field in dataclasses.fields(RunOptions)
    }
    own = {spec.name for spec in INSTALLED.find("dataset", name).options}
    assert set(INSTALLED.find("dataset", name).constants.get("DEFAULTS", {})) <= known | own


def test_reading_everything_is_quick() -> None:
    started = time.process_time()
    fresh = Catalogue(INSTALLED.reader.folders)
    count = sum(len(fresh.entries(kind)) for kind in KINDS)
    assert time.process_time() - started < 0.02 * (count + 10)
