"""One parsed module: what its text defines, imports and assigns, read without running it."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pmi_cl.errors import UserError

Definition = ast.ClassDef | ast.FunctionDef
NOT_LITERAL = (ValueError, TypeError, SyntaxError, MemoryError, RecursionError)  # what literal_eval() may raise


@dataclass(frozen=True)
class Source:
    """A parsed module.

    Attributes:
        name: the full name under which it is imported.
        path: its file.
        tree: its syntax tree.
    """

    name: str
    path: Path
    tree: ast.Module

    @functools.cached_property
    def definitions(self) -> tuple[Definition, ...]:
        """The top-level classes and functions, in the order of the file."""
        return tuple(node for node in self.tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef))

    def defined(self, name: str, before: int | None = None) -> Definition | None:
        """Return the last top-level definition of that name that begins above line ``before``."""
        found = [node for node in self.definitions if node.name == name and (before is None or node.lineno < before)]
        return found[-1] if found else None

    @functools.cached_property
    def imports(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Local name -> (module, names inside) of the top-level imports; no names: the module."""
        found: dict[str, tuple[str, tuple[str, ...]]] = {}
        for node in self.tree.body:
            if isinstance(node, ast.ImportFrom):
                module = self._module_of(node)
                found |= {alias.asname or alias.name: (module, (alias.name,)) for alias in node.names}
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    package = alias.name.partition(".")[0]
                    found[alias.asname or package] = (alias.name if alias.asname else package, ())
        return found

    def _module_of(self, node: ast.ImportFrom) -> str:
        """Return the full name of the module that an import names."""
        if not node.level:
            return str(node.module)
        parts = self.name.split(".")
        above = parts[: len(parts) - node.level + (self.path.stem == "__init__")]
        return ".".join([*above, *([node.module] if node.module else [])])

    def literal(self, node: ast.expr) -> Any:
        """Return the value of a literal. Raise UserError, with the line, for anything else."""
        try:
            return ast.literal_eval(node)
        except NOT_LITERAL:
            raise self.fault(
                node, "write a literal here (number, text, tuple): it is read without running the file"
            ) from None

    def text(self, node: ast.expr, name: str) -> str:
        """Return the literal text that ``name`` is assigned. Raise UserError, with the line."""
        value = self.literal(node)
        if not isinstance(value, str):
            raise self.fault(node, f"{name} must be a text in quotes, not {value!r}")
        return value

    def fault(self, node: ast.AST, message: str) -> UserError:
        """Return the error for a declaration that cannot be read, with its file and line."""
        return UserError(f"{self.path}:{getattr(node, 'lineno', 1)}: {message}")

    def values(self, body: Sequence[ast.stmt], read: Sequence[str]) -> dict[str, ast.expr]:
        """Return name -> value of the plain assignments in a module or a class.

        Args:
            read: names that the command has to know.

        Raises:
            UserError: one of ``read`` is set in another way, such as inside an ``if``.
        """
        found: dict[str, ast.expr] = {}
        for node in body:
            plain = dict(assignments([node]))
            found |= plain
            for name, place in _bindings(node):
                if name in read and name not in plain and not _only_typed(place):
                    raise self.fault(
                        place,
                        f"{name}: write it as '{name} = ...' on a line of its own: it is read without running the file",
                    )
        return found


def assignments(body: Sequence[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    """Yield (name, value) of assignments: ``a = b = 1``, ``a: int = 1``, ``a, b = 1, 2``."""
    for node in body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                yield from _pairs(target, node.value)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            yield from _pairs(node.target, node.value)


def _pairs(target: ast.expr, value: ast.expr) -> list[tuple[str, ast.expr]]:
    """Return (name, value) of each name that a target sets; nothing if the text is not enough."""
    if isinstance(target, ast.Name):
        return [(target.id, value)]
    if not (isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts)):
        return []
    pairs = [_pairs(*pair) for pair in zip(target.elts, value.elts, strict=True)]
    return [pair for found in pairs for pair in found] if all(len(found) == 1 for found in pairs) else []


def statements(body: Sequence[ast.stmt], functions: bool = False) -> Iterator[ast.stmt]:
    """Yield the statements, and those inside ``if``, ``try`` or ``for``, but not those of classes.

    Args:
        functions: whether to enter the bodies of functions, too.
    """
    for node in body:
        yield node
        if isinstance(node, ast.ClassDef) or (isinstance(node, ast.FunctionDef) and not functions):
            continue
        for part in ("body", "orelse", "finalbody"):
            yield from statements(getattr(node, part, []), functions)
        for branch in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            yield from statements(branch.body, functions)


def _only_typed(node: ast.AST) -> bool:
    """Whether a line gives a name a type and no value."""
    return isinstance(node, ast.AnnAssign) and node.value is None


def _bindings(node: ast.stmt) -> Iterator[tuple[str, ast.AST]]:
    """Yield (name, where) of everything that a statement may set, at any depth."""
    for inner in statements([node]):
        if isinstance(inner, ast.ClassDef | ast.FunctionDef):
            yield inner.name, inner
        elif isinstance(inner, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name, inner) for alias in inner.names)
        elif isinstance(inner, ast.Expr):
            yield from _changed(inner.value)
        else:
            for target in _targets(inner):
                for name in ast.walk(target):
                    if isinstance(name, ast.Name):
                        yield name.id, inner


def _targets(node: ast.stmt) -> list[ast.expr]:
    """Return what a statement assigns to or deletes."""
    if isinstance(node, ast.Assign | ast.Delete):
        return node.targets
    if isinstance(node, ast.AnnAssign | ast.AugAssign | ast.For):
        return [node.target]
    return [item.optional_vars for item in node.items if item.optional_vars] if isinstance(node, ast.With) else []


def _changed(node: ast.expr) -> Iterator[tuple[str, ast.AST]]:
    """Yield the name whose method an expression calls, as ``BACKBONES.update(...)`` does."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
        yield node.func.value.id, node
