"""Hold what is registered in a Mammoth: our entries, their names and flags there, their presets."""

from __future__ import annotations

import random
from argparse import ArgumentParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pmi_cl.errors import UserError
from pmi_cl.machine.user_paths import user_path
from pmi_cl.mammoth.checkout import part
from pmi_cl.mammoth.flags import PREFIX, UNUSED, HostedEntry, preset_values, run_arguments
from pmi_cl.registry.catalogue import FAMILY, INSTALLED, Entry, canonical

KINDS = ("model", "dataset", "backbone")


class Bridge:
    """Hold what is registered in a Mammoth.

    Attributes:
        folder: the root of the checkout.
        theirs: the names that Mammoth itself has, by kind.
        flags: the names of Mammoth's own flags.
        ours: our entries, by kind and by the name that they have in Mammoth.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        stems = [path.stem for path in (folder / "models").glob("[!_]*.py")]  # Mammoth looks methods up by these, too
        names = {"model": [*part("models").get_model_names(), *stems]}
        names |= {"dataset": part("datasets").get_dataset_names(), "backbone": part("backbone").REGISTERED_BACKBONES}
        self.theirs = {kind: frozenset(map(canonical, found)) for kind, found in names.items()}
        self.flags = _own_flags()
        self.ours: dict[str, dict[str, HostedEntry]] = {}
        for kind in KINDS:
            entries = [(self.name_of(entry), entry) for entry in _entries(kind)]
            self.ours[kind] = {name: HostedEntry(entry, name, self.flags) for name, entry in entries}

    def find(self, kind: str, name: str | None) -> HostedEntry | None:
        """Return our entry of that name in Mammoth, or None."""
        return self.ours[kind].get(canonical(name or ""))

    def name_of(self, entry: Entry) -> str:
        """Return the name of an entry in Mammoth.

        This is its own name, or the name behind ``pmi-`` if Mammoth has the name already. It is the
        name behind ``pmi-cl-`` if that is the name of another entry, as ``pmi-rdfcil`` is.

        Raises:
            UserError: Mammoth has all three names.
        """
        name = canonical(entry.name)
        others = {canonical(other.name) for other in INSTALLED.entries(entry.kind) if other.name != entry.name}
        for candidate in (name, f"{canonical(PREFIX)}{name}", f"pmi-cl-{name}"):
            if candidate not in self.theirs[entry.kind] | others:
                return candidate
        raise UserError(f"Mammoth in {self.folder} has a {entry.kind} '{name}' and every name that ours could take")

    def run_options(self, args: Any) -> SimpleNamespace:
        """Return the arguments of a run of ours that Mammoth's arguments mean.

        Raises:
            UserError: a value that is not allowed.
        """
        seed = random.SystemRandom().randrange(2**32) if args.seed is None else args.seed
        given: dict[str, Any] = {"base_path": str(user_path(args.base_path, "--base_path")), "seed": seed}
        for kind in KINDS:
            hosted = self.find(kind, getattr(args, kind))
            given |= {kind: hosted.entry.name, **hosted.values(vars(args))} if hosted else {}
        return run_arguments(given)

    def preset(self, args: Any) -> dict[str, Any]:
        """Return the preset of one of our methods, in the form of Mammoth's yaml files."""
        model, dataset = self.ours["model"][canonical(args.model)], self.find("dataset", args.dataset)
        typed = self.find("backbone", args.backbone)
        ours, network = dataset.entry if dataset else None, typed.entry.name if typed else None
        values = preset_values(model.entry, args.dataset, ours, args.model_config, network)
        backbone = self.ours["backbone"][self.name_of(INSTALLED.find("backbone", values["backbone"]))]
        config: dict[str, Any] = {"backbone": backbone.name, "drop_last": True}
        config["lr"] = 0.0  # a method that trains nothing has no rate
        # These replace the schedule of the data set.
        config |= {name: UNUSED[name][0] for name in ("lr_scheduler", "lr_milestones")}
        for hosted in filter(None, (model, dataset, backbone)):
            config |= {flag: values[name] for name, flag in hosted.flags.items()}
        if getattr(args, "loadcheck", None):  # the settings of a checkpoint win over a preset
            config = {name: value for name, value in config.items() if getattr(args, name, None) is None}
        return config


def _entries(kind: str) -> list[Entry]:
    """Return our entries of a kind, with every member of a family whose names are known.

    Joint training is left out: Mammoth has its own, ``--joint 1``.
    """
    entries: list[Entry] = []
    for entry in INSTALLED.entries(kind):
        family = entry.name.removesuffix(FAMILY[1:])
        members = entry.constants.get("NAMES", ()) if entry.name.endswith(FAMILY) else None
        entries += [entry] if members is None else [INSTALLED.find(kind, family + member) for member in members]
    return [entry for entry in entries if not entry.constants.get("JOINT", False)]


def _own_flags() -> frozenset[str]:
    """Return the destinations of all flags that Mammoth adds by itself."""
    parser = ArgumentParser(add_help=False)
    for add in ("add_initial_args", "add_experiment_args", "add_management_args"):
        getattr(part("utils.args"), add)(parser)
    others = {"loadcheck", "dataset_config", "model_config"}  # these need the names of a run
    computed = {"class_order", "num_classes", "nowand"}  # Mammoth puts them into the same namespace
    return frozenset({action.dest for action in parser._actions} | others | computed)
