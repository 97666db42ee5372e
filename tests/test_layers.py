"""Test the shape of the package.

It fixes who may import whom, what an import may do (nothing), and how long modules and functions
may be.
"""

from __future__ import annotations

import ast
import functools
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pmi_cl.machine.torchvision_shim import ensure_torchvision

ROOT = Path(__file__).resolve().parent.parent
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
FOLDERS = ("backbones", "datasets", "inversion", "models", "utils")
INSIDE = ("machine", "registry", "mammoth")  # of pmi_cl/
FILES = [path for folder in ("pmi_cl", *FOLDERS) for path in sorted((ROOT / folder).rglob("*.py"))]


def module_of(path: Path) -> str:
    """Return the module of a file: pmi_cl.models.resnet.sgd for models/resnet/sgd.py."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    parts = parts if parts[0] == "pmi_cl" else ["pmi_cl", *parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def layer_of(module: str) -> str:
    if module in BASE | SHARED:
        return "base"
    folder = module.split(".")[1]
    return folder if folder in (*FOLDERS, *INSIDE) else "command"


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def nodes_that_run(node: ast.AST) -> Iterator[ast.AST]:
    """Yield every node but those that only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).lstrip("_") == "TYPE_CHECKING":
            yield from (inner for part in child.orelse for inner in ast.walk(part))
            continue
        yield child
        yield from nodes_that_run(child)


def imported(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Yield the modules that import statements name, wherever they stand."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                yield below if below in MODULES else str(node.module)


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


# Size and safety.

LONGEST_FILE, LONGEST_FUNCTION = 350, 60
BESIDE = ("benchmarks", "examples", "tools")
STAND_IN = ROOT / "tests" / "mammoth_stand_in"  # laid out as Mammoth is
TESTS = [path for path in sorted((ROOT / "tests").rglob("*.py")) if STAND_IN not in path.parents]
PROGRAMS = [*FILES, ROOT / "main.py", *(path for folder in BESIDE for path in sorted((ROOT / folder).rglob("*.py")))]
EVERY_FILE = [*PROGRAMS, *TESTS]
PACKAGES = sorted({path.parent for path in FILES} | {ROOT / "tests" / "support"})


def place(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", EVERY_FILE, ids=place)
def test_a_module_can_be_read(path: Path) -> None:
    """Neither the file nor a function in it is too long, and a docstring says what it is for."""
    tree = tree_of(path)
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {function.name: (function.end_lineno or 0) - function.lineno + 1 for function in functions}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}
    assert ast.get_docstring(tree)


def test_a_folder_says_what_it_is_for() -> None:
    """The docstring of its ``__init__.py`` begins with one sentence on a line of its own."""
    for folder in PACKAGES:
        assert (folder / "__init__.py").is_file(), folder
        first, *more = (ast.get_docstring(tree_of(folder / "__init__.py")) or "").splitlines() or [""]
        assert first.endswith(".") and not any(more[:1]), folder


def test_utils_is_rooms_and_few_files() -> None:
    assert len([path for path in (ROOT / "utils").iterdir() if path.is_file()]) <= 8


def test_test_modules_share_through_support_alone() -> None:
    """What two test modules need is in ``tests/support/``; neither imports the other."""
    modules = {path.stem for path in TESTS if path.parent.name == "tests"} | {"tests"}
    named = {(place(path), name) for path in TESTS for name in imported(ast.walk(tree_of(path)))}
    assert [
        pair for pair in named if pair[1].split(".")[0] in modules and not pair[1].startswith("tests.support")
    ] == []


@pytest.mark.parametrize("path", PROGRAMS, ids=place)
def test_a_module_runs_no_text_and_trusts_no_pickle(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call):
            assert not (isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"))
            # Benchmarks read what they wrote.
            assert path not in FILES or ast.unparse(node.func) not in (
                "pickle.load",
                "pickle.loads",
            )
            refused = {"allow_pickle": True, "weights_only": False, "shell": True}
            given = {word.arg: word.value.value for word in node.keywords if isinstance(word.value, ast.Constant)}
            assert not [name for name, value in refused.items() if given.get(name) is value]
            assert ast.unparse(node.func) != "torch.load" or given.get("weights_only") is True
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None)


@pytest.mark.parametrize("path", FILES, ids=place)
def test_a_name_says_what_is_inside(path: Path) -> None:
    assert path.stem not in ("helpers", "helper", "misc", "common", "util", "utils", "tools", "stuff")


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_sources_are_things_that_a_reader_can_look_up(path: Path) -> None:
    """A source is a paper's section, the authors' code or a page of docs/, not a note of the
    project.
    """
    assert not re.search(
        r"\bspec \d|\bbaselines \d|baselines\.md|engine\.md|pmi_cfs\.md", path.read_text(encoding="utf-8")
    )
