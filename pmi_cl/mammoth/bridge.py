"""Mammoth with our methods, data sets and backbones in it: ``pmi-cl mammoth --mammoth_path DIR ...`` and :func:`register`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pmi_cl.errors import UserError, unknown_name
from pmi_cl.mammoth.checkout import Mammoth, enter_mammoth, find_mammoth, quietly, spelled
from pmi_cl.mammoth.flags import PREFIX, UNUSED, Flags, preset_names, settings
from pmi_cl.registry.catalogue import FAMILY, INSTALLED, Entry
from pmi_cl.registry.catalogue import KINDS as WORDS

KINDS = ("backbone", "dataset", "model")


class Bridge:
    """What is registered in a Mammoth.

    Attributes:
        mammoth: the checkout.
        here: the folder that was the current one before Mammoth was imported.
        folders: where data, results and checkpoints go if nothing is said.
        entries: ours, by kind and by the name that they have in Mammoth.
        flags: the flags of each of them, by kind and name.
    """

    def __init__(self, mammoth: Mammoth, here: Path) -> None:
        self.mammoth, self.here = mammoth, here
        self.folders = default_folders(mammoth.folder, here)
        self.entries = {kind: {self._name(entry): entry for entry in _entries(kind)} for kind in KINDS}
        self.flags = {
            kind: {name: Flags(entry, mammoth.flags) for name, entry in entries.items()}
            for kind, entries in self.entries.items()
        }

    def _name(self, entry: Entry) -> str:
        """Its own where Mammoth has none such, else with ``pmi-`` in front; ``pmi-cl-`` where that is another of ours, as pmi_rdfcil is."""
        plain, theirs = spelled(entry.name), self.mammoth.names[entry.kind]
        taken = theirs | {spelled(other.name) for other in INSTALLED.entries(entry.kind) if other.name != entry.name}
        free = (name for name in (plain, f"{spelled(PREFIX)}{plain}", f"pmi-cl-{plain}") if name not in taken)
        name = next(free, None)
        if name is None:
            raise UserError(
                f"Mammoth in {self.mammoth.folder} has a {entry.kind} '{plain}' and every name that ours could take"
            )
        return name

    def register(self) -> None:
        """Enter everything into Mammoth's registers, and let ``--model_config`` and the backbone of our methods be ours."""
        makers = {"backbone": self._backbone, "dataset": self._dataset, "model": self._model}
        with quietly():
            for kind in KINDS:
                for name in self.entries[kind]:
                    makers[kind](name)
        self._patch("utils.args", "add_configuration_args", self._configuration_args)
        self._patch("utils.args", "add_management_args", self._management_args)
        self._patch("models.utils", "load_model_config", self._model_config)
        self._patch("backbone", "get_backbone", self._get_backbone)

    def check_names(self, words: Sequence[str]) -> None:
        """Raises UserError, with the nearest names, for a model, data set or backbone that neither has: Mammoth would print all names."""
        for _, kind, typed in _typed_names(words):
            ours = [entry.name if spelled(entry.name) == name else name for name, entry in self.entries[kind].items()]
            known = [*ours, *self.mammoth.names[kind]]
            if spelled(typed) not in map(spelled, known):
                raise unknown_name(WORDS[kind], typed, known)

    def as_registered(self, words: Sequence[str]) -> list[str]:
        """The words with the names of ours as Mammoth has them: it compares those of backbones letter by letter."""
        found = list(words)
        for place, kind, typed in _typed_names(words):
            if spelled(typed) in self.entries[kind]:
                found[place] = found[place].removesuffix(typed) + spelled(typed)
        return found

    def _backbone(self, name: str) -> None:
        from pmi_cl.mammoth.data import HostedBackbone

        backbone, flags = self.mammoth.backbone, self.flags["backbone"][name]
        members = {"ENTRY": self.entries["backbone"][name], "FLAGS": flags}
        backbone.register_backbone(name)(
            type(HostedBackbone.__name__, (HostedBackbone, backbone.MammothBackbone), members)
        )
        classes = {"num_classes": {"type": int, "required": False, "default": None}}
        backbone.REGISTERED_BACKBONES[name]["parsable_args"] = {**classes, **flags.described()}

    def _dataset(self, name: str) -> None:
        from pmi_cl.mammoth.data import HostedDataset

        datasets, entry, flags = self.mammoth.datasets, self.entries["dataset"][name], self.flags["dataset"][name]
        base = sys.modules["datasets.utils.continual_dataset"]
        members = {"NAME": name, "ENTRY": entry, "FLAGS": flags, **self._defaults(name, entry)}
        members |= {
            "store": staticmethod(base.store_masked_loaders),
            "ordered": staticmethod(base.fix_class_names_order),
        }
        datasets.register_dataset(name)(type(HostedDataset.__name__, (HostedDataset, base.ContinualDataset), members))
        datasets.REGISTERED_DATASETS[name]["parsable_args"] = flags.described()

    def _defaults(self, name: str, entry: Entry) -> dict[str, Any]:
        """Backbone, epochs, batch size and rate of a method that has none of its own: those of our fine-tuning on the data set."""
        NAME = name  # Mammoth's decorator looks this name up where it is called
        default = sys.modules["datasets.utils"].set_default_from_args
        values = settings(INSTALLED.find("model", "sgd"), NAME, entry, None)
        values["backbone"] = self._name(INSTALLED.find("backbone", values["backbone"]))
        getters = {
            "get_backbone": "backbone",
            "get_epochs": "n_epochs",
            "get_batch_size": "batch_size",
            "get_rate": "lr",
        }
        members = {}
        for getter, flag in getters.items():
            members[getter] = default(flag)(_returning(values[flag]))
        return members

    def _model(self, name: str) -> None:
        from pmi_cl.mammoth.method import HostedMethod

        entry, base = self.entries["model"][name], sys.modules["models.utils.continual_model"].ContinualModel
        members = {"NAME": name.replace("-", "_"), "ENTRY": entry, "FLAGS": self.flags["model"][name]}
        members["COMPATIBILITY"] = list(entry.constants["COMPATIBILITY"])
        self.mammoth.models.register_model(name)(type(HostedMethod.__name__, (HostedMethod, base), members))

    def _patch(self, module: str, function: str, ours: Callable[..., Any]) -> None:
        """Mammoth looks these functions up when it calls them: put ours, which gets the original first, in their place."""
        original = getattr(sys.modules[module], function)
        setattr(sys.modules[module], function, lambda *args, **kwargs: ours(original, *args, **kwargs))

    def _configuration_args(self, original: Callable[..., Any], parser: Any, args: Any) -> None:
        """``--model_config`` takes our presets for our methods."""
        original(parser, args)
        model = self.entries["model"].get(spelled(args.model))
        for action in parser._actions:
            if model and action.dest == "model_config":
                action.type, action.choices = str, None  # an unknown one gets the nearest names where presets are read
                action.metavar = f"{{{','.join(preset_names(model))}}}"
                action.help = f"Preset of {model.name}; default: its choice for the data set; none: no preset; or a file, MINE.yaml."

    def _management_args(self, original: Callable[..., Any], parser: Any) -> None:
        """Mammoth's default folders are relative to its checkout, where it works: ours are where the user is."""
        original(parser)
        for action in parser._actions:
            action.default = self.folders.get(action.dest, action.default)

    def _model_config(self, original: Callable[..., Any], args: Any, buffer_size: int | None = None) -> dict[str, Any]:
        """The preset of one of our methods as Mammoth's yaml files would say it."""
        name, dataset = spelled(args.model), spelled(args.dataset)
        if name not in self.entries["model"]:
            return original(args, buffer_size=buffer_size)
        flags, ours = self.flags["model"][name], self.entries["dataset"].get(dataset)
        typed = self.entries["backbone"].get(spelled(args.backbone or ""))
        values = settings(flags.entry, args.dataset, ours, args.model_config, typed.name if typed else None)
        backbone = self._name(INSTALLED.find("backbone", values["backbone"]))
        config: dict[str, Any] = {
            "backbone": backbone,
            "drop_last": True,
            "lr": 0.0,
        }  # a method that trains nothing has no rate
        config |= {name: UNUSED[name][0] for name in ("lr_scheduler", "lr_milestones")}  # in place of a data set's own
        for part in (flags, self.flags["dataset"].get(dataset), self.flags["backbone"][backbone]):
            config |= {part.names[spec.name]: values[spec.name] for spec in part.given} if part else {}
        if getattr(args, "loadcheck", None):  # what the checkpoint was made with counts more than a preset
            config = {name: value for name, value in config.items() if getattr(args, name, None) is None}
        return config

    def _get_backbone(self, original: Callable[..., Any], args: Any) -> Any:
        """Our methods build their network themselves, from the run's seed."""
        model = self.entries["model"].get(spelled(args.model))
        if model is None:
            return original(args)
        from pmi_cl.mammoth.method import promised_backbone

        name = spelled(args.backbone)
        return promised_backbone(
            self.entries["backbone"].get(name), args.backbone, model, self.flags["backbone"].get(name), args
        )


def _typed_names(words: Sequence[str]) -> list[tuple[int, str, str]]:
    """Where a method, data set or backbone is named: the place of the word, the kind, and the name."""
    found = []
    for place, word in enumerate(words):
        flag, equals, value = word.partition("=")
        kind, at = flag.removeprefix("--"), place if equals else place + 1
        typed = value if equals else "".join(words[at : at + 1])
        if flag == f"--{kind}" and kind in KINDS and typed and not typed.startswith("--"):
            found.append((at, kind, typed))
    return found


def _returning(value: Any) -> Callable[[Any], Any]:
    return lambda self: value


def _entries(kind: str) -> list[Entry]:
    """Ours of a kind, with every member of a family; not joint training, which is Mammoth's own ``--joint 1``."""
    found: list[Entry] = []
    for entry in INSTALLED.entries(kind):
        family = entry.name.removesuffix(FAMILY[1:])
        found += (
            [INSTALLED.find(kind, family + name) for name in entry.constants["NAMES"]]
            if entry.name.endswith(FAMILY)
            else [entry]
        )
    return [entry for entry in found if not entry.constants.get("JOINT", False)]


def register(mammoth_path: str | Path | None = None, wanted: Sequence[str] = ()) -> Bridge:
    """Put our methods, data sets and backbones into a Mammoth, for scripts and notebooks; a second call does nothing.

    Args:
        mammoth_path: the checkout; None: that of the ``models`` that is imported already, or can be.
        wanted: names that will be used, so that what only they need is imported.

    Raises:
        UserError: no Mammoth there, or one with another contract.
    """
    from pmi_cl.machine.torchvision_shim import ensure_torchvision

    ensure_torchvision()
    here = Path.cwd()  # importing Mammoth makes its checkout the current folder
    mammoth = enter_mammoth(find_mammoth(mammoth_path or _importable()), wanted)
    models = mammoth.models
    if not hasattr(models, "pmi_cl_bridge"):
        models.pmi_cl_bridge = Bridge(mammoth, here)
        models.pmi_cl_bridge.register()
    return models.pmi_cl_bridge


def _importable() -> str:
    loaded = getattr(sys.modules.get("models"), "__file__", None)
    if loaded:
        return str(Path(loaded).parent.parent)
    for folder in [*sys.path, os.environ.get("MAMMOTH_PATH", "")]:
        if (
            folder
            and (Path(folder) / "models/utils/continual_model.py").is_file()
            and (Path(folder) / "backbone").is_dir()
        ):
            return folder
    raise UserError(
        "no Mammoth is imported or on sys.path: register(mammoth_path=DIR) with the folder that holds its main.py"
    )


def default_folders(checkout: Path, here: Path) -> dict[str, str]:
    """Where things go that no flag says, by flag: into the folder where the user is; data sets where the checkout has some already."""
    data = checkout / "data" if (checkout / "data").is_dir() else here / "data"
    return {
        "base_path": str(data),
        "results_path": str(here / "data/results"),
        "checkpoint_path": str(here / "checkpoints"),
    }
