"""An entry of the catalogue: what is known of a method, data set or backbone before its import."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from pmi_cl.errors import UserError
from pmi_cl.options import OptionSpec
from pmi_cl.registry.extensions import Extension

KINDS = {
    "model": "model",
    "dataset": "data set",
    "backbone": "backbone",
}  # kind -> its name in a sentence; the folder is the kind's plural


@dataclass(frozen=True)
class Entry:
    """One method, data set or backbone.

    Attributes:
        kind: "model", "dataset" or "backbone".
        module, attribute: where its class or function is, for :meth:`load`.
        summary: first line of its docstring.
        options: its flags.
        constants: its class attributes in capitals that are literals (``N_CLASSES``, ``DEFAULTS``),
            inherited ones included; of a backbone, those of its file (``KIND``).
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
        """Return the class or function itself, which imports its module, and torch with it.

        Raises:
            UserError: another package's cannot be imported, or the module ends Python.
        """
        return self.extension.load() if self.extension else getattr(self.load_module(), self.attribute)

    def load_module(self) -> ModuleType:
        """Return the module alone. Raise UserError as :meth:`load`."""
        if self.extension:
            return self.extension.load_module()
        try:
            return importlib.import_module(self.module)
        except SystemExit as error:
            raise UserError(f"{self.module} cannot be used: it ends Python when it is imported ({error})") from error


def canonical(name: str) -> str:
    """Return the spelling that names are compared in: case, ``_`` and ``-`` make no difference."""
    return name.strip().lower().replace("_", "-")
