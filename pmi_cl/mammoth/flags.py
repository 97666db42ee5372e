"""How the options of a method, data set or backbone appear among Mammoth's flags, and what its presets say there."""

from __future__ import annotations

import argparse
import ast
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from pmi_cl.errors import UserError
from pmi_cl.registry.catalogue import INSTALLED, Entry, OptionSpec, canonical
from pmi_cl.utils.arguments.command_line import all_specs, run_specs
from pmi_cl.utils.arguments.option_values import bounds, convert
from pmi_cl.utils.arguments.presets import PresetFile, chosen_backbone, decide, presets_of

PREFIX = "pmi_"
SAME = (
    "lr",
    "batch_size",
    "n_epochs",
    "optim_mom",
    "optim_wd",
    "optimizer",
    "seed",
)  # mean in Mammoth what they mean here
OF_METHODS = ("precision", "compile")  # options of a run that reach the method itself
OF_DATASETS = (
    "n_tasks",
    "base_classes",
    "classes_per_task",
    "n_classes",
    "train_per_class",
    "offline",
)  # and those that reach the data set
# Mammoth's flags that a method of ours would ignore, what they must then be, and what to use.
UNUSED: dict[str, tuple[Any, str]] = {
    "fitting_mode": ("epochs", "its schedule counts epochs"),
    "lr_scheduler": (None, f"it has a schedule of its own, --{PREFIX}lr_milestones"),
    "lr_milestones": ([], f"say --{PREFIX}lr_milestones, in parts of n_epochs"),
    "sched_multistep_lr_gamma": (0.1, "say --lr_gamma"),
    "scheduler_mode": ("epoch", "its schedule counts epochs"),
    "n_iters": (None, "its schedule counts epochs"),
    "optimizer": ("sgd", "it trains with SGD"),
    "optim_nesterov": (False, "leave it out"),
    "label_perc": (1, "every image needs its label"),
    "label_perc_by_class": (1, "every image needs its label"),
}


class Flags:
    """The flags of one entry.

    Attributes:
        specs: its options.
        names: the flag of each option; ``pmi_`` stands before a name that Mammoth has with another meaning.
    """

    def __init__(self, entry: Entry, mammoth_flags: Collection[str]) -> None:
        of_run = {"model": OF_METHODS, "dataset": OF_DATASETS, "backbone": ()}[entry.kind]
        self.entry = entry
        self.specs = (*(spec for spec in run_specs() if spec.name in of_run), *entry.options)
        self.names = {
            spec.name: PREFIX + spec.name if spec.name in mammoth_flags and spec.name not in SAME else spec.name
            for spec in self.specs
        }
        self.own = tuple(spec for spec in self.specs if self.names[spec.name] not in mammoth_flags)
        self.given = self.specs if entry.kind == "model" else self.own

    def add_to(self, parser: Any) -> None:
        """Add those flags that Mammoth does not have."""
        for spec in self.own:
            many = {"nargs": "+", "action": _Many, "spec": spec} if spec.many else {"type": reader(spec)}
            parser.add_argument(f"--{self.names[spec.name]}", default=spec.default, help=explained(spec), **many)

    def described(self) -> dict[str, dict[str, Any]]:
        """The same for Mammoth's registers of data sets and backbones, which take one word for each flag."""
        return {
            self.names[spec.name]: {
                "type": reader(spec),
                "default": spec.default,
                "required": False,
                "help": explained(spec),
            }
            for spec in self.own
        }

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The option values in Mammoth's arguments, by option. Raises UserError for one that is not allowed."""
        named = {spec: self.names[spec.name] for spec in self.specs}
        return {
            spec.name: convert(spec, _value(given[flag]), f"--{flag} {given[flag]}")
            for spec, flag in named.items()
            if flag in given
        }


def reader(spec: OptionSpec) -> Callable[[Any], Any]:
    """What turns a word, or a default, into the option's value."""

    def read(word: Any) -> Any:
        try:
            return convert(spec, _value(word), f"'{word}'")
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def _value(word: Any) -> Any:
    """What was typed; Mammoth's checkpoints have a tuple as its text, "(0.6, 0.75)"."""
    if not (isinstance(word, str) and word.startswith("(")):
        return word
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word


class _Many(argparse.Action):
    """``--name 0.2 0.4`` and ``--name 0.2,0.4`` are the same."""

    def __init__(self, *args: Any, spec: OptionSpec, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.read = reader(spec)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        try:
            setattr(namespace, self.dest, self.read(",".join(values)))
        except argparse.ArgumentTypeError as error:
            parser.error(f"{option_string}: {error}")


def explained(spec: OptionSpec) -> str:
    """The help text in argparse's format: what the option is, its choices, unit, default (the one that counts) and source."""
    choices = f"one of {', '.join(spec.choices)}" if spec.choices else ""
    facts = [fact.replace("%", "%%") for fact in (choices, spec.unit, bounds(spec)) if fact]
    source = f"source: {spec.source}".replace("%", "%%") if spec.source else ""
    return (
        f"{spec.help.replace('%', '%%')} ({'; '.join([*facts, 'default: %(default)s', *([source] if source else [])])})"
    )


def settings(
    model: Entry, dataset: str, ours: Entry | None, preset: str | None, backbone: str | None = None
) -> dict[str, Any]:
    """Every option as the method's preset for the data set has it, and the name of the backbone.

    Args:
        dataset: the name of the data set in Mammoth.
        ours: the data set's entry, if it is one of ours.
        preset: what was asked for; None, "default" and "base": the method's choice for the data set.
        backbone: the one that was typed, by our name; None: the method's, or the data set's.

    Raises:
        UserError: an unknown preset.
    """
    presets = presets_of(model.name, INSTALLED, preset)
    entry = ours or Entry(
        "dataset", _section(presets, dataset), "Mammoth", "", "", (), {"DEFAULTS": {"backbone": "resnet32"}}
    )
    flags = {} if preset in (None, "default", "base") else {"model_config": str(preset)}
    flags |= {"backbone": backbone} if backbone else {}
    network = INSTALLED.find("backbone", str(chosen_backbone(flags, presets, model, entry)))
    specs = all_specs(model, entry, network)
    of_ours = (
        () if ours else _data_options({spec.name for spec in specs})
    )  # a preset may speak of them; Mammoth's data set has none
    values, sources = decide((*specs, *of_ours), flags, presets, model, entry)
    moved = [
        name
        for name in (*OF_DATASETS, *(spec.name for spec in of_ours))
        if ours is None and sources[name].startswith("preset")
    ]
    for name in moved:
        logging.warning(
            "pmi-cl: the preset's %s %s does not count: %s is Mammoth's data set", name, values[name], dataset
        )
    return {**values, "backbone": network.name}


def _data_options(known: Collection[str]) -> tuple[OptionSpec, ...]:
    """The options of all data sets of ours, by name, but for those that are known otherwise."""
    found = {
        spec.name: spec for entry in INSTALLED.entries("dataset") for spec in entry.options if spec.name not in known
    }
    return tuple(found.values())


def _section(presets: PresetFile, dataset: str) -> str:
    """The spelling that the presets use for the data set."""
    names = {canonical(name): name for preset in presets.presets.values() for name in preset.sections}
    return names.get(canonical(dataset), dataset)


def preset_names(model: Entry) -> Sequence[str]:
    """What ``--model_config`` may be."""
    return ("default", *presets_of(model.name, INSTALLED).presets, "none")


def refuse_unused(flags: Flags, args: Any) -> None:
    """Raises UserError for a flag of Mammoth's that the method would ignore."""
    known = set(flags.names.values())
    for name, (neutral, instead) in UNUSED.items():
        if name not in known and getattr(args, name, neutral) not in (neutral, None):
            raise UserError(f"--{name} {getattr(args, name)} does nothing for {flags.entry.name}: {instead}")


def run_arguments(given: Mapping[str, Any]) -> SimpleNamespace:
    """The options of a run at their defaults, and ``given`` over them."""
    return SimpleNamespace(**{**{spec.name: spec.default for spec in run_specs()}, **given})
