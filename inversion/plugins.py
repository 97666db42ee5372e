"""Starts and terms of an inversion that other packages offer, by the name of their entry point in the group ``pmi_cl.inversion``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pmi_cl.errors import unknown_name
from pmi_cl.extensions import Extension, extensions
from pmi_cl.inversion.objectives import Term
from pmi_cl.inversion.starts import STARTS


def start_named(name: str) -> Any:
    """One of the engine's own starts by name, or another package's function. Raises ValueError where there is none of that name."""
    return name if name in STARTS else _start(name).load()


def term_named(name: str, weight: float = 1.0) -> Term:
    """A term of another package: what is named is called with the weight. Raises ValueError where there is none of that name."""
    return _term(name).load()(weight)


def check_start(name: str) -> None:
    """Raises ValueError for a start that nobody offers; imports no package."""
    if name not in STARTS:
        _start(name)


def check_term(name: str) -> None:
    """Raises ValueError for a term that nobody offers; imports no package."""
    _term(name)


def _start(name: str) -> Extension:
    return _offered("start", name, STARTS)


def _term(name: str) -> Extension:
    return _offered("term", name, ())


def _offered(what: str, name: str, own: Sequence[str]) -> Extension:
    """The entry point of that name; ``own`` are the engine's names, which the error tells as well."""
    offered = {extension.name: extension for extension in extensions("inversion")}
    if name not in offered:
        raise ValueError(str(unknown_name(f"{what} of the inversion", name, [*own, *offered])))
    return offered[name]
