"""Lists methods, data sets and backbones with their options, read from source text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pmi_cl
from pmi_cl.errors import UserError, unknown_name
from pmi_cl.machine.plain_text import excerpt
from pmi_cl.registry.entry import KINDS, Entry, canonical
from pmi_cl.registry.entry_reader import EntryReader
from pmi_cl.registry.extensions import Extension, extensions
from pmi_cl.registry.files import files_below, names_in

__all__ = ["INSTALLED", "KINDS", "Catalogue", "Entry", "canonical", "entries", "find", "load"]

# What a backbone ends with that stands for many: the file's NAMES, or its check(), say for which.
FAMILY = ":NAME"


class Catalogue:
    """The methods, data sets and backbones below the given folders, and those of other packages.

    Attributes:
        outside: a kind to the entry points of other packages.
        broken: by kind and name, what is wrong with a file or an entry point that cannot be used.
    """

    def __init__(
        self, folders: Sequence[str | Path], outside: Callable[[str], Sequence[Extension]] = lambda kind: ()
    ) -> None:
        self.reader = EntryReader(folders)
        self.broken: dict[str, dict[str, UserError]] = {kind: {} for kind in KINDS}
        self.outside = outside
        self._entries: dict[str, tuple[Entry, ...]] = {}

    def entries(self, kind: str) -> tuple[Entry, ...]:
        """Return the entries of a kind that can be used, by name.

        An entry that cannot be used stops nothing else: ``broken`` says what is wrong with it.
        """
        if kind not in self._entries:
            found: dict[str, Entry] = {}
            files = files_below(self.reader.folders, kind)
            for stem, path in files.items():
                try:
                    made = self.reader.entries_of(kind, f"pmi_cl.{kind}s.{stem}".removesuffix("."), path)
                except Exception as error:  # whatever reading somebody's file comes to
                    self._break_file(kind, stem, path, _as_user_error(error, path), found)
                    continue
                for entry in made:
                    self._add(entry, path, found)
            for module, fault in self.reader.nameless(kind):
                self._break_file(kind, module.removeprefix(f"pmi_cl.{kind}s."), None, fault, found)
            for extension in self.outside(kind):
                self._add_extension(extension, found)
            self._entries[kind] = tuple(found[name] for name in sorted(found))
        return self._entries[kind]

    def _add(self, entry: Entry, path: Path, found: dict[str, Entry]) -> None:
        """Add an entry. Two entries of the same name are both broken: which is meant is unknown."""
        name = canonical(entry.name)
        if name in found:
            theirs = self.reader.source(found[name].module)
            both = f"{theirs.path if theirs else found[name].module} and {path}"
            fault = f"the {KINDS[entry.kind]} name '{entry.name}' is taken twice, by {both}: change one"
            self._break(entry.kind, name, UserError(fault), found)
        elif name not in self.broken[entry.kind]:
            found[name] = entry

    def _break_file(self, kind: str, stem: str, path: Path | None, error: UserError, found: dict[str, Entry]) -> None:
        """Note what is wrong with a file, under the names that it seems to define or its own."""
        for name in (names_in(path, kind) if path else []) or [stem]:
            self._break(kind, name, UserError(f"the {KINDS[kind]} '{name}' cannot be used: {error}"), found)

    def _break(self, kind: str, name: str, error: UserError, found: dict[str, Entry]) -> None:
        found.pop(canonical(name), None)
        self.broken[kind].setdefault(canonical(name), error)

    def _add_extension(self, extension: Extension, found: dict[str, Entry]) -> None:
        """Add an entry of another package, or note what is wrong with it."""
        name = canonical(extension.name)
        try:
            if name in found:
                raise extension.fault(f"the name is taken by {found[name].module}")
            found[name] = self.reader.entry_of(extension)
        except Exception as fault:  # whatever reading somebody's package comes to
            error = _as_user_error(fault, extension.module)
            named = str(extension) in str(error)
            self.broken[extension.kind].setdefault(name, error if named else extension.fault(str(error)))

    def find(self, kind: str, name: str) -> Entry:
        """Return the entry of that name; case, ``_`` and ``-`` make no difference.

        Raises:
            UserError: there is none (it gives the nearest names), or its file cannot be read (it
                gives the file and the line).
        """
        known = {canonical(entry.name): entry for entry in self.entries(kind)}
        prefix, colon, member = name.partition(":")
        family = known.get(canonical(prefix + FAMILY)) if colon else None
        if family is not None:
            return _member(family, member)
        if canonical(name) in self.broken[kind]:
            raise self.broken[kind][canonical(name)]
        if canonical(name) not in known:
            raise self._unknown(kind, name, [entry.name for entry in known.values()])
        return known[canonical(name)]

    def _unknown(self, kind: str, name: str, known: Sequence[str]) -> UserError:
        """Return the error for an unknown name. It mentions unreadable files: one may be meant."""
        error = unknown_name(KINDS[kind], name, known)
        broken = ", ".join(self.broken[kind])
        return UserError(f"{error} ({broken} cannot be used: --list says why)") if broken else error

    def load(self, kind: str, name: str) -> Any:
        """Return the class or function itself, which imports its module, and torch with it."""
        return self.find(kind, name).load()

    def preset_path(self, model: str) -> Path | None:
        """Return the file of presets of a method: in ``models/config``, or beside the method."""
        paths = [folder / "models" / "config" / f"{model}.yaml" for folder in self.reader.folders]
        entry = next((entry for entry in self.entries("model") if canonical(entry.name) == canonical(model)), None)
        source = self.reader.source(entry.module) if entry else None
        paths += [source.path.with_name(f"{model}.yaml")] if source else []
        return next((path for path in paths if path.is_file()), None)


def _as_user_error(error: Exception, place: Path | str) -> UserError:
    """Return the line for a file that cannot be read, such as one of expressions without end."""
    if isinstance(error, UserError):
        return error
    return UserError(f"{place}: cannot be read ({type(error).__name__}: {excerpt(error)})")


def _member(family: Entry, name: str) -> Entry:
    """Return the member of a family: "clip:NAME" and the name "vit-b-16" give "clip:ViT-B-16".

    A family whose file has no NAMES takes any name: its ``check`` decides.
    """
    prefix = family.name.removesuffix(FAMILY[1:])
    if "NAMES" not in family.constants:
        if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII) or name == FAMILY[1:]:
            raise UserError(f"--backbone {prefix}{name}: write a name of {prefix[:-1]}'s after the colon")
        return replace(family, name=prefix + name.lower().replace("-", "_"))
    names = {canonical(member): prefix + member for member in family.constants.get("NAMES", ())}
    if canonical(name) not in names:
        raise unknown_name("backbone", prefix + name, names.values())
    return replace(family, name=names[canonical(name)])


INSTALLED = Catalogue(
    pmi_cl.__path__, extensions
)  # the package's own folders; a reader without files until it is asked
entries = INSTALLED.entries
find = INSTALLED.find
load = INSTALLED.load
