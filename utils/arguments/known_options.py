"""All options that a run may have, and the lists that are derived from their declared facts."""

from __future__ import annotations

from collections.abc import Mapping

from pmi_cl.options import MEMORY, OptionSpec, specs_of
from pmi_cl.registry.catalogue import INSTALLED, KINDS, Catalogue
from pmi_cl.utils.arguments.run_options import RunOptions


def run_specs() -> tuple[OptionSpec, ...]:
    """Return the options of every run."""
    return specs_of(RunOptions)


def known_specs(catalogue: Catalogue = INSTALLED) -> tuple[OptionSpec, ...]:
    """Return all options of runs, methods, data sets and backbones; names may repeat."""
    owned = (spec for kind in KINDS for entry in catalogue.entries(kind) for spec in entry.options)
    return (*run_specs(), *owned)


def groups() -> dict[str, list[OptionSpec]]:
    """Return the options of every run by their heading in ``--help``, in declared order."""
    found: dict[str, list[OptionSpec]] = {}
    for spec in run_specs():
        found.setdefault(spec.group, []).append(spec)
    return found


def roles(catalogue: Catalogue = INSTALLED) -> Mapping[str, str]:
    """Return the role of each option by name. Of different ones, any but "setting" counts.

    An option of a backbone decides which network learns, where its declaration says nothing else.
    """
    found: dict[str, str] = {}
    of_networks = {spec.name for entry in catalogue.entries("backbone") for spec in entry.options}
    for spec in known_specs(catalogue):
        if found.get(spec.name, "setting") == "setting":
            found[spec.name] = "network" if spec.role == "setting" and spec.name in of_networks else spec.role
    return found


def named_by_memory(catalogue: Catalogue = INSTALLED) -> Mapping[str, list[str]]:
    """Return the names of options by what takes memory in proportion to them (``MEMORY``)."""
    specs = known_specs(catalogue)
    return {kind: list(dict.fromkeys(spec.name for spec in specs if spec.memory == kind)) for kind in MEMORY}


def as_in_mammoth() -> frozenset[str]:
    """Return the names of the options that mean in Mammoth what they mean here."""
    return frozenset(spec.name for spec in known_specs() if spec.as_in_mammoth)
