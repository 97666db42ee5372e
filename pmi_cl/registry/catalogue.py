"""Lists the methods, data sets and backbones with their options by reading source text, so that ``--help`` never imports torch."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pmi_cl
from pmi_cl.errors import UserError, unknown_name
from pmi_cl.registry.extensions import Extension, extensions
from pmi_cl.registry.source_reader import OptionSpec, Source, SourceReader, assignments

__all__ = ["INSTALLED", "KINDS", "Catalogue", "Entry", "OptionSpec", "canonical", "entries", "find", "load"]

KINDS = {
    "model": "model",
    "dataset": "data set",
    "backbone": "backbone",
}  # kind -> its name in a sentence; the folder is the kind's plural
FAMILY = ":NAME"  # what a backbone ends with that stands for many: the file's NAMES says for which


@dataclass(frozen=True)
class Entry:
    """One method, data set or backbone.

    Attributes:
        kind: "model", "dataset" or "backbone".
        module, attribute: where its class or function is, for :meth:`Catalogue.load`.
        summary: first line of its docstring.
        options: its flags.
        constants: its class attributes in capitals that are literals (``N_CLASSES``, ``N_TASKS``, ``DEFAULTS``), inherited ones included;
            of a backbone, those of its file (``KIND``).
        extension: where another package has brought it.
    """

    kind: str
    name: str
    module: str
    attribute: str
    summary: str
    options: tuple[OptionSpec, ...] = ()
    constants: dict[str, Any] = field(default_factory=dict)
    extension: Extension | None = None

    def load(self) -> Any:
        """The class or function itself: imports its module, and torch with it. Raises UserError where another package's fails to import."""
        return self.extension.load() if self.extension else getattr(self.load_module(), self.attribute)

    def load_module(self) -> ModuleType:
        """The module alone."""
        return self.extension.load_module() if self.extension else importlib.import_module(self.module)


def canonical(name: str) -> str:
    """The spelling under which names are compared: case, ``_`` and ``-`` make no difference."""
    return name.strip().lower().replace("_", "-")


class Catalogue:
    """What the folders ``models``, ``datasets`` and ``backbones`` below the given folders hold, and what other packages add.

    Attributes:
        outside: a kind to the entry points of other packages.
        broken: by kind and name, what is wrong with a file, or with an entry of another package, that cannot be used.
    """

    def __init__(
        self, folders: Sequence[str | Path], outside: Callable[[str], Sequence[Extension]] = lambda kind: ()
    ) -> None:
        self.reader = SourceReader(folders)
        self.broken: dict[str, dict[str, UserError]] = {kind: {} for kind in KINDS}
        self.outside = outside
        self._entries: dict[str, tuple[Entry, ...]] = {}

    def entries(self, kind: str) -> tuple[Entry, ...]:
        """All entries of a kind that can be used, by name; what is wrong with others is in ``broken``: they stop nothing else."""
        if kind not in self._entries:
            found: dict[str, Entry] = {}
            mark = "BACKBONES" if kind == "backbone" else "NAME"
            for stem, path in self._files(f"{kind}s", mark).items():
                try:
                    source = self.reader.source(f"pmi_cl.{kind}s.{stem}")
                    assert source is not None
                    made = list(self._backbones(source) if kind == "backbone" else self._classes(kind, source))
                except UserError as error:
                    for name in _names_in(path, mark) or [stem]:
                        self._break(kind, name, f"the {KINDS[kind]} '{name}' cannot be used: {error}", found)
                    continue
                for entry in made:
                    self._take_up(entry, path, found)
            for extension in self.outside(kind):
                self._add(extension, found)
            self._entries[kind] = tuple(found[name] for name in sorted(found))
        return self._entries[kind]

    def _take_up(self, entry: Entry, path: Path, found: dict[str, Entry]) -> None:
        """Of two files with one name nobody can say which was meant."""
        other = found.get(canonical(entry.name))
        if other is not None:
            theirs = self.reader.source(other.module)
            both = f"{theirs.path if theirs else other.module} and {path}"
            self._break(
                entry.kind,
                entry.name,
                f"the {KINDS[entry.kind]} name '{entry.name}' is taken twice, by {both}: change one",
                found,
            )
        elif canonical(entry.name) not in self.broken[entry.kind]:
            found[canonical(entry.name)] = entry

    def _break(self, kind: str, name: str, fault: str, found: dict[str, Entry]) -> None:
        found.pop(canonical(name), None)
        self.broken[kind].setdefault(canonical(name), UserError(fault))

    def _add(self, extension: Extension, found: dict[str, Entry]) -> None:
        """Take up an entry of another package, or note what is wrong with it: one bad package must not stop the rest."""
        name = canonical(extension.name)
        try:
            if name in found:
                raise extension.fault(f"the name is taken by {found[name].module}")
            found[name] = self._read(extension)
        except UserError as error:
            told = str(extension) in str(error)
            self.broken[extension.kind].setdefault(name, error if told else extension.fault(str(error)))

    def _read(self, extension: Extension) -> Entry:
        self.reader.outside.add(extension.module.split(".")[0])
        source = self.reader.source(extension.module)
        if source is None:
            raise extension.fault("there is no such module")
        for node in source.definitions.values():
            if node.name == extension.attribute:
                made = self._backbone(source, node, extension.name) if extension.kind == "backbone" else None
                entry = made or next(iter(self._classes(extension.kind, source, node)), None)
                if entry is not None and canonical(entry.name) == canonical(extension.name):
                    return replace(entry, extension=extension)
                raise extension.fault(f"its NAME must be '{extension.name}'")
        raise extension.fault("the module does not define it")

    def find(self, kind: str, name: str) -> Entry:
        """The entry of that name (case, ``_`` and ``-`` make no difference). Raises UserError with the nearest names."""
        known = {canonical(entry.name): entry for entry in self.entries(kind)}
        prefix, colon, member = name.partition(":")
        family = known.get(canonical(prefix + FAMILY)) if colon else None
        if family is not None:
            return _member(family, member)
        if canonical(name) in self.broken[kind]:
            raise self.broken[kind][canonical(name)]
        if canonical(name) not in known:
            raise unknown_name(KINDS[kind], name, [entry.name for entry in known.values()])
        return known[canonical(name)]

    def load(self, kind: str, name: str) -> Any:
        """The class or function itself: imports its module (and torch with it)."""
        return self.find(kind, name).load()

    def options(self, module: str, attribute: str) -> tuple[OptionSpec, ...]:
        """The options of one dataclass of the package, such as ``RunOptions``."""
        source = self.reader.source(module)
        found = self.reader.resolve(source, attribute) if source else None
        if found is None:
            raise LookupError(f"{module} has no class {attribute}")
        return self.reader.options(*found)

    def preset_path(self, model: str) -> Path | None:
        """The file with the presets of a method, where it has one; of another package, beside the method's own file."""
        paths = [folder / "models" / "config" / f"{model}.yaml" for folder in self.reader.folders]
        module = next(
            (e.module for e in self.entries("model") if e.extension and canonical(e.name) == canonical(model)), None
        )
        source = self.reader.source(module) if module else None
        paths += [source.path.with_name(f"{model}.yaml")] if source else []
        return next((path for path in paths if path.is_file()), None)

    def _files(self, folder: str, mark: str) -> dict[str, Path]:
        """The modules of a folder in which ``mark`` stands; parsing all the others would take most of the time of ``--list``."""
        roots = reversed(self.reader.folders)  # of two files with one name the first folder's counts
        found = {
            ".".join(path.relative_to(root / folder).with_suffix("").parts): path
            for root in roots
            for path in (root / folder).rglob("[!_]*.py")
            if _holds(path, mark)
        }
        return dict(sorted(found.items()))

    def _classes(self, kind: str, source: Source, *nodes: ast.ClassDef | ast.FunctionDef) -> Iterator[Entry]:
        for node in nodes or source.definitions.values():
            own = dict(assignments(node.body)) if isinstance(node, ast.ClassDef) else {}
            name = source.literal(own["NAME"]) if "NAME" in own else ""
            if isinstance(node, ast.ClassDef) and name:  # a base class has no name, or an empty one
                options = self.reader.declared_options(source, node)
                yield Entry(
                    kind, name, source.name, node.name, _summary(node), options, self.reader.constants(source, node)
                )

    def _backbones(self, source: Source) -> Iterator[Entry]:
        names = dict(assignments(source.tree.body)).get("BACKBONES")
        for name, attribute in (source.literal(names) if names else {}).items():
            if attribute not in source.definitions:
                raise UserError(f"{source.path}: BACKBONES names '{attribute}', which the file does not define")
            yield self._backbone(source, source.definitions[attribute], name)

    def _backbone(self, source: Source, node: ast.ClassDef | ast.FunctionDef, name: str) -> Entry:
        constants = self.reader.literal_constants(source.tree.body)
        return Entry(
            "backbone", name, source.name, node.name, _summary(node), self.reader.module_options(source), constants
        )


def _holds(path: Path, mark: str) -> bool:
    try:
        return mark.encode() in path.read_bytes()
    except OSError:
        return True  # the reader says what is wrong with it


def _names_in(path: Path, mark: str) -> list[str]:
    """What a file that cannot be parsed seems to define: who chooses that is told what is wrong with the file."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    if mark == "NAME":
        return re.findall(r"""^\s+NAME\b[^=\n]*=\s*["']([^"'\n]+)""", text, re.MULTILINE)
    written = re.search(r"^BACKBONES\b[^{]*\{([^}]*)", text, re.MULTILINE)
    return re.findall(r"""["']([^"'\n]+)["']\s*:""", written[1]) if written else []


def _member(family: Entry, name: str) -> Entry:
    """The backbone of a family that ``name`` means: "clip:NAME" and "vit-b-16" give "clip:ViT-B-16"."""
    prefix = family.name.removesuffix(FAMILY[1:])
    names = {canonical(member): prefix + member for member in family.constants["NAMES"]}
    if canonical(name) not in names:
        raise unknown_name("backbone", prefix + name, names.values())
    return replace(family, name=names[canonical(name)])


def _summary(node: ast.ClassDef | ast.FunctionDef) -> str:
    return (ast.get_docstring(node) or "").partition("\n")[0]


INSTALLED = Catalogue(
    pmi_cl.__path__, extensions
)  # the package's own folders; a reader without files until it is asked
entries = INSTALLED.entries
find = INSTALLED.find
load = INSTALLED.load
