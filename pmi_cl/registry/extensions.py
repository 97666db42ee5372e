"""What other packages add by entry points: found, and its source text located, without importing any of it."""

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
    """One entry point: ``name = "module:attribute"`` in the group of its kind, of an installed package."""

    kind: str
    name: str
    module: str
    attribute: str
    package: str

    def __str__(self) -> str:
        return f"the {WORDS[self.kind]} '{self.name}' of the package {self.package}"

    def load(self) -> Any:
        """The class or function itself. Raises UserError, which names the package, where it cannot be imported."""
        module = self.load_module()
        if not hasattr(module, self.attribute):
            raise self.fault("the module does not define it")
        return getattr(module, self.attribute)

    def load_module(self) -> ModuleType:
        """The module alone. Raises UserError."""
        try:
            return importlib.import_module(self.module)
        except Exception as error:  # whatever somebody's module does at import
            raise self.fault(f"{type(error).__name__}: {error}") from error

    def fault(self, message: str) -> UserError:
        """The error for an entry that cannot be used."""
        return UserError(
            f"{self} cannot be used ({self.module}:{self.attribute}: {message}): mend the package or uninstall it"
        )


@functools.cache
def extensions(kind: str) -> tuple[Extension, ...]:
    """The entry points of a kind (a key of ``GROUPS``), by name."""
    from importlib.metadata import entry_points

    points = sorted(entry_points(group=GROUPS[kind]), key=lambda point: point.name)
    return tuple(
        Extension(kind, p.name, p.module, p.attr, p.dist.name if p.dist else p.module.split(".")[0]) for p in points
    )


def source_file(module: str) -> Path | None:
    """The file of a module, found as an import would find it, without importing it or the packages above it; None where there is none."""
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
