"""Makes the entries of the catalogue from the source text of files and entry points."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pmi_cl.errors import UserError
from pmi_cl.machine.plain_text import excerpt
from pmi_cl.registry.entry import Entry, canonical
from pmi_cl.registry.extensions import Extension
from pmi_cl.registry.files import what_it_is
from pmi_cl.registry.source import Definition, Source, statements
from pmi_cl.registry.source_reader import READ_OF_BACKBONES, READ_OF_CLASSES, SourceReader

LONGEST_NAME = 100  # letters of a NAME
TYPES: dict[str, tuple[Any, str]] = {
    "DEFAULTS": (dict, "{'option': value}"),
    "LACKS": (dict, "{'option': 'why there is none'}"),
    "NAMES": ((tuple, list), "('name', ...)"),
    "BACKBONE_KIND": (str, "a text"),
    "KIND": (str, "a text"),
    "N_CLASSES": (int, "a whole number"),
    "N_TASKS": (int, "a whole number, or None"),
    "NAMES_UNSEEN": (bool, "True or False"),
    "KEEPS_IMAGES": (bool, "True or False"),
    "KEEPS_STATISTICS": (bool, "True or False"),
    "NEEDS_STATISTICS": (bool, "True or False"),
    "OWN_TASKS": (bool, "True or False"),
}  # of the constants that the command reads before anything is imported
ELSEWHERE = "write NAME = '...' inside a class at the top level of the file: it is read without running the file"


class EntryReader(SourceReader):
    """A reader of source text that knows what methods, data sets and backbones look like."""

    def __init__(self, folders: Sequence[str | Path]) -> None:
        super().__init__(folders)
        self._nameless: dict[str, list[tuple[Source, ast.ClassDef, ast.stmt]]] = {}

    def entries_of(self, kind: str, module: str, path: Path) -> list[Entry]:
        """Return the entries of a file. Raise UserError, with the line, for unreadable ones."""
        fault = what_it_is(path)
        if fault:
            raise UserError(fault)
        source = self.source(module)
        if source is None or source.path != path:
            raise UserError(
                f"{path}: it cannot be imported as {module}: give the file, and its folders, names without a dot"
            )
        return list(self._backbones(source) if kind == "backbone" else self._classes(kind, source))

    def _classes(self, kind: str, source: Source) -> Iterator[Entry]:
        _refuse_hidden_names(source)
        for node in source.definitions:
            entry = self._class(kind, source, node) if isinstance(node, ast.ClassDef) else None
            if entry is not None and source.defined(node.name) is not node:
                raise source.fault(node, f"a class {node.name} is defined again below: rename one of them")
            if entry is not None:
                yield entry

    def _class(self, kind: str, source: Source, node: ast.ClassDef) -> Entry | None:
        """Return the entry of a class; None for a base class, which has no name or an empty one."""
        value = source.values(node.body, READ_OF_CLASSES).get("NAME")
        if value is None:
            self._nameless.setdefault(kind, []).extend(
                (source, node, line) for line in node.body if _only_annotated(line)
            )
            return None
        name = source.text(value, "NAME")
        if not name:
            return None
        if not _is_folder_name(name):
            raise source.fault(value, f"NAME {name!r}: use letters, digits and - _ . +, as for a folder")
        self.check_bases(source, node)
        constants, options = self.constants(source, node), self.declared_options(source, node)
        _check_types(source, node, constants)
        return Entry(kind, name, source.name, node.name, _summary(node), options, constants)

    def nameless(self, kind: str) -> Iterator[tuple[str, UserError]]:
        """Yield (module, fault) for each class that has a type of NAME only and is no base."""
        for source, node, line in self._nameless.get(kind, []):
            if not self.is_base(source, node):
                yield source.name, source.fault(line, f"{node.name}: give NAME a value, NAME = '...'")

    def _backbones(self, source: Source) -> Iterator[Entry]:
        names = source.values(source.tree.body, READ_OF_BACKBONES).get("BACKBONES")
        written = source.literal(names) if names is not None else {}
        if not isinstance(written, dict) or not all(isinstance(word, str) for pair in written.items() for word in pair):
            raise source.fault(names or source.tree, "BACKBONES must be {'name': 'function', ...}")
        for name, attribute in written.items():
            found = self.resolve(source, ast.Name(attribute))
            if found is None:
                raise source.fault(
                    names or source.tree, f"BACKBONES names '{attribute}', which the file does not define or import"
                )
            yield self._backbone(source, found[1], name, attribute)

    def _backbone(self, source: Source, node: Definition, name: str, attribute: str) -> Entry:
        options, constants = self.module_options(source), self.constants_of_backbones(source)
        _check_types(source, node, constants)
        return Entry("backbone", name, source.name, attribute, _summary(node), options, constants)

    def entry_of(self, extension: Extension) -> Entry:
        """Return the entry of an entry point. Raise UserError if its source cannot be read."""
        extension.check()
        source = self.source(extension.module)
        if source is None:
            raise extension.fault("there is no such module")
        found = self.resolve(source, ast.Name(extension.attribute))
        if found is None:
            raise extension.fault("the module does not define it")
        owner, node = found
        if extension.kind == "backbone":
            entry: Entry | None = self._backbone(source, node, extension.name, extension.attribute)
        else:
            entry = self._class(extension.kind, owner, node) if isinstance(node, ast.ClassDef) else None
        if entry is None or canonical(entry.name) != canonical(extension.name):
            raise extension.fault(f"its NAME must be '{extension.name}'")
        return replace(entry, extension=extension)


def _refuse_hidden_names(source: Source) -> None:
    """Refuse a NAME in a class inside an ``if`` or a function, and one that is set from outside."""
    for statement in statements(source.tree.body, functions=True):
        if isinstance(statement, ast.ClassDef):
            if statement not in source.definitions and "NAME" in source.values(statement.body, ("NAME",)):
                raise source.fault(statement, f"{statement.name}: {ELSEWHERE}")
        elif isinstance(statement, ast.Assign):
            for target in statement.targets:
                if isinstance(target, ast.Attribute) and target.attr in ("NAME", "Options") and not _is_self(target):
                    raise source.fault(statement, ELSEWHERE.replace("NAME", target.attr))


def _check_types(source: Source, node: Definition, constants: dict[str, Any]) -> None:
    """Raise UserError if a constant that the command works with is of another type."""
    for name, (allowed, words) in TYPES.items():
        value = constants.get(name)
        if value is not None and (not isinstance(value, allowed) or isinstance(value, bool) != (allowed is bool)):
            raise source.fault(node, f"{node.name}: {name} must be {words}, not {excerpt(value)}")
        if isinstance(value, dict | tuple | list) and not all(isinstance(item, str) for item in value):
            raise source.fault(node, f"{node.name}: {name} must be {words}: its names are texts in quotes")


def _is_folder_name(name: str) -> bool:
    """Whether a name can be that of a folder: a run lies in one that is called like its method."""
    return name.isprintable() and len(name) <= LONGEST_NAME and not set("/\\ ") & set(name) and name.strip(".") != ""


def _is_self(target: ast.Attribute) -> bool:
    return isinstance(target.value, ast.Name) and target.value.id == "self"


def _only_annotated(line: ast.stmt) -> bool:
    named = isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.target.id == "NAME"
    return named and isinstance(line, ast.AnnAssign) and line.value is None


def _summary(node: Definition) -> str:
    return (ast.get_docstring(node) or "").partition("\n")[0]
