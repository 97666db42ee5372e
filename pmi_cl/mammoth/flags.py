"""Turn our options into flags of Mammoth, and our presets into their values."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Collection, Mapping
from types import SimpleNamespace
from typing import Any

from pmi_cl.errors import UserError
from pmi_cl.options import OptionSpec
from pmi_cl.registry.catalogue import INSTALLED, Entry, canonical
from pmi_cl.utils.arguments.command_line import all_specs
from pmi_cl.utils.arguments.known_options import as_in_mammoth, run_specs
from pmi_cl.utils.arguments.option_values import bounds, convert
from pmi_cl.utils.arguments.presets import chosen_backbone, decide, presets_of

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
    "distributed": ("no", "it trains on one device: leave it out"),
}


class HostedEntry:
    """Hold an entry of ours with its name and its flags inside Mammoth.

    Attributes:
        entry: the method, data set or backbone.
        name: its name inside Mammoth.
        specs: its options, and those of every run that its code reads.
        flags: the flag of each option. ``pmi_`` precedes a name that means something else there.
        new: the options whose flags Mammoth does not have.
    """

    def __init__(self, entry: Entry, name: str, mammoth_flags: Collection[str]) -> None:
        self.entry, self.name = entry, name
        self.specs = (*(spec for spec in run_specs() if spec.read_by == entry.kind), *entry.options)
        other = set(mammoth_flags) - as_in_mammoth()
        self.flags = {spec.name: PREFIX + spec.name if spec.name in other else spec.name for spec in self.specs}
        self.new = [spec for spec in self.specs if self.flags[spec.name] not in mammoth_flags]

    def parsable_args(self) -> dict[str, dict[str, Any]]:
        """Return the flags that Mammoth does not have, in the form of its registers."""
        flags = {
            self.flags[spec.name]: {"type": _reader(spec), "default": spec.default, "help": _help(spec)}
            for spec in self.new
        }
        # Mammoth fills it in for a backbone whose number of classes is not typed.
        classes = {"num_classes": {"type": int, "default": None}}
        return {**classes, **flags} if self.entry.kind == "backbone" else flags

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the option values in Mammoth's arguments, by option. Raise UserError."""
        typed = {name: given[flag] for name, flag in self.flags.items() if flag in given}
        return {
            spec.name: convert(spec, _plain(spec, typed[spec.name]), f"--{self.flags[spec.name]} {typed[spec.name]}")
            for spec in self.specs
            if spec.name in typed
        }

    def refuse_unused(self, args: Any) -> None:
        """Raise UserError if a flag of Mammoth is set that the method ignores."""
        for name, (neutral, instead) in UNUSED.items():
            if name not in self.flags.values() and getattr(args, name, neutral) not in (neutral, None):
                raise UserError(f"--{name} {getattr(args, name)} does nothing for {self.entry.name}: {instead}")


def _reader(spec: OptionSpec) -> Callable[[Any], Any]:
    """Return the function that turns a word, or a default, into the option's value."""

    def read(word: Any) -> Any:
        try:
            return convert(spec, _plain(spec, word), f"'{word}'")
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def _plain(spec: OptionSpec, word: Any) -> Any:
    """Return "0.6, 0.75" for "(0.6, 0.75)", as Mammoth's checkpoints write a tuple."""
    if not (spec.many and isinstance(word, str) and word.startswith("(")):
        return word
    return word.replace("'", "").strip("(), ") or "none"


def _help(spec: OptionSpec) -> str:
    """Return what an option is, its choices, unit, bounds, default and source, for argparse."""
    facts = [f"one of {', '.join(spec.choices)}" if spec.choices else "", spec.unit, bounds(spec)]
    source = f"source: {spec.source}" if spec.source else ""
    text = f"{spec.help} ({'; '.join(filter(None, [*facts, 'default: DEFAULT', source]))})"
    return text.replace("%", "%%").replace("default: DEFAULT", "default: %(default)s")


def preset_values(
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
    sections = {canonical(name): name for one in presets.presets.values() for name in one.sections}
    name, defaults = sections.get(canonical(dataset), dataset), {"DEFAULTS": {"backbone": "resnet32"}}
    entry = ours or Entry("dataset", name, "Mammoth", "", "", (), defaults)
    flags = {} if preset in (None, "default", "base") else {"model_config": str(preset)}
    flags |= {"backbone": backbone} if backbone else {}
    network = INSTALLED.find("backbone", str(chosen_backbone(flags, presets, model, entry)))
    specs = all_specs(model, entry, network)
    # A preset may set options of our data sets, which a data set of Mammoth does not have.
    names = {spec.name for spec in specs}
    data = [spec for one in INSTALLED.entries("dataset") for spec in one.options if spec.name not in names]
    data = [] if ours else list({spec.name: spec for spec in data}.values())
    values, sources = decide((*specs, *data), flags, presets, model, entry)
    for spec in () if ours else (*specs, *data):
        if (spec in data or spec.read_by == "dataset") and sources[spec.name].startswith("preset"):
            ignored = "pmi-cl: the preset's %s %s does not count: %s is Mammoth's data set"
            logging.warning(ignored, spec.name, values[spec.name], dataset)
    return {**values, "backbone": network.name}


def preset_names(model: Entry) -> tuple[str, ...]:
    """Return the values that ``--model_config`` takes."""
    return ("default", *presets_of(model.name, INSTALLED).presets, "none")


def run_arguments(given: Mapping[str, Any]) -> SimpleNamespace:
    """Return the options of a run: ``given``, and the defaults of all others."""
    return SimpleNamespace(**{**{spec.name: spec.default for spec in run_specs()}, **given})
