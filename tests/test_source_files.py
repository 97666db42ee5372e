"""Test how sources read: lengths, docstrings, nothing unsafe, plain names."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.support.source_trees import FILES, ROOT, imported, module_of, tree_of

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
