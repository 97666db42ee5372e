"""Mammoth with our methods, data sets and backbones in it: ``pmi-cl mammoth --mammoth_path DIR ...`` and :func:`register`."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pmi_cl.catalogue import FAMILY, INSTALLED, Entry
from pmi_cl.catalogue import KINDS as WORDS
from pmi_cl.errors import UserError, unknown_name
from pmi_cl.mammoth_flags import PREFIX, Flags, preset_names, settings
from pmi_cl.mammoth_host import Mammoth, enter_mammoth, find_mammoth, quietly, spelled
from pmi_cl.terminal import show

KINDS = ("backbone", "dataset", "model")
USAGE = f"""\
usage: pmi-cl mammoth --mammoth_path DIR --model MODEL --dataset DATASET [Mammoth's own flags and ours]

  --mammoth_path DIR   a checkout of aimagelab/mammoth, which is not changed (or MAMMOTH_PATH in the environment)

Runs that checkout's main.py with pmi-cl's methods, data sets and backbones beside its own, under their own names; a name or a
flag that Mammoth has, too, gets '{PREFIX.rstrip("_")}' in front: pmi-resnet32, --{PREFIX}lr_milestones. Our presets: --model_config.
With --model and --dataset, --help lists every flag. Paths that are typed, results and checkpoints are relative to the current
folder; data sets are looked for in the checkout's data/, if there is one, else in ./data.
"""
PATHS = ("base_path", "results_path", "checkpoint_path", "loadcheck", "data_dir")


class Bridge:
    """What is registered in a Mammoth.

    Attributes:
        mammoth: the checkout.
        entries: ours, by kind and by the name that they have in Mammoth.
        flags: the flags of each of them, by kind and name.
    """

    def __init__(self, mammoth: Mammoth) -> None:
        self.mammoth = mammoth
        self.entries = {kind: {self._name(entry): entry for entry in _entries(kind)} for kind in KINDS}
        self.flags = {
            kind: {name: Flags(entry, mammoth.flags) for name, entry in entries.items()} for kind, entries in self.entries.items()
        }

    def _name(self, entry: Entry) -> str:
        """Its own where Mammoth has none such, else with ``pmi-`` in front; ``pmi-cl-`` where that is another of ours, as pmi_rdfcil is."""
        plain, theirs = spelled(entry.name), self.mammoth.names[entry.kind]
        taken = theirs | {spelled(other.name) for other in INSTALLED.entries(entry.kind) if other.name != entry.name}
        free = (name for name in (plain, f"{spelled(PREFIX)}{plain}", f"pmi-cl-{plain}") if name not in taken)
        name = next(free, None)
        if name is None:
            raise UserError(f"Mammoth in {self.mammoth.folder} has a {entry.kind} '{plain}' and every name that ours could take")
        return name

    def register(self) -> None:
        """Enter everything into Mammoth's registers, and let ``--model_config`` and the backbone of our methods be ours."""
        makers = {"backbone": self._backbone, "dataset": self._dataset, "model": self._model}
        with quietly():
            for kind in KINDS:
                for name in self.entries[kind]:
                    makers[kind](name)
        self._patch("utils.args", "add_configuration_args", self._configuration_args)
        self._patch("models.utils", "load_model_config", self._model_config)
        self._patch("backbone", "get_backbone", self._get_backbone)

    def check_names(self, words: Sequence[str]) -> None:
        """Raises UserError, with the nearest names, for a model, data set or backbone that neither has: Mammoth would print all names."""
        for word, after in zip(words, [*words[1:], ""], strict=True):
            flag, equals, value = word.partition("=")
            kind, typed = flag.removeprefix("--"), value if equals else after
            if flag != f"--{kind}" or kind not in KINDS or not typed or typed.startswith("--"):
                continue
            ours = [entry.name if spelled(entry.name) == name else name for name, entry in self.entries[kind].items()]
            known = [*ours, *self.mammoth.names[kind]]
            if spelled(typed) not in map(spelled, known):
                raise unknown_name(WORDS[kind], typed, known)

    def _backbone(self, name: str) -> None:
        from pmi_cl.mammoth_data import HostedBackbone

        backbone, flags = self.mammoth.backbone, self.flags["backbone"][name]
        members = {"ENTRY": self.entries["backbone"][name], "FLAGS": flags}
        backbone.register_backbone(name)(type(HostedBackbone.__name__, (HostedBackbone, backbone.MammothBackbone), members))
        classes = {"num_classes": {"type": int, "required": False, "default": None}}
        backbone.REGISTERED_BACKBONES[name]["parsable_args"] = {**classes, **flags.described()}

    def _dataset(self, name: str) -> None:
        from pmi_cl.mammoth_data import HostedDataset

        datasets, entry, flags = self.mammoth.datasets, self.entries["dataset"][name], self.flags["dataset"][name]
        base = sys.modules["datasets.utils.continual_dataset"]
        members = {"NAME": name, "ENTRY": entry, "FLAGS": flags, **self._defaults(name, entry)}
        members |= {"store": staticmethod(base.store_masked_loaders), "ordered": staticmethod(base.fix_class_names_order)}
        datasets.register_dataset(name)(type(HostedDataset.__name__, (HostedDataset, base.ContinualDataset), members))
        datasets.REGISTERED_DATASETS[name]["parsable_args"] = flags.described()

    def _defaults(self, name: str, entry: Entry) -> dict[str, Any]:
        """Backbone, epochs, batch size and rate of a method that has none of its own: those of our fine-tuning on the data set."""
        NAME = name  # Mammoth's decorator looks this name up where it is called
        default = sys.modules["datasets.utils"].set_default_from_args
        values = settings(INSTALLED.find("model", "sgd"), NAME, entry, None)
        values["backbone"] = self._name(INSTALLED.find("backbone", values["backbone"]))
        getters = {"get_backbone": "backbone", "get_epochs": "n_epochs", "get_batch_size": "batch_size", "get_rate": "lr"}
        members = {}
        for getter, flag in getters.items():
            members[getter] = default(flag)(_returning(values[flag]))
        return members

    def _model(self, name: str) -> None:
        from pmi_cl.mammoth_method import HostedMethod

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
                action.type, action.choices = str, preset_names(model)
                action.help = f"Preset of {model.name}; default: its choice for the data set; none: no preset."

    def _model_config(self, original: Callable[..., Any], args: Any, buffer_size: int | None = None) -> dict[str, Any]:
        """The preset of one of our methods as Mammoth's yaml files would say it."""
        name, dataset = spelled(args.model), spelled(args.dataset)
        if name not in self.entries["model"]:
            return original(args, buffer_size=buffer_size)
        flags, ours = self.flags["model"][name], self.entries["dataset"].get(dataset)
        typed = self.entries["backbone"].get(spelled(args.backbone or ""))
        values = settings(flags.entry, args.dataset, ours, args.model_config, typed.name if typed else None)
        backbone = self._name(INSTALLED.find("backbone", values["backbone"]))
        config: dict[str, Any] = {"backbone": backbone, "drop_last": True, "lr_scheduler": None}
        for part in (flags, self.flags["dataset"].get(dataset), self.flags["backbone"][backbone]):
            config |= {part.names[spec.name]: values[spec.name] for spec in part.given} if part else {}
        return config

    def _get_backbone(self, original: Callable[..., Any], args: Any) -> Any:
        """Our methods build their network themselves, from the run's seed."""
        model = self.entries["model"].get(spelled(args.model))
        if model is None:
            return original(args)
        from pmi_cl.mammoth_method import promised_backbone

        name = spelled(args.backbone)
        return promised_backbone(self.entries["backbone"].get(name), args.backbone, model, self.flags["backbone"].get(name), args)


def _returning(value: Any) -> Callable[[Any], Any]:
    return lambda self: value


def _entries(kind: str) -> list[Entry]:
    """Ours of a kind, with every member of a family; not joint training, which is Mammoth's own ``--joint 1``."""
    found: list[Entry] = []
    for entry in INSTALLED.entries(kind):
        family = entry.name.removesuffix(FAMILY[1:])
        found += [INSTALLED.find(kind, family + name) for name in entry.constants["NAMES"]] if entry.name.endswith(FAMILY) else [entry]
    return [entry for entry in found if not entry.constants.get("JOINT", False)]


def register(mammoth_path: str | Path | None = None, wanted: Sequence[str] = ()) -> Bridge:
    """Put our methods, data sets and backbones into a Mammoth, for scripts and notebooks; a second call does nothing.

    Args:
        mammoth_path: the checkout; None: that of the ``models`` that is imported already, or can be.
        wanted: names that will be used, so that what only they need is imported.

    Raises:
        UserError: no Mammoth there, or one with another contract.
    """
    from pmi_cl.torchvision_shim import ensure_torchvision

    ensure_torchvision()
    mammoth = enter_mammoth(find_mammoth(mammoth_path or _importable()), wanted)
    models = mammoth.models
    if not hasattr(models, "pmi_cl_bridge"):
        models.pmi_cl_bridge = Bridge(mammoth)
        models.pmi_cl_bridge.register()
    return models.pmi_cl_bridge


def _importable() -> str:
    loaded = getattr(sys.modules.get("models"), "__file__", None)
    if loaded:
        return str(Path(loaded).parent.parent)
    for folder in [*sys.path, os.environ.get("MAMMOTH_PATH", "")]:
        if folder and (Path(folder) / "models/utils/continual_model.py").is_file() and (Path(folder) / "backbone").is_dir():
            return folder
    raise UserError("no Mammoth is imported or on sys.path: register(mammoth_path=DIR) with the folder that holds its main.py")


def launch(argv: Sequence[str]) -> int:
    """``pmi-cl mammoth``: Mammoth's ``main.py``, as if started by itself, with ours in it. Raises UserError."""
    path, words = _mammoth_path(argv)
    named = any(word.partition("=")[0] in ("--model", "--loadcheck") for word in words)
    if not named and (not words or set(words) & {"-h", "--help"}):
        show(USAGE)
        return 0
    if path is None:
        raise UserError("--mammoth_path is missing: give the folder of a Mammoth checkout")
    folder, here = find_mammoth(path), Path.cwd()
    bridge = register(folder, words)
    bridge.check_names(words)
    _refuse_doubled(words)
    words = _anchored(words, here, folder)
    sys.modules["utils.conf"].get_checkpoint_path(words[words.index("--checkpoint_path") + 1])  # before a module makes Mammoth's default
    sys.argv = [str(bridge.mammoth.folder / "main.py"), *words]
    sys.dont_write_bytecode = True
    runpy.run_path(sys.argv[0], run_name="__main__")
    return 0


def _mammoth_path(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of ``--mammoth_path``, or of MAMMOTH_PATH, and the other words."""
    words, path = [], os.environ.get("MAMMOTH_PATH")
    rest = iter(argv)
    for word in rest:
        name, equals, value = word.partition("=")
        if name == "--mammoth_path":
            path = value if equals else next(rest, None)
        else:
            words.append(word)
    return path, words


def _refuse_doubled(words: Sequence[str]) -> None:
    """Raises UserError for a flag that is typed twice: Mammoth would end in a traceback."""
    flags = [word.partition("=")[0] for word in words if word.startswith("--")]
    twice = next((flag for place, flag in enumerate(flags) if flag in flags[:place]), None)
    if twice:
        raise UserError(f"{twice} is typed twice: give it once")


def _anchored(words: Sequence[str], here: Path, folder: Path) -> list[str]:
    """The words with absolute paths, and with Mammoth's default folders where none are typed: Mammoth works inside its checkout."""
    flags: list[str] = []
    for word in words:
        name, equals, value = word.partition("=")
        flags += [name, value] if equals and name[2:] in PATHS else [word]
    for place, word in enumerate(flags[:-1]):
        if word[2:] in PATHS and word.startswith("--") and "://" not in flags[place + 1]:
            flags[place + 1] = str(here / Path(flags[place + 1]).expanduser())
    data = folder / "data" if (folder / "data").is_dir() else here / "data"
    defaults = {"base_path": data, "results_path": here / "data/results", "checkpoint_path": here / "checkpoints"}
    return [*flags, *(word for name, at in defaults.items() if f"--{name}" not in flags for word in (f"--{name}", str(at)))]
