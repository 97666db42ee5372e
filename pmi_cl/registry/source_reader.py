"""Reads classes, their literal attributes and their option declarations from source text, without running it."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pmi_cl.errors import UserError
from pmi_cl.registry.extensions import source_file

SCALARS = ("int", "float", "str", "bool")
TYPES = (*SCALARS, *(f"{name} | None" for name in SCALARS), *(f"tuple[{name}, ...]" for name in SCALARS))


@dataclass(frozen=True)
class OptionSpec:
    """One flag: what :func:`pmi_cl.options.option` declared, with the field's name and type (one of ``TYPES``)."""

    name: str
    type: str
    default: Any
    help: str
    unit: str = ""
    source: str = ""
    choices: tuple[str, ...] = ()
    low: float | None = None
    above: float | None = None
    high: float | None = None

    @property
    def scalar(self) -> str:
        """The type of one value: int, float, str or bool."""
        return self.type.removeprefix("tuple[").removesuffix(", ...]").removesuffix(" | None")

    @property
    def optional(self) -> bool:
        """Whether ``None`` is a value."""
        return self.type.endswith("| None")

    @property
    def many(self) -> bool:
        """Whether the value is a tuple."""
        return self.type.startswith("tuple[")


@dataclass(frozen=True)
class Source:
    """A parsed module: its classes, functions, assignments and ``from ... import`` names."""

    name: str
    path: Path
    tree: ast.Module

    @functools.cached_property
    def definitions(self) -> dict[str, ast.ClassDef | ast.FunctionDef]:
        """Top-level classes and functions by name."""
        return {node.name: node for node in self.tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}

    @functools.cached_property
    def imports(self) -> dict[str, tuple[str, str]]:
        """Local name -> (module, name there) of the top-level ``from`` imports."""
        froms = [node for node in self.tree.body if isinstance(node, ast.ImportFrom)]
        return {
            alias.asname or alias.name: (self._module_of(node), alias.name) for node in froms for alias in node.names
        }

    def _module_of(self, node: ast.ImportFrom) -> str:
        """The module that an import names, by its full name."""
        if not node.level:
            return str(node.module)
        parts = self.name.split(".")
        above = parts[: len(parts) - node.level + (self.path.stem == "__init__")]
        return ".".join([*above, *([node.module] if node.module else [])])

    def literal(self, node: ast.expr) -> Any:
        """The value of a literal; a UserError that names the line for anything else."""
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError):
            raise self.fault(
                node, "write a literal here (number, text, tuple): it is read without running the file"
            ) from None

    def fault(self, node: ast.stmt | ast.expr, message: str) -> UserError:
        """The error for a declaration that cannot be read, with its file and line."""
        return UserError(f"{self.path}:{node.lineno}: {message}")


def assignments(body: Sequence[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    """(name, value) of each plain or annotated assignment to one name."""
    for node in body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            yield node.target.id, node.value


class SourceReader:
    """Parses modules of the package ``pmi_cl`` that lie in the given folders (the package's ``__path__``), and of ``outside``, each once.

    Attributes:
        outside: names of other packages whose modules may be read.
    """

    def __init__(self, folders: Sequence[str | Path]) -> None:
        self.folders = [Path(folder) for folder in folders]
        self.outside: set[str] = set()
        self._sources: dict[str, Source | None] = {}
        self._mirrors: dict[tuple[str, str], type] = {}

    def source(self, module: str) -> Source | None:
        """The parsed module; None where it is not a file of the package. Raises UserError when it does not parse."""
        if module not in self._sources:
            self._sources[module] = self._parse(module)
        return self._sources[module]

    def _parse(self, module: str) -> Source | None:
        path = self._path(module)
        if path is None:
            return None
        try:
            return Source(module, path, ast.parse(path.read_bytes(), filename=str(path)))
        except SyntaxError as error:
            raise UserError(f"{path}:{error.lineno}: {error.msg}") from error
        except (ValueError, OSError) as error:
            raise UserError(f"{path}: cannot be read as Python: {error}") from error

    def _path(self, module: str) -> Path | None:
        package, *inner = module.split(".")
        if package in self.outside:
            return source_file(module)
        if package != "pmi_cl" or not inner:
            return None
        relative = Path(*inner).with_suffix(".py")
        return next((folder / relative for folder in self.folders if (folder / relative).is_file()), None)

    def resolve(self, source: Source, name: str) -> tuple[Source, ast.ClassDef] | None:
        """The class that ``name`` means inside ``source``, followed through its imports; None for a class from elsewhere."""
        node = source.definitions.get(name)
        if isinstance(node, ast.ClassDef):
            return source, node
        if name not in source.imports:
            return None
        module, original = source.imports[name]
        imported = self.source(module)
        return self.resolve(imported, original) if imported else None

    def lineage(self, source: Source, node: ast.ClassDef) -> Iterator[tuple[Source, ast.ClassDef]]:
        """The class and its bases inside the package in the order in which a later one overrides an earlier one: Python's own, reversed."""
        try:
            mirror = self._mirrored(source, node)
        except TypeError as error:  # bases that contradict each other
            raise source.fault(node, f"{node.name}: {error}") from error
        yield from (vars(owner)["origin"] for owner in reversed(mirror.__mro__[:-1]))

    def _mirrored(self, source: Source, node: ast.ClassDef) -> type:
        """An empty class with the same name and bases, for Python to order them."""
        key = (source.name, node.name)
        if key not in self._mirrors:
            found = [self.resolve(source, base.id) for base in node.bases if isinstance(base, ast.Name)]
            bases = tuple(self._mirrored(*base) for base in found if base)
            self._mirrors[key] = type(node.name, bases, {"origin": (source, node)})
        return self._mirrors[key]

    def constants(self, source: Source, node: ast.ClassDef) -> dict[str, Any]:
        """The class attributes in capitals whose values are literals, inherited ones included."""
        return self.literal_constants(
            [statement for _, owner in self.lineage(source, node) for statement in owner.body]
        )

    def literal_constants(self, body: Sequence[ast.stmt]) -> dict[str, Any]:
        """The names in capitals that are assigned literals, a later one over an earlier one."""
        values = {}
        for name, value in assignments(body):
            if name.isupper():
                try:
                    values[name] = ast.literal_eval(value)
                except (ValueError, TypeError):
                    values.pop(name, None)  # computed: only the imported code knows it
        return values

    def declared_options(self, source: Source, node: ast.ClassDef) -> tuple[OptionSpec, ...]:
        """The options of the dataclass that the class, or its nearest base that says so, names in ``Options = ...``."""
        options: tuple[OptionSpec, ...] = ()
        for owner_source, owner in self.lineage(source, node):
            for name, value in assignments(owner.body):
                if name == "Options":
                    options = self._options_named(owner_source, value)
        return options

    def module_options(self, source: Source) -> tuple[OptionSpec, ...]:
        """The options of the dataclass that the module names in ``Options = ...``: those of its backbones."""
        value = dict(assignments(source.tree.body)).get("Options")
        return self._options_named(source, value) if value is not None else ()

    def _options_named(self, source: Source, value: ast.expr) -> tuple[OptionSpec, ...]:
        found = self.resolve(source, value.id) if isinstance(value, ast.Name) else None
        if found is None:
            raise source.fault(
                value, "Options must name a dataclass of this file or one imported by 'from pmi_cl.x import Y'"
            )
        return self.options(*found)

    def options(self, source: Source, node: ast.ClassDef) -> tuple[OptionSpec, ...]:
        """The fields of a dataclass made by ``option(...)``, in the order of the dataclass. Raises UserError for other fields."""
        specs: dict[str, OptionSpec] = {}
        for owner_source, owner in self.lineage(source, node):
            for field in owner.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    specs[field.target.id] = _option(owner_source, field, field.target.id)
        return tuple(specs.values())


def _option(source: Source, field: ast.AnnAssign, name: str) -> OptionSpec:
    call = field.value
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "option"):
        raise source.fault(field, f"{name}: make the field with option(default, help, ...) from pmi_cl.options")
    kind = ast.unparse(field.annotation)
    if kind not in TYPES:
        raise source.fault(field, f"{name}: the type {kind} has no flag; choose from {'; '.join(TYPES)}")
    values = dict(zip(("default", "help"), map(source.literal, call.args), strict=False))
    values |= {str(word.arg): source.literal(word.value) for word in call.keywords}
    try:
        return OptionSpec(name, kind, **values)
    except TypeError as error:
        raise source.fault(field, f"{name}: option(...) takes no such arguments ({error})") from error
