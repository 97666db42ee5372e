"""Reads classes, their bases, literal attributes and options from text, without running it."""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pmi_cl.errors import UserError
from pmi_cl.options import NewDefault, OptionSpec, new_default
from pmi_cl.registry.extensions import source_file
from pmi_cl.registry.source import NOT_LITERAL, Definition, Source, assignments

# Attributes that the command needs before anything is imported: computed ones are refused.
READ_OF_CLASSES = ("NAME", "Options", "BACKBONE_KIND", "COMPATIBILITY", "DEFAULTS", "JOINT")
READ_OF_BACKBONES = ("BACKBONES", "Options", "KIND", "LACKS", "NAMES")
ROOTS = (
    "pmi_cl.models.continual_model",
    "pmi_cl.datasets.continual_dataset",
)  # the modules of the base classes of all methods and data sets
PACKAGE = "pmi_cl"

ClassFound = tuple[Source, ast.ClassDef]


class SourceReader:
    """Parses modules, each once: those of ``pmi_cl`` in the given folders, and other packages'.

    Attributes:
        folders: where the modules of ``pmi_cl`` lie, like the ``__path__`` of the package.
    """

    def __init__(self, folders: Sequence[str | Path]) -> None:
        self.folders = [Path(folder) for folder in folders]
        self._sources: dict[str, Source | None] = {}
        self._mirrors: dict[tuple[str, str, int], type] = {}
        self._bases: set[tuple[str, str, int]] = set()
        self._under_way: set[tuple[str, str, int]] = set()
        self._declared: dict[tuple[str, str, int], tuple[OptionSpec, ...]] = {}

    def source(self, module: str) -> Source | None:
        """Return the parsed module; None if there is no file. Raise UserError for wrong syntax."""
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
        except (RecursionError, MemoryError) as error:  # without a text of their own
            raise UserError(f"{path}: cannot be read as Python: an expression in it is too long or too deep") from error
        except (ValueError, OSError) as error:
            raise UserError(f"{path}: cannot be read as Python: {error}") from error

    def _path(self, module: str) -> Path | None:
        package, *inner = module.split(".")
        if package != PACKAGE:
            return source_file(module)
        if not inner:
            return None
        places = [folder.joinpath(*inner) for folder in self.folders]
        files = (path for place in places for path in (place.with_name(f"{place.name}.py"), place / "__init__.py"))
        return next((path for path in files if path.is_file()), None)

    def resolve(self, source: Source, node: ast.expr, before: int | None = None) -> tuple[Source, Definition] | None:
        """Return the class or function that a name, or ``module.name``, means inside ``source``.

        Imports are followed from file to file. None: the name comes from a file that is not read.

        Args:
            before: line above which a definition of the same file has to stand.
        """
        names = _dotted(node)
        return self._named(source, names, before, set()) if names else None

    def _named(
        self, source: Source, names: Sequence[str], before: int | None, seen: set[tuple[str, str]]
    ) -> tuple[Source, Definition] | None:
        first, *rest = names
        node = source.defined(first, before)
        if node is not None:
            return None if rest else (source, node)
        if first not in source.imports or (source.name, first) in seen:  # seen: two files import it from each other
            return None
        module, inside = source.imports[first]
        if source.name.split(".")[0] == PACKAGE != module.split(".")[0]:
            return None  # torch and the like, which take long to parse
        return self._inside(module, [*inside, *rest], {*seen, (source.name, first)})

    def _inside(
        self, module: str, names: Sequence[str], seen: set[tuple[str, str]]
    ) -> tuple[Source, Definition] | None:
        """Return what ``names`` mean in a module, or in the modules below it."""
        if not names or module.split(".")[0] in sys.stdlib_module_names:
            return None
        source = self.source(module)
        found = self._named(source, names, None, seen) if source else None
        return found or self._inside(f"{module}.{names[0]}", names[1:], seen)

    def lineage(self, source: Source, node: ast.ClassDef) -> list[ClassFound]:
        """Return the class and the bases that are read, in the reverse of Python's own order.

        Raises:
            UserError: a base that cannot be found, or bases that contradict each other.
        """
        return [vars(owner)["origin"] for owner in reversed(self._mirrored(source, node).__mro__[:-1])]

    def _mirrored(self, source: Source, node: ast.ClassDef) -> type:
        """Return an empty class with the same name and bases, for Python to order them."""
        key = _key(source, node)
        if key in self._under_way:
            raise source.fault(node, f"{node.name} is a base class of itself")
        if key not in self._mirrors:
            self._under_way.add(key)
            try:
                self._mirrors[key] = self._mirror(source, node)
            finally:
                self._under_way.remove(key)
        return self._mirrors[key]

    def _mirror(self, source: Source, node: ast.ClassDef) -> type:
        bases, unread = [], []
        for base in node.bases:
            found = self._base(source, node, base)
            if found:
                self._bases.add(_key(*found))
                bases.append(self._mirrored(*found))
            elif not _is_pythons(source, base):
                unread.append(base)
        try:
            return type(node.name, tuple(bases), {"origin": (source, node), "unread": unread})
        except TypeError as error:  # bases that contradict each other
            raise source.fault(node, f"{node.name}: {error}") from error

    def _base(self, source: Source, node: ast.ClassDef, base: ast.expr) -> ClassFound | None:
        """Return the class that a base names; None: it is not read. Raise UserError if missing."""
        base = base.value if isinstance(base, ast.Subscript) else base  # Generic[T]
        names = _dotted(base)
        if not names:
            raise source.fault(base, f"{node.name}: write its base class by name: '{ast.unparse(base)}' is not read")
        found = self.resolve(source, base, node.lineno)
        if found and isinstance(found[1], ast.ClassDef):
            return found[0], found[1]
        if found or _home(source, names) == PACKAGE:
            raise source.fault(base, f"{node.name}: there is no class {ast.unparse(base)} where it is imported from")
        if names[0] not in source.imports and not _is_pythons(source, base):
            stars = " (name it in the import: 'import *' is not followed)" if "*" in source.imports else ""
            where = "is not defined above, or imported at the top level of this file"
            raise source.fault(base, f"{node.name}: its base class {ast.unparse(base)} {where}{stars}")
        return None

    def is_base(self, source: Source, node: ast.ClassDef) -> bool:
        """Whether a class that was read derives from this one."""
        return _key(source, node) in self._bases

    def check_bases(self, source: Source, node: ast.ClassDef, roots: Sequence[str] = ROOTS) -> None:
        """Refuse a class with a base that is not read, unless another base is in ``roots``."""
        family = self.lineage(source, node)
        if any(owner.name in roots for owner, _ in family):
            return
        for owner_source, owner in family:
            for base in vars(self._mirrored(owner_source, owner))["unread"]:
                message = f"{owner.name}: what its base class {ast.unparse(base)} declares cannot be read"
                raise owner_source.fault(
                    base, f"{message}: derive it from a class of pmi_cl by 'from pmi_cl.x import Y'"
                )

    def constants(self, source: Source, node: ast.ClassDef) -> dict[str, Any]:
        """Return the class attributes in capitals that are literals, inherited ones included.

        Raises:
            UserError: one of ``READ_OF_CLASSES`` is computed, or not assigned on a line of its own.
        """
        found: dict[str, Any] = {}
        for owner_source, owner in self.lineage(source, node):
            found = self._constants(owner_source, owner.body, READ_OF_CLASSES, found)
        return found

    def constants_of_backbones(self, source: Source) -> dict[str, Any]:
        """Return the literals in capitals of a file of backbones. Raise as :meth:`constants`."""
        return self._constants(source, source.tree.body, READ_OF_BACKBONES, {})

    def _constants(
        self, source: Source, body: Sequence[ast.stmt], read: Sequence[str], inherited: dict[str, Any]
    ) -> dict[str, Any]:
        found = dict(inherited)
        for name, value in source.values(body, read).items():
            if not name.isupper():
                continue
            if name in read:
                found[name] = source.literal(value)
                continue
            try:
                found[name] = ast.literal_eval(value)
            except NOT_LITERAL:
                found.pop(name, None)  # computed: only the imported code knows it
        return found

    def declared_options(self, source: Source, node: ast.ClassDef) -> tuple[OptionSpec, ...]:
        """Return the options of the dataclass that the class, or its nearest base, names."""
        options: tuple[OptionSpec, ...] = ()
        for owner_source, owner in self.lineage(source, node):
            value = owner_source.values(owner.body, READ_OF_CLASSES).get("Options")
            if value is not None:
                options = self._options_named(owner_source, value)
        return options

    def module_options(self, source: Source) -> tuple[OptionSpec, ...]:
        """Return the options of the dataclass that ``Options`` names in a file of backbones."""
        value = source.values(source.tree.body, READ_OF_BACKBONES).get("Options")
        return () if value is None else self._options_named(source, value)

    def _options_named(self, source: Source, value: ast.expr) -> tuple[OptionSpec, ...]:
        found = self.resolve(source, value)
        if found is None or not isinstance(found[1], ast.ClassDef):
            raise source.fault(
                value, "Options must name a dataclass of this file or one imported by 'from pmi_cl.x import Y'"
            )
        return self.options(found[0], found[1])

    def options(self, source: Source, node: ast.ClassDef) -> tuple[OptionSpec, ...]:
        """Return the fields of a dataclass made by ``option(...)``, in the order of the dataclass.

        Raises:
            UserError: another kind of field, a base that is not read, or no ``@dataclass``.
        """
        self.check_bases(source, node, roots=())
        specs: dict[str, OptionSpec] = {}
        for owner_source, owner in self.lineage(source, node):
            key = _key(owner_source, owner)
            if key not in self._declared:
                bases = self.lineage(owner_source, owner)[:-1]
                inherited = {spec.name: spec for base in bases for spec in self._declared[_key(*base)]}
                self._declared[key] = tuple(_declared(owner_source, owner, inherited))
            specs |= {spec.name: spec for spec in self._declared[key]}
        return tuple(specs.values())


def _declared(source: Source, node: ast.ClassDef, inherited: Mapping[str, OptionSpec]) -> Iterator[OptionSpec]:
    """Yield the options that a dataclass itself declares. Raise UserError for other lines."""
    fields = 0
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield _option(source, statement, statement.target.id, inherited)
            fields += 1
        elif any(_maker(value) or name in inherited for name, value in assignments([statement])):
            raise source.fault(statement, f"{node.name}: write its type, too, as in 'lr: float = option(...)'")
        elif not isinstance(statement, ast.Expr | ast.Pass | ast.FunctionDef | ast.Assign):
            raise source.fault(statement, f"{node.name}: declare its options one below the other: this is not read")
    decorators = [node.func if isinstance(node, ast.Call) else node for node in node.decorator_list]
    if fields and not any(ast.unparse(decorator).endswith("dataclass") for decorator in decorators):
        raise source.fault(node, f"{node.name}: write @dataclass(frozen=True) above it: without it it has no options")


def _option(source: Source, field: ast.AnnAssign, name: str, inherited: Mapping[str, OptionSpec]) -> OptionSpec:
    call, maker = field.value, _maker(field.value)
    if not isinstance(call, ast.Call) or not maker:
        raise source.fault(field, f"{name}: make the field with option(default, help, ...) from pmi_cl.options")
    if maker == "new_default" and name not in inherited:
        raise source.fault(field, f"{name}: no base class has this option: make it with option(default, help, ...)")
    values = [source.literal(value) for value in call.args]
    facts = {str(word.arg): source.literal(word.value) for word in call.keywords}
    type_name = ast.unparse(field.annotation)
    try:
        if maker == "option":
            return OptionSpec(name, type_name, *values, **facts)
        changed: NewDefault = new_default(*values, **facts).metadata["spec"]
        return changed.of(inherited[name], type_name)
    except TypeError as error:
        raise source.fault(field, f"{name}: {maker}(...) takes no such arguments ({error})") from error
    except ValueError as error:
        raise source.fault(field, f"{name}: {error}") from error


def _maker(node: ast.expr | None) -> str:
    """Return "option" or "new_default" for a call of one of them, else an empty text."""
    called = ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""
    return called if called in ("option", "new_default") else ""


def _dotted(node: ast.expr) -> list[str]:
    """Return the parts of ``a.b.c``; nothing for another expression."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else []


def _home(source: Source, names: Sequence[str]) -> str:
    """Return the top-level package that a name is imported from; empty where it is not imported."""
    return source.imports[names[0]][0].split(".")[0] if names[0] in source.imports else ""


def _is_pythons(source: Source, base: ast.expr) -> bool:
    """Return whether a base class is one of Python itself, such as ``ABC``: it has no options."""
    names = _dotted(base.value if isinstance(base, ast.Subscript) else base)
    home = _home(source, names)
    return home in sys.stdlib_module_names if home else len(names) == 1 and hasattr(builtins, names[0])


def _key(source: Source, node: ast.ClassDef) -> tuple[str, str, int]:
    return source.name, node.name, node.lineno
