"""The sources of the project as trees, and what they import."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("backbones", "datasets", "inversion", "models", "utils")
FILES = [path for folder in ("pmi_cl", *FOLDERS) for path in sorted((ROOT / folder).rglob("*.py"))]


def module_of(path: Path) -> str:
    """Return the module of a file: pmi_cl.models.resnet.sgd for models/resnet/sgd.py."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    parts = parts if parts[0] == "pmi_cl" else ["pmi_cl", *parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


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
