"""Reads a method's presets (``models/config/<model>.yaml``) and decides the value of every option, with where each came from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pmi_cl.catalogue import Catalogue, Entry, OptionSpec, canonical
from pmi_cl.errors import UserError, unknown_name
from pmi_cl.utils.option_values import convert

NOT_IN_PRESETS = ("model", "dataset", "model_config", "resume")


@dataclass(frozen=True)
class Preset:
    """Named settings: ``sections["all"]`` for every data set, over it the section of the data set at hand."""

    name: str
    about: str
    sections: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class PresetFile:
    """The presets of one method, and for each data set (or ``all``) the one used when ``--model_config`` is not given."""

    path: Path
    default: dict[str, str] = field(default_factory=dict)
    presets: dict[str, Preset] = field(default_factory=dict)

    def chosen(self, requested: str | None, dataset: str) -> Preset | None:
        """The preset that was asked for, else the data set's default one, else None (as for "none"). Raises UserError for others."""
        name = requested or self.default.get(dataset, self.default.get("all", "none"))
        presets = {canonical(known): preset for known, preset in self.presets.items()}
        if canonical(name) == "none":
            return None
        if canonical(name) not in presets:
            raise unknown_name("preset", name, [*self.presets, "none"])
        return presets[canonical(name)]

    def default_for(self, preset: str) -> str:
        """Where the preset is the default, in words; empty where it is not."""
        datasets = [dataset for dataset, name in self.default.items() if name == preset]
        return ", ".join("default" if dataset == "all" else f"default on {dataset}" for dataset in datasets)


def presets_of(model: str, catalogue: Catalogue) -> PresetFile:
    """The presets of a method; none at all where it has no file. Raises UserError for a file of the wrong shape."""
    path = catalogue.preset_path(model)
    return (
        PresetFile(Path(f"models/config/{model}.yaml"))
        if path is None
        else _read(path, [entry.name for entry in catalogue.entries("dataset")])
    )


def _read(path: Path, datasets: Collection[str]) -> PresetFile:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, ValueError) as error:
        raise UserError(f"{path} is not readable as YAML: {error}") from error
    content = _mapping(document, str(path))
    default = _mapping(content.pop("default", {}), f"{path}: default")
    presets = {name: _preset(name, _mapping(body, f"{path}: preset {name}"), datasets, path) for name, body in content.items()}
    for dataset, name in default.items():
        _known_dataset(dataset, datasets, f"{path}: default")
        if str(name) not in presets:
            raise UserError(f"{path}: default: {unknown_name('preset', str(name), presets)}")
    return PresetFile(path, default, presets)


def _preset(name: str, body: dict[str, Any], datasets: Collection[str], path: Path) -> Preset:
    about = str(body.pop("about", ""))
    for dataset in body:
        _known_dataset(dataset, datasets, f"{path}: preset {name}")
    sections = {dataset: _mapping(section, f"{path}: preset {name}, {dataset}") for dataset, section in body.items()}
    return Preset(name, about, sections)


def _known_dataset(name: str, datasets: Collection[str], where: str) -> None:
    if name != "all" and name not in datasets:
        raise UserError(f"{where}: {unknown_name('section', name, [*datasets, 'all', 'about'])}")


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise UserError(f"{where}: write it as 'name: value' lines")
    return dict(value)


def decide(
    specs: Sequence[OptionSpec], flags: Mapping[str, str], presets: PresetFile, dataset: Entry
) -> tuple[dict[str, Any], dict[str, str]]:
    """The value of every option: flag, over preset (data set), over preset (all), over data set, over the option's default.

    Args:
        specs: all options of the run, the method and the data set.
        flags: what was typed, as text, each one of ``specs``; ``flags["model_config"]`` chooses the preset.
        presets: those of the method.

    Returns:
        (values, sources): by option name; a source is "flag", "preset NAME", "preset NAME (DATASET)", "data set" or "default".

    Raises:
        UserError: a value that the option does not allow, with the flag or the file, preset and key; an unknown preset or key.
    """
    by_name = {spec.name: spec for spec in specs}
    preset = presets.chosen(flags.get("model_config"), dataset.name)
    values = {spec.name: spec.default for spec in specs}
    sources = dict.fromkeys(values, "default")
    own = {name: raw for name, raw in dataset.constants.get("DEFAULTS", {}).items() if name in by_name}
    layers = [
        ("data set", f"{dataset.module}: DEFAULTS: ", own),
        *_preset_layers(presets, preset, dataset.name, by_name),
        ("flag", "--", flags),
    ]
    for source, where, settings in layers:
        for name, raw in settings.items():
            values[name] = convert(by_name[name], raw, f"{where}{name} {raw}")
            sources[name] = source
    values["model_config"] = preset.name if preset else None
    return values, sources


def _preset_layers(
    presets: PresetFile, preset: Preset | None, dataset: str, known: Collection[str]
) -> list[tuple[str, str, dict[str, Any]]]:
    """(source, what an error starts with, settings) of the preset's sections that count here, the weaker first."""
    if preset is None:
        return []
    where = f"{presets.path}: preset {preset.name}: "
    allowed = [name for name in known if name not in NOT_IN_PRESETS]
    layers = []
    for section, label in (("all", f"preset {preset.name}"), (dataset, f"preset {preset.name} ({dataset})")):
        settings = preset.sections.get(section, {})
        for key in settings:
            if key not in allowed:
                raise UserError(f"{where}{unknown_name('key', key, allowed)}")
        layers.append((label, where, settings))
    return layers
