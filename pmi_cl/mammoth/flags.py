"""Turn our options into flags of Mammoth, and our presets into their values."""

from __future__ import annotations

import argparse
import ast
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from pmi_cl.errors import UserError
from pmi_cl.options import OptionSpec
from pmi_cl.registry.catalogue import INSTALLED, Entry, canonical
from pmi_cl.utils.arguments.command_line import all_specs
from pmi_cl.utils.arguments.known_options import as_in_mammoth, run_specs
from pmi_cl.utils.arguments.option_values import bounds, convert
from pmi_cl.utils.arguments.presets import PresetFile, chosen_backbone, decide, presets_of

PREFIX = "pmi_"
# Mammoth's flags that our methods ignore: the neutral value, and what to do instead.
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
    "eval_future": (False, "classes of later tasks are evaluated in pmi-cl's own runner, by --evaluate_unseen 1"),
}


class Flags:
    """Hold the flags of one entry.

    Attributes:
        entry: the method, data set or backbone.
        specs: its options.
        names: the flag of each option. ``pmi_`` precedes a name that means something else in
            Mammoth.
        own: the options whose flags Mammoth does not have.
        set_by_preset: the options that a preset sets in Mammoth.
    """

    def __init__(self, entry: Entry, mammoth_flags: Collection[str]) -> None:
        self.entry = entry
        self.specs = (*(spec for spec in run_specs() if spec.read_by == entry.kind), *entry.options)
        same = as_in_mammoth()
        self.names = {
            spec.name: PREFIX + spec.name if spec.name in mammoth_flags and spec.name not in same else spec.name
            for spec in self.specs
        }
        self.own = tuple(spec for spec in self.specs if self.names[spec.name] not in mammoth_flags)
        self.set_by_preset = self.specs if entry.kind == "model" else self.own

    def add_to(self, parser: Any) -> None:
        """Add the flags that Mammoth does not have."""
        for spec in self.own:
            many = {"nargs": "+", "action": _Many, "spec": spec} if spec.many else {"type": value_reader(spec)}
            parser.add_argument(f"--{self.names[spec.name]}", default=spec.default, help=help_of(spec), **many)

    def parsable_arguments(self) -> dict[str, dict[str, Any]]:
        """Return these flags as Mammoth's registers of data sets and backbones hold them.

        These take one word for each flag.
        """
        return {
            self.names[spec.name]: {
                "type": value_reader(spec),
                "default": spec.default,
                "required": False,
                "help": help_of(spec),
            }
            for spec in self.own
        }

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the option values in Mammoth's arguments, by option.

        Raises:
            UserError: a value is not allowed.
        """
        found = {}
        for spec in self.specs:
            flag = self.names[spec.name]
            if flag in given:
                found[spec.name] = convert(spec, _literal(given[flag]), f"--{flag} {given[flag]}")
        return found


def value_reader(spec: OptionSpec) -> Callable[[Any], Any]:
    """Return the function that turns a word, or a default, into the option's value."""

    def read(word: Any) -> Any:
        try:
            return convert(spec, _literal(word), f"'{word}'")
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def _literal(word: Any) -> Any:
    """Return the tuple that a text such as "(0.6, 0.75)" means, and any other word as it is.

    Mammoth's checkpoints hold tuples as texts.
    """
    if not (isinstance(word, str) and word.startswith("(")):
        return word
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word


class _Many(argparse.Action):
    """Accept ``--name 0.2 0.4`` and ``--name 0.2,0.4`` for the same values."""

    def __init__(self, *args: Any, spec: OptionSpec, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.read = value_reader(spec)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        try:
            setattr(namespace, self.dest, self.read(",".join(values)))
        except argparse.ArgumentTypeError as error:
            parser.error(f"{option_string}: {error}")


def help_of(spec: OptionSpec) -> str:
    """Return the help text of an option in argparse's format.

    It says what the option is, its choices, unit, bounds, default and source.
    """
    choices = f"one of {', '.join(spec.choices)}" if spec.choices else ""
    facts = [fact for fact in (choices, spec.unit, bounds(spec)) if fact]
    source = [f"source: {spec.source}"] if spec.source else []
    before, after = (_escaped("; ".join(part)) for part in (facts, source))
    details = "; ".join(filter(None, [before, "default: %(default)s", after]))
    return f"{_escaped(spec.help)} ({details})"


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def options_from_preset(
    model: Entry, dataset: str, ours: Entry | None, preset: str | None, backbone: str | None = None
) -> dict[str, Any]:
    """Return every option at the value of the method's preset for the data set, and the backbone.

    Args:
        dataset: the name of the data set in Mammoth.
        ours: the data set's entry, if it is one of ours.
        preset: the preset's name. None, "default" and "base" mean the method's choice for the data
            set.
        backbone: our name of the backbone that was typed. None means the backbone of the method, or
            of the data set.

    Raises:
        UserError: an unknown preset.
    """
    presets = presets_of(model.name, INSTALLED, preset)
    entry = ours or _foreign_dataset(presets, dataset)
    flags = {} if preset in (None, "default", "base") else {"model_config": str(preset)}
    flags |= {"backbone": backbone} if backbone else {}
    network = INSTALLED.find("backbone", str(chosen_backbone(flags, presets, model, entry)))
    specs = all_specs(model, entry, network)
    # A preset may set options of our data sets, which a data set of Mammoth does not have.
    absent = () if ours else _data_options({spec.name for spec in specs})
    values, sources = decide((*specs, *absent), flags, presets, model, entry)
    if ours is None:
        for name in (
            *(spec.name for spec in run_specs() if spec.read_by == "dataset"),
            *(spec.name for spec in absent),
        ):
            if sources[name].startswith("preset"):
                ignored = "pmi-cl: the preset's %s %s does not count: %s is Mammoth's data set"
                logging.warning(ignored, name, values[name], dataset)
    return {**values, "backbone": network.name}


def _foreign_dataset(presets: PresetFile, dataset: str) -> Entry:
    """Return an entry for a data set of Mammoth, named as the presets name it."""
    names = {canonical(name): name for preset in presets.presets.values() for name in preset.sections}
    name = names.get(canonical(dataset), dataset)
    return Entry("dataset", name, "Mammoth", "", "", (), {"DEFAULTS": {"backbone": "resnet32"}})


def _data_options(known: Collection[str]) -> tuple[OptionSpec, ...]:
    """Return the options of all our data sets except those with a known name."""
    specs = (spec for entry in INSTALLED.entries("dataset") for spec in entry.options)
    return tuple({spec.name: spec for spec in specs if spec.name not in known}.values())


def preset_names(model: Entry) -> Sequence[str]:
    """Return the values that ``--model_config`` takes."""
    return ("default", *presets_of(model.name, INSTALLED).presets, "none")


def refuse_unused(flags: Flags, args: Any) -> None:
    """Raise UserError if a flag of Mammoth is set that the method ignores."""
    known = set(flags.names.values())
    for name, (neutral, instead) in UNUSED.items():
        if name not in known and getattr(args, name, neutral) not in (neutral, None):
            raise UserError(f"--{name} {getattr(args, name)} does nothing for {flags.entry.name}: {instead}")


def own_runner_flags(mammoth_flags: Collection[str]) -> frozenset[str]:
    """Return the options of every run that only our own runner reads: Mammoth has no such flag."""
    return frozenset(spec.name for spec in run_specs() if not spec.read_by and spec.name not in mammoth_flags)


def run_arguments(given: Mapping[str, Any]) -> SimpleNamespace:
    """Return the options of a run: ``given``, and the defaults of all others."""
    return SimpleNamespace(**{**{spec.name: spec.default for spec in run_specs()}, **given})
