"""Test the shape of the package.

It fixes who may import whom, what an import may do (nothing), and how long modules and functions
may be.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pmi_cl.machine.torchvision_shim import ensure_torchvision
from tests.support.source_trees import FOLDERS, MODULES, ROOT, imported, nodes_that_run, tree_of

BASE = {"pmi_cl", *(f"pmi_cl.{name}" for name in ("errors", "options", "seeding"))}
SHARED = {"pmi_cl.datasets.input_form"}  # what networks tell data sets; it imports nothing of ours
# Each layer may import itself, the base, the machine, and these. A layer is a folder at the top,
# or one inside pmi_cl/.
BELOW = {
    "base": set(),
    "machine": set(),
    "registry": set(),
    "backbones": set(),
    "datasets": {"registry"},
    "inversion": {"backbones", "registry"},
    "models": {"backbones", "inversion", "registry"},
    "utils": {"backbones", "inversion", "models", "datasets", "registry"},
    "mammoth": {"utils", "registry", "models", "datasets"},
    "command": {"utils", "registry", "mammoth"},
}
# Networks of others become backbones by the engine's cut, which knows no backbone itself.
CUTTING = {"pmi_cl.inversion.networks.folding", "pmi_cl.inversion.networks.pieces"}
INSIDE = ("machine", "registry", "mammoth")  # of pmi_cl/


def layer_of(module: str) -> str:
    if module in BASE | SHARED:
        return "base"
    folder = module.split(".")[1]
    return folder if folder in (*FOLDERS, *INSIDE) else "command"


def test_every_module_is_found() -> None:
    assert {
        "pmi_cl",
        "pmi_cl.cli",
        "pmi_cl.models.resnet.sgd",
        "pmi_cl.utils.run.runner",
        "pmi_cl.inversion.engine.engine",
    } <= set(MODULES)
    assert len(MODULES) > 50


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downwards(module: str) -> None:
    layer = layer_of(module)
    allowed = {layer, "base", "machine", *BELOW[layer]}
    ours = [name for name in imported(nodes_that_run(tree_of(MODULES[module]))) if name.split(".")[0] == "pmi_cl"]
    upwards = {name for name in ours if layer_of(name) not in allowed}
    assert upwards == (CUTTING if module == "pmi_cl.backbones.library_network" else set())


@pytest.mark.parametrize("module", sorted(CUTTING))
def test_the_cut_of_networks_knows_no_backbone(module: str) -> None:
    known, new = set(), {module}
    while new:
        known |= new
        found = {name for one in new for name in imported(nodes_that_run(tree_of(MODULES[one]))) if name in MODULES}
        new = found - known
    assert not {name for name in known if layer_of(name) == "backbones"}


@pytest.mark.parametrize("module", MODULES)
def test_types_alone_may_come_from_elsewhere_and_only_from_what_exists(module: str) -> None:
    for name in imported(ast.walk(tree_of(MODULES[module]))):
        assert name.split(".")[0] not in (*FOLDERS, "benchmarks", "tests"), f"{name}: write pmi_cl.{name}"
        assert name.split(".")[0] != "pmi_cl" or name in MODULES


# The rooms of each folder, from the ground up. A module imports from its own room and from rows
# before it, never from another room of its row: models/clip and models/resnet know nothing of each
# other.
ROOMS = {
    "inversion": (
        ("objectives", "transforms", "parts"),
        ("features",),
        ("networks",),
        ("ways",),
        ("starts",),
        ("config", "plugins"),
        ("engine",),
        ("invert",),
    ),
    "models": (
        ("host", "network_checks", "run_outline", "storage", "training"),
        ("continual_model",),
        ("inverting", "inversion_parts", "statistics_classifier", "with_teacher"),
        ("clip", "resnet"),
        ("sgd",),
    ),
    "datasets": (
        ("augmentation", "class_orders", "digit_names", "input_form", "placement", "reading", "task_split"),
        ("colour_jitter",),
        ("selection", "dataset_outline"),
        ("continual_dataset", "domain_images"),
        ("files", "multi_domain"),
    ),
    "utils": (("records",), ("arguments",), ("reports",), ("run",), ("sweeps", "trained"), ("commands",)),
}


def place_of(module: str) -> tuple[int, str]:
    """Return the row and the room of a module; a data set's own file stands above all rooms."""
    _, folder, room = module.split(".")[:3]
    rows = ROOMS[folder]
    return next((number for number, row in enumerate(rows) if room in row), len(rows)), room


@pytest.mark.parametrize("module", [name for name in MODULES if name.count(".") > 1 and name.split(".")[1] in ROOMS])
def test_rooms_depend_one_way(module: str) -> None:
    folder, (row, room) = module.split(".")[1], place_of(module)
    named = [name for name in imported(ast.walk(tree_of(MODULES[module]))) if name.startswith(f"pmi_cl.{folder}.")]
    assert [name for name in named if place_of(name)[0] >= row and place_of(name)[1] != room] == []


def test_every_room_is_there() -> None:
    for folder, rows in ROOMS.items():
        rooms = {name.split(".")[2] for name in MODULES if name.startswith(f"pmi_cl.{folder}.")}
        named = {room for row in rows for room in row}
        assert named <= rooms and all(room.startswith("seq_") for room in rooms - named)


def test_no_module_imports_itself_through_others() -> None:
    edges = {
        module: {name for name in imported(nodes_that_run(tree_of(path))) if name in MODULES}
        for module, path in MODULES.items()
    }
    settled: set[str] = set()
    while ready := {module for module in edges if module not in settled and edges[module] <= settled | {"pmi_cl"}}:
        settled |= ready
    assert set(edges) - settled == set()


# Importing does nothing.

INSIDE_MAMMOTH = ("pmi_cl.mammoth.hosted_data", "pmi_cl.mammoth.hosted_method")  # subclasses of Mammoth's classes

IMPORT_ALL = """
import contextlib, importlib, io, json, logging, os, random, signal, sys, warnings
import numpy, torch

TOP = ("models", "datasets", "utils", "inversion", "backbones", "benchmarks", "tests")
HEAVY = ("matplotlib", "tensorboard", "torchvision", "PIL", "open_clip", "huggingface_hub")
loggers = logging.root.manager.loggerDict

def surroundings():
    return {
        "folder": os.getcwd(),
        "path": list(sys.path),
        "environment": dict(os.environ),
        "torch numbers": torch.random.get_rng_state().sum().item(),
        "numpy numbers": str(numpy.random.get_state()[1].sum()),
        "python numbers": hash(random.getstate()),
        "logging": [logging.root.level, logging.root.handlers, sorted(name for name in loggers if "pmi" in name)],
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "torch": [torch.get_num_threads(), torch.get_default_dtype(), torch.backends.cudnn.benchmark,
                  torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()],
        "hooks": [sys.excepthook, sys.meta_path[:]],
    }

before, said = surroundings(), io.StringIO()
with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
    for name in sys.argv[1:]:
        importlib.import_module(name)
after = surroundings()
print(json.dumps({
    "changed": [name for name in before if before[name] != after[name]],
    "said": said.getvalue(),
    "top": [name for name in TOP if name in sys.modules],
    "heavy": [name for name in HEAVY if name in sys.modules],
    "files": [path for folder in (os.getcwd(), os.environ["HOME"]) for path in os.listdir(folder)],
}))
"""


def in_a_fresh_process(code: str, *words: str, folder: Path) -> str:
    """Run a program in an empty folder with an empty home. Return what it prints.

    The checkout is on PYTHONPATH.
    """
    home = folder / "home"
    home.mkdir()
    (folder / "here").mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder / "here", env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_everything_changes_nothing(tmp_path: Path) -> None:
    """No folder is made, no random number drawn, no handler set, no name defined beside ``pmi_cl``.

    Heavy libraries wait until they are needed.
    """
    modules = [name for name in MODULES if name != "pmi_cl.__main__" and name not in INSIDE_MAMMOTH]
    found = json.loads(in_a_fresh_process(IMPORT_ALL, *modules, folder=tmp_path))
    assert found == {"changed": [], "said": "", "top": [], "heavy": [], "files": []}


def test_subclasses_of_mammoths_classes_need_an_imported_mammoth() -> None:
    ensure_torchvision()  # as register() does
    with pytest.raises(ModuleNotFoundError, match="'backbone'"):
        importlib.import_module("pmi_cl.mammoth.hosted_data")


def test_what_help_needs_is_imported_without_torch(tmp_path: Path) -> None:
    light = ["cli", "errors", "help_text", "options", "seeding", "machine.memory", "registry.catalogue"]
    light += ["utils.arguments.command_line", "utils.arguments.presets", "utils.arguments.run_options"]
    light += ["utils.records.run_record", "utils.records.checkpoints"]
    light += ["utils.run.host", "utils.run.runner", "utils.run.preflight"]
    code = "import importlib, sys; [importlib.import_module('pmi_cl.' + name) for name in sys.argv[1:]]; "
    code += "print('torch' in sys.modules)"
    assert in_a_fresh_process(code, *light, folder=tmp_path) == "False\n"
