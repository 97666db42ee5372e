"""Register our methods, data sets and backbones in a checkout of Mammoth.

Each entry becomes a subclass of Mammoth's own class, which is entered into Mammoth's registers. The
functions of Mammoth that have to know of our entries are replaced.
"""

from __future__ import annotations

import contextlib
import functools
import io
import random
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pmi_cl.errors import UserError
from pmi_cl.machine.torchvision_shim import ensure_torchvision
from pmi_cl.machine.user_paths import user_path
from pmi_cl.mammoth.checkout import find_mammoth, import_mammoth, part, working_in
from pmi_cl.mammoth.flags import PREFIX, HostedEntry, preset_names, preset_values, run_arguments
from pmi_cl.registry.catalogue import FAMILY, INSTALLED, KINDS, Entry, canonical


class Bridge:
    """Hold what is registered in a Mammoth.

    Attributes:
        folder: the root of the checkout.
        theirs: the names that Mammoth itself has, by kind.
        flags: Mammoth's own flags, with their defaults.
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

    def hosted(self) -> list[HostedEntry]:
        """Return all our entries."""
        return [entry for entries in self.ours.values() for entry in entries.values()]

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
        # A method that trains nothing has no rate. The schedule of the data set is not used.
        config = {"backbone": backbone.name, "drop_last": True, "lr": 0.0, "lr_scheduler": None, "lr_milestones": []}
        for hosted in filter(None, (model, dataset, backbone)):
            config |= {flag: values[name] for name, flag in hosted.flags.items()}
        if getattr(args, "loadcheck", None):  # the settings of a checkpoint win over a preset
            config = {name: value for name, value in config.items() if getattr(args, name, None) is None}
        return config

    def defaults_on(self, dataset: HostedEntry) -> dict[str, Any]:
        """Return what Mammoth's methods take on a data set of ours: values of our fine-tuning."""
        values = preset_values(INSTALLED.find("model", "sgd"), dataset.name, dataset.entry, None)
        values["backbone"] = self.name_of(INSTALLED.find("backbone", values["backbone"]))
        return {flag: values[flag] for flag in ("backbone", "n_epochs", "batch_size", "lr")}


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


def _own_flags() -> dict[str, Any]:
    """Return the destinations of all flags that Mammoth adds by itself, with their defaults."""
    parser = ArgumentParser(add_help=False)
    for add in ("add_initial_args", "add_experiment_args", "add_management_args"):
        getattr(part("utils.args"), add)(parser)
    others = ("loadcheck", "dataset_config", "model_config")  # these need the names of a run
    computed = ("class_order", "num_classes", "nowand")  # Mammoth puts them into the same namespace
    return {**dict.fromkeys((*others, *computed)), **{action.dest: action.default for action in parser._actions}}


def register(mammoth_path: str | Path | None = None) -> Bridge:
    """Register our methods, data sets and backbones in a Mammoth. A second call does nothing.

    Args:
        mammoth_path: the checkout. None takes the one whose ``models`` is imported or importable.

    Raises:
        UserError: there is no Mammoth, or one that the bridge does not fit.
    """
    ensure_torchvision()
    return _bridge_to(find_mammoth(mammoth_path))


@functools.cache
def _bridge_to(folder: Path) -> Bridge:
    import_mammoth(folder)
    with working_in(folder), contextlib.redirect_stdout(io.StringIO()):  # Mammoth prints a line for every data set
        bridge = Bridge(folder)
        enter_entries(bridge)
    _replace_functions(bridge)
    return bridge


def enter_entries(bridge: Bridge) -> None:
    """Enter our backbones, data sets and methods into Mammoth's registers."""
    # Subclasses of Mammoth's classes: they can be imported only now.
    from pmi_cl.mammoth.hosted_data import HostedBackbone, HostedDataset
    from pmi_cl.mammoth.hosted_method import HostedMethod

    for kind, base in (("backbone", HostedBackbone), ("dataset", HostedDataset), ("model", HostedMethod)):
        module = part("backbone" if kind == "backbone" else f"{kind}s")
        for name, hosted in bridge.ours[kind].items():
            members = {"NAME": name.replace("-", "_") if kind == "model" else name, "HOSTED": hosted, "BRIDGE": bridge}
            members["COMPATIBILITY"] = list(hosted.entry.constants.get("COMPATIBILITY", ()))
            getattr(module, f"register_{kind}")(name)(type(base.__name__, (base,), members))
            getattr(module, f"REGISTERED_{kind.upper()}S")[name]["parsable_args"] = hosted.parsable_args()
    for name, hosted in bridge.ours["dataset"].items():
        part("datasets.utils").DEFAULT_ARGS[name] = bridge.defaults_on(hosted)


def _replace_functions(bridge: Bridge) -> None:
    """Replace those functions of Mammoth that look for files or have to know of our entries."""
    from torch import nn

    from pmi_cl.mammoth.refusals import watch

    original: dict[str, Callable[..., Any]] = {}

    def add_initial_args(parser: Any, strict: bool = True) -> Any:
        watch(parser, bridge)
        base = bridge.folder / "data" if (bridge.folder / "data").is_dir() else Path("data")
        parser.set_defaults(base_path=str(base.absolute()), results_path=str(Path("data/results").absolute()))
        return original["add_initial_args"](parser, strict)

    def add_configuration_args(parser: Any, args: Any) -> None:
        original["add_configuration_args"](parser, args)
        model = bridge.find("model", args.model)
        for action in parser._actions:
            if model and action.dest == "model_config":
                action.type, action.choices = str, None  # an unknown preset is refused when presets are read
                action.metavar = f"{{{','.join(preset_names(model.entry))}}}"
                action.help = f"Preset of {model.entry.name}; default: its choice for the data set; "
                action.help += "none: no preset; or a file, MINE.yaml."

    def load_model_config(args: Any, buffer_size: int | None = None) -> dict[str, Any]:
        theirs = original["load_model_config"]
        return bridge.preset(args) if bridge.find("model", args.model) else theirs(args, buffer_size=buffer_size)

    def get_backbone(args: Any) -> Any:
        # Our methods build their network themselves, from the run's seed.
        return nn.Identity() if bridge.find("model", args.model) else original["get_backbone"](args)

    for module, name, ours in (
        ("utils.args", "add_initial_args", add_initial_args),
        ("utils.args", "add_configuration_args", add_configuration_args),
        ("models.utils", "load_model_config", load_model_config),
        ("backbone", "get_backbone", get_backbone),
        ("models", "get_all_models_legacy", None),
        ("datasets", "get_all_datasets_legacy", None),
        ("datasets.utils", "load_dataset_config", None),
    ):
        original[name] = working_in(bridge.folder)(getattr(part(module), name))
        setattr(part(module), name, ours or original[name])
