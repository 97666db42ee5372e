"""Test what the registry reads in any folder and through any import.

What it cannot read it refuses by name and line.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pmi_cl.errors import UserError
from pmi_cl.help_text import listing
from pmi_cl.registry.catalogue import INSTALLED, Catalogue
from pmi_cl.registry.extensions import Extension
from pmi_cl.utils.arguments.presets import presets_of
from tests.support.forked_python import run_python
from tests.support.sample_registry import write_registry

ROOT = Path(__file__).resolve().parent.parent
INHERITED = ["lr", "n_epochs", "batch_size"]


def registry_with(folder: Path, name: str, source: str) -> Catalogue:
    """The sample registry with one file more, ``models/<name>``."""
    catalogue = write_registry(folder)
    path = folder / "models" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")
    return catalogue


@pytest.mark.parametrize(
    ("imported", "base"),
    [
        ("import pmi_cl.models.finetune", "pmi_cl.models.finetune.Base"),
        ("import pmi_cl.models.finetune as f", "f.Base"),
        ("from pmi_cl.models import finetune", "finetune.Base"),
        ("from pmi_cl import models", "models.finetune.Base"),
        ("from pmi_cl.models.finetune import Base as B", "B"),
        ("from .finetune import Base", "Base"),
        ("from . import finetune", "finetune.Base"),
        ("from typing import Generic\nfrom pmi_cl.models.finetune import Base", "Base, Generic[int]"),
    ],
)
def test_a_base_class_is_found_through_every_import(tmp_path: Path, imported: str, base: str) -> None:
    catalogue = registry_with(tmp_path, "new.py", f"{imported}\nclass New({base}):\n    NAME = 'new'\n")
    assert [spec.name for spec in catalogue.find("model", "new").options] == INHERITED


def test_a_base_class_is_found_through_re_exports_and_folders(tmp_path: Path) -> None:
    catalogue = registry_with(tmp_path, "a/b/base.py", "class Root:\n    NAME = ''\n    JOINT = True\n")
    (tmp_path / "models/a/b/__init__.py").write_text("from .base import Root as Top\n")
    (tmp_path / "models/short.py").write_text("from pmi_cl.models.a.b import Top\n__all__ = ['Top']\n")
    (tmp_path / "models/a/x.py").write_text("from pmi_cl.models.short import Top\nclass X(Top):\n    NAME = 'x'\n")
    assert catalogue.find("model", "x").constants["JOINT"] is True


def test_a_class_may_have_the_name_of_its_base(tmp_path: Path) -> None:
    source = "from pmi_cl.models.finetune import Base\nclass Base(Base):\n    NAME = 'new'\n"
    catalogue = registry_with(tmp_path, "new.py", source)
    assert [spec.name for spec in catalogue.find("model", "new").options] == INHERITED


def test_own_methods_stay_importable_under_their_old_path() -> None:
    source = INSTALLED.reader.source("pmi_cl.models.sgd")
    assert source is not None
    module = INSTALLED.reader.source(INSTALLED.find("model", "joint").module)
    assert module is not None and module.path.parent.name == "resnet"


@pytest.mark.parametrize("place", ["deep/er/own.py", "deep/own/__init__.py", "my-methods/own.py"])
def test_a_method_may_lie_in_any_folder_with_its_presets_beside_it(tmp_path: Path, place: str) -> None:
    source = "from pmi_cl.models.finetune import Base\nclass Own(Base):\n    '''Mine.'''\n    NAME = 'own'\n"
    catalogue = registry_with(tmp_path, place, source)
    path = tmp_path / "models" / place
    path.with_name("own.yaml").write_text("mine: {all: {lr: 0.5}}\n")
    entry = catalogue.find("model", "own")
    assert entry.module == "pmi_cl.models." + ".".join(Path(place).with_suffix("").parts).removesuffix(".__init__")
    assert list(presets_of("own", catalogue).presets) == ["mine"]
    (tmp_path / "models/config/own.yaml").write_text("usual: {all: {lr: 0.5}}\n")
    assert list(presets_of("own", catalogue).presets) == ["usual"]  # models/config comes first


def test_files_of_one_name_in_two_folders_are_two_methods(tmp_path: Path) -> None:
    catalogue = registry_with(tmp_path, "a/own.py", "class A:\n    NAME = 'one'\n")
    (tmp_path / "models/b").mkdir()
    (tmp_path / "models/b/own.py").write_text("class B:\n    NAME = 'two'\n")
    assert {catalogue.find("model", name).module for name in ("one", "two")} == {
        "pmi_cl.models.a.own",
        "pmi_cl.models.b.own",
    }


def test_broken_files_of_one_name_in_two_folders_are_both_named(tmp_path: Path) -> None:
    catalogue = registry_with(tmp_path, "a/own.py", "class A:\n    NAME = 'x' * 2\n")
    (tmp_path / "models/b").mkdir()
    (tmp_path / "models/b/own.py").write_text("class B:\n    NAME = 'y' * 2\n")
    assert catalogue.entries("model") and set(catalogue.broken["model"]) == {"a.own", "b.own"}


@pytest.mark.parametrize("place", ["_private/own.py", ".hidden/own.py", "__pycache__/own.py", "_own.py"])
def test_private_files_and_folders_are_left_alone(tmp_path: Path, place: str) -> None:
    catalogue = registry_with(tmp_path, place, "class (:\n    NAME = 'own'\n")
    assert catalogue.entries("model") and catalogue.broken["model"] == {}


def test_data_sets_and_backbones_may_lie_in_folders(tmp_path: Path) -> None:
    catalogue = write_registry(tmp_path)
    for kind in ("datasets", "backbones"):
        (tmp_path / kind / "own").mkdir()
    (tmp_path / "datasets/own/set.py").write_text("class Own:\n    NAME = 'seq-own'\n")
    (tmp_path / "backbones/own/net.py").write_text(
        "from pmi_cl.backbones.net import small\nBACKBONES = {'own': 'small'}\n"
    )
    assert catalogue.find("dataset", "seq-own").module == "pmi_cl.datasets.own.set"
    assert catalogue.find("backbone", "own").module == "pmi_cl.backbones.own.net"


BASE = "from pmi_cl.models.finetune import Base\n"
OPTIONS = "from dataclasses import dataclass\nfrom pmi_cl.options import option\n"
MORE = "    Options = O\n    NAME = 'new'\n"


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("class A:\n    NAME = 'a' + 'b'\n", r":2: write a literal"),
        ("PREFIX = 'new'\nclass A:\n    NAME = PREFIX\n", r":3: write a literal"),
        ("class A:\n    NAME = f'a{1}'\n", r":2: write a literal"),
        ("class A:\n    NAME = 3\n", r":2: NAME must be a text"),
        (BASE + "class A(Base):\n    NAME: str\n", r":3: A: give NAME a value"),
        ("if True:\n    class A:\n        NAME = 'new'\n", r":2: A: write NAME = .* at the top level"),
        ("try:\n    import x\nexcept E:\n    class A:\n        NAME = 'new'\n", r":4: A: write NAME"),
        ("def make():\n    class A:\n        NAME = 'new'\n    return A\n", r":2: A: write NAME"),
        ("class A:\n    if True:\n        NAME = 'new'\n", r":3: NAME: write it as"),
        ("class A:\n    NAME = 'new'\n    NAME += 'er'\n", r":3: NAME: write it as"),
        ("class A:\n    NAME, *REST = 'new', 1\n", r":2: NAME: write it as"),
        ("class A:\n    def NAME(self):\n        return 'new'\n", r":2: NAME: write it as"),
        ("class A:\n    NAME = ''\nA.NAME = 'new'\n", r":3: write NAME = "),
        ("class A:\n    NAME = 'new'\nclass A:\n    NAME = 'new'\n", r":1: a class A is defined again below"),
        ("class A(Gone):\n    NAME = 'new'\n", r":1: A: its base class Gone is not defined above"),
        ("class A(B):\n    NAME = 'new'\nclass B:\n    pass\n", r":1: A: its base class B is not defined above"),
        ("from x import *\nclass A(Gone):\n    NAME = 'new'\n", r":2: A: .*Gone .*'import \*' is not followed"),
        ("import pmi_cl.models.gone as g\nclass A(g.B):\n    NAME = 'new'\n", r":2: A: there is no class g\.B"),
        (
            "from pmi_cl.models.finetune import Gone\nclass A(Gone):\n    NAME = 'new'\n",
            r":2: A: there is no class Gone",
        ),
        ("from pmi_cl.models.new import A as B\nclass A(B):\n    NAME = 'new'\n", r":2: A is a base class of itself"),
        (BASE + "class A(make(Base)):\n    NAME = 'new'\n", r":2: A: write its base class by name"),
        (
            "import elsewhere\nclass A(elsewhere.B):\n    NAME = 'new'\n",
            r":2: A: what its base class elsewhere\.B decl",
        ),
        ("class A:\n    NAME = 'new'\n    DEFAULTS = dict(lr=1)\n", r":3: write a literal"),
        ("class A:\n    NAME = 'new'\n    JOINT = not False\n", r":3: write a literal"),
        ("class A:\n    NAME = 'new'\n    class Options:\n        pass\n", r":3: Options: write it as"),
        (OPTIONS + "class O:\n    x: int = option(1, 'h')\nclass A:\n" + MORE, r":3: O: write @dataclass"),
        (OPTIONS + "@dataclass\nclass O:\n    x = option(1, 'h')\nclass A:\n" + MORE, r":5: O: write its type"),
        (
            OPTIONS + "@dataclass\nclass O:\n    if True:\n        x: int = option(1, 'h')\nclass A:\n" + MORE,
            r":5: O: declare its options",
        ),
        (
            OPTIONS + "ONE = 1\n@dataclass\nclass O:\n    x: int = option(ONE, 'h')\nclass A:\n" + MORE,
            r":6: write a literal",
        ),
        (
            OPTIONS + "@dataclass\nclass O:\n    x: int = option('one', 'h')\nclass A:\n" + MORE,
            r":5: x: the default 'one' is no int",
        ),
        (
            OPTIONS + "@dataclass\nclass O:\n    x: int = option(1, 'h', role='part')\nclass A:\n" + MORE,
            r":5: x: role 'part': choose from choice, tasks, ",
        ),
        (
            OPTIONS
            + "import elsewhere\n@dataclass\nclass O(elsewhere.P):\n    x: int = option(1, 'h')\nclass A:\n"
            + MORE,
            r":5: O: what its base class elsewhere\.P declares cannot be read",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_by_name_and_line_and_stops_nothing_else(
    tmp_path: Path, source: str, fault: str
) -> None:
    before = {entry.name for entry in write_registry(tmp_path).entries("model")}
    catalogue = registry_with(tmp_path, "new.py", source)
    assert {entry.name for entry in catalogue.entries("model")} == before
    ((name, error),) = catalogue.broken["model"].items()
    assert name.startswith("new") and re.search(r"new\.py" + fault, str(error)), str(error)
    assert name in listing(catalogue)
    with pytest.raises(UserError, match=fault):
        catalogue.find("model", name)
    with pytest.raises(UserError, match=rf"unknown model 'ab': .*\({name} cannot be used: --list says why\)"):
        catalogue.find("model", "ab")


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("BACKBONES = dict(own='own')\n", r":1: write a literal"),
        ("BACKBONES = ['own']\n", r":1: BACKBONES must be"),
        (
            "BACKBONES = {'own': 'own'}\nBACKBONES['other'] = 'own'\ndef own():\n    pass\n",
            r":2: BACKBONES: write it as",
        ),
        ("BACKBONES = {}\nBACKBONES.update(own='own')\n", r":2: BACKBONES: write it as"),
        ("if True:\n    BACKBONES = {'own': 'own'}\n", r":2: BACKBONES: write it as"),
        ("BACKBONES = {'own': 'gone'}\n", r":1: BACKBONES names 'gone'"),
        ("BACKBONES = {'own': 'own'}\nKIND = 'cl' + 'ip'\ndef own():\n    pass\n", r":2: write a literal"),
    ],
)
def test_a_table_of_backbones_that_cannot_be_read_is_refused_by_name_and_line(
    tmp_path: Path, source: str, fault: str
) -> None:
    catalogue = write_registry(tmp_path)
    (tmp_path / "backbones" / "own.py").write_text(source)
    assert catalogue.entries("backbone")
    ((name, error),) = catalogue.broken["backbone"].items()
    assert name == "own" and re.search(r"own\.py" + fault, str(error)), str(error)


def test_a_base_from_another_package_is_enough_beside_one_of_ours(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models/continual_model.py").write_text(
        "from torch import nn\nclass ContinualModel(nn.Module):\n    NAME = ''\n    JOINT = True\n"
    )
    (tmp_path / "models/own.py").write_text(
        "import torch\nfrom pmi_cl.models.continual_model import ContinualModel\n"
        "class Own(ContinualModel, torch.nn.Module):\n    NAME = 'own'\n"
    )
    catalogue = Catalogue([tmp_path])
    assert catalogue.find("model", "own").constants["JOINT"] is True and catalogue.broken["model"] == {}


def test_an_entry_point_may_name_what_its_package_re_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, shared = tmp_path / "theirs_abc", tmp_path / "theirs_shared"
    for folder in (package, shared):
        folder.mkdir()
    (shared / "__init__.py").write_text("from pmi_cl.models.resnet.sgd import Sgd\n")
    (package / "__init__.py").write_text("from .method import Own\n")
    (package / "method.py").write_text("import theirs_shared\nclass Own(theirs_shared.Sgd):\n    NAME = 'own'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    point = Extension("model", "own", "theirs_abc", "Own", "theirs")
    catalogue = Catalogue(INSTALLED.reader.folders, lambda kind: [point] if kind == "model" else [])
    assert catalogue.find("model", "own").options == INSTALLED.find("model", "sgd").options


def test_a_method_in_a_folder_of_a_checkout_runs(tmp_path: Path) -> None:
    """Its base class is written as ``module.Class``."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("pmi_cl", "models", "datasets", "backbones", "utils", "inversion", "main.py", "setup.cfg"):
        source, target = ROOT / name, checkout / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    (checkout / "models/mine/deep").mkdir(parents=True)
    (checkout / "models/mine/deep/own.py").write_text(
        "import pmi_cl.models.sgd\nclass Own(pmi_cl.models.sgd.Sgd):\n    '''Mine.'''\n    NAME = 'own'\n"
    )
    (checkout / "models/alone.py").write_text("class Alone:\n    '''Derived from nothing.'''\n    NAME = 'alone'\n")

    def check(model: str) -> subprocess.CompletedProcess[str]:
        return run_python(["main.py", "--model", model, "--dataset", "seq-digits", "--check"], checkout)

    alone, done = check("alone"), check("own")
    assert alone.returncode == 2 and alone.stderr.count("\n") == 1
    assert "pmi_cl.models.alone: Alone cannot be run: derive it from pmi_cl's ContinualModel" in alone.stderr
    assert done.returncode == 0, done.stderr
    assert re.search(r"^n_epochs +200 +default$", done.stdout, re.MULTILINE)
