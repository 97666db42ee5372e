"""Finds what other packages add by entry points, and their source files, without an import."""

from __future__ import annotations

import functools
import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pmi_cl.errors import UserError

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
    """

    kind: str
    name: str
    module: str
    attribute: str
    package: str

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
        try:
            return importlib.import_module(self.module)
        except Exception as error:  # whatever somebody's module does at import
            raise self.fault(f"{type(error).__name__}: {error}") from error

    def fault(self, message: str) -> UserError:
        """Return the error for an entry that cannot be used."""
        return UserError(
            f"{self} cannot be used ({self.module}:{self.attribute}: {message}): mend the package or uninstall it"
        )


@functools.cache
def extensions(kind: str) -> tuple[Extension, ...]:
    """Return the entry points of a kind, a key of ``GROUPS``, by name."""
    from importlib.metadata import entry_points

    points = sorted(entry_points(group=GROUPS[kind]), key=lambda point: point.name)
    return tuple(
        Extension(kind, p.name, p.module, p.attr, p.dist.name if p.dist else p.module.split(".")[0]) for p in points
    )


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
