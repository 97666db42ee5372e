"""Turn our options into flags of Mammoth, and our presets into their values."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from types import SimpleNamespace
from typing import Any

from pmi_cl.datasets.dataset_outline import DatasetOutline
from pmi_cl.options import OptionSpec
from pmi_cl.registry.catalogue import INSTALLED, Entry, canonical
from pmi_cl.utils.arguments.command_line import all_specs
from pmi_cl.utils.arguments.known_options import as_in_mammoth, run_specs
from pmi_cl.utils.arguments.option_values import bounds, convert
from pmi_cl.utils.arguments.presets import chosen_backbone, decide, presets_of

PREFIX = "pmi_"


class HostedEntry:
    """Hold an entry of ours with its name and its flags inside Mammoth.

    Attributes:
        entry: the method, data set or backbone.
        name: its name inside Mammoth.
        specs: its options, and those of every run that its code reads.
        flags: the flag of each option. ``pmi_`` precedes a name that means something else there.
        new: the options whose flags Mammoth does not have, by flag.
    """

    def __init__(self, entry: Entry, name: str, mammoth_flags: Collection[str]) -> None:
        self.entry, self.name = entry, name
        self.specs = (*(spec for spec in run_specs() if spec.read_by == entry.kind), *entry.options)
        other = set(mammoth_flags) - as_in_mammoth()
        self.flags = {spec.name: PREFIX + spec.name if spec.name in other else spec.name for spec in self.specs}
        flagged = {self.flags[spec.name]: spec for spec in self.specs}
        self.new = {flag: spec for flag, spec in flagged.items() if flag not in mammoth_flags}

    def parsable_args(self) -> dict[str, dict[str, Any]]:
        """Return the flags that Mammoth does not have, in the form of its registers.

        They have no type: :meth:`values` reads and checks them.
        """
        # Mammoth fills num_classes in for a backbone where it is not typed.
        classes = {"num_classes": {"type": int, "default": None}} if self.entry.kind == "backbone" else {}
        flags = {flag: {"type": None, "default": spec.default, "help": _help(spec)} for flag, spec in self.new.items()}
        return {**classes, **flags}

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the option values in Mammoth's arguments, by option. Raise UserError."""
        typed = [(spec, self.flags[spec.name]) for spec in self.specs if self.flags[spec.name] in given]
        return {spec.name: _value(spec, given[flag], f"--{flag} {given[flag]}") for spec, flag in typed}


def _value(spec: OptionSpec, word: Any, where: str) -> Any:
    """Return the value that a word means; Mammoth's checkpoints have "(0.6, 0.75)" for a tuple."""
    if spec.many and isinstance(word, str) and word.startswith("("):
        word = word.replace("'", "").strip("(), ") or "none"
    return convert(spec, word, where)


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
    name = sections.get(canonical(dataset), dataset)
    entry = ours or Entry("dataset", name, "Mammoth", "", "", (), {"DEFAULTS": DatasetOutline.DEFAULTS})
    flags = {} if preset in (None, "default", "base") else {"model_config": str(preset)}
    flags |= {"backbone": backbone} if backbone else {}
    network = INSTALLED.find("backbone", str(chosen_backbone(flags, presets, model, entry)))
    own = {spec.name: spec for spec in all_specs(model, entry, network)}
    # A preset may set options of our data sets, which a data set of Mammoth does not have.
    of_data = [] if ours else [spec for one in INSTALLED.entries("dataset") for spec in one.options]
    specs = {**{spec.name: spec for spec in of_data}, **own}
    values, sources = decide(tuple(specs.values()), flags, presets, model, entry)
    for option, spec in () if ours else specs.items():
        if sources[option].startswith("preset") and (option not in own or spec.read_by == "dataset"):
            ignored = "pmi-cl: the preset's %s %s does not count: %s is Mammoth's data set"
            logging.warning(ignored, option, values[option], dataset)
    return {**values, "backbone": network.name}


def preset_names(model: Entry) -> tuple[str, ...]:
    """Return the values that ``--model_config`` takes."""
    return ("default", *presets_of(model.name, INSTALLED).presets, "none")


def run_arguments(given: Mapping[str, Any]) -> SimpleNamespace:
    """Return the options of a run: ``given``, and the defaults of all others."""
    return SimpleNamespace(**{**{spec.name: spec.default for spec in run_specs()}, **given})
