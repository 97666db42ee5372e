"""Finds what other packages add by entry points, and their source files, without an import."""

from __future__ import annotations

import functools
import importlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pmi_cl.errors import UserError
from pmi_cl.machine.plain_text import excerpt

GROUPS = {
    "model": "pmi_cl.models",
    "dataset": "pmi_cl.datasets",
    "backbone": "pmi_cl.backbones",
    "inversion": "pmi_cl.inversion",
}
WORDS = {"model": "model", "dataset": "data set", "backbone": "backbone", "inversion": "part of an inversion"}


@dataclass(frozen=True)
class Extension:
    """One entry point of an installed package: ``name = "module:attribute"`` in a group.

    Attributes:
        kind: a key of ``GROUPS``.
        name: the name on the left.
        module, attribute: where its class or function is.
        package: the name of the installed package.
        wrong: what is wrong with the entry point itself; empty: nothing.
    """

    kind: str
    name: str
    module: str
    attribute: str
    package: str
    wrong: str = ""

    def __str__(self) -> str:
        return f"the {WORDS[self.kind]} '{self.name}' of the package {self.package}"

    def load(self) -> Any:
        """Import and return the class or function. Raise UserError, which names the package."""
        module = self.load_module()
        if not hasattr(module, self.attribute):
            raise self.fault("the module does not define it")
        return getattr(module, self.attribute)

    def load_module(self) -> ModuleType:
        """Import and return the module alone. Raise UserError as :meth:`load`."""
        self.check()
        try:
            return importlib.import_module(self.module)
        except (Exception, SystemExit) as error:  # whatever a module does at import: it may even exit
            raise self.fault(f"{type(error).__name__}: {error}") from error

    def check(self) -> None:
        """Raise UserError if the entry point itself is wrong."""
        if self.wrong:
            raise self.fault(self.wrong)

    def fault(self, message: str) -> UserError:
        """Return the error for an entry that cannot be used."""
        place = f"{self.module}:{self.attribute}: " if self.module else ""
        return UserError(f"{self} cannot be used ({place}{message}): mend the package or uninstall it")


@functools.cache
def extensions(kind: str) -> tuple[Extension, ...]:
    """Return the entry points of a kind, a key of ``GROUPS``, by name.

    A line that cannot be read is among them, with what is ``wrong`` with it. A package that is
    found twice counts once, as for an import.
    """
    from importlib.metadata import distributions

    found: dict[str, list[Extension]] = {}
    for installed in distributions():
        try:
            text = installed.read_text("entry_points.txt") or ""
            package = str(installed.name) if GROUPS[kind] in text else ""  # to look a name up takes long
        except Exception:  # whatever an installation has left that is damaged: it offers nothing
            continue
        if package:
            found.setdefault(package, list(_offered(kind, text, package)))
    return tuple(sorted((each for offered in found.values() for each in offered), key=lambda each: each.name))


def _offered(kind: str, text: str, package: str) -> Iterator[Extension]:
    """Yield what the entry_points.txt of a package offers in a group."""
    from configparser import ConfigParser, Error

    parser = ConfigParser(delimiters=("=",), allow_no_value=True, strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keep capitals
    try:
        parser.read_string(text)
    except Error as error:
        yield Extension(kind, "entry_points.txt", "", "", package, f"it is damaged: {excerpt(error)}")
        return
    for name, value in parser.items(GROUPS[kind]) if parser.has_section(GROUPS[kind]) else ():
        place = re.fullmatch(r"(\w+(?:[.]\w+)*)\s*:\s*(\w+)\s*(?:\[.*\])?", value or "")
        wrong = "" if place else f"'{excerpt(value or '')}' is not 'module:attribute'"
        yield Extension(kind, name, place[1] if place else "", place[2] if place else "", package, wrong)


def source_file(module: str) -> Path | None:
    """Return the file of a module, found as an import would find it; None if there is none.

    Neither the module nor the packages above it are imported.
    """
    place: Any = None
    origin: str | None = None
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        found = (finder.find_spec(name, place, None) for finder in sys.meta_path if hasattr(finder, "find_spec"))
        spec = next((spec for spec in found if spec is not None), None)
        if spec is None:
            return None
        place, origin = spec.submodule_search_locations, spec.origin
    return Path(origin) if origin and origin.endswith(".py") else None
