"""Reads presets (``models/config/<model>.yaml``) and decides the value of each option."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pmi_cl.errors import UserError, unknown_name
from pmi_cl.machine.plain_text import excerpt
from pmi_cl.machine.user_paths import user_path
from pmi_cl.options import OptionSpec
from pmi_cl.registry.catalogue import Catalogue, Entry, canonical
from pmi_cl.utils.arguments.option_values import convert
from pmi_cl.utils.arguments.preset_text import read_yaml

# Kind of an entry with DEFAULTS -> the source of such a value.
KINDS_OF_DEFAULTS = {"dataset": "data set", "model": "method"}
OWN_FILES = (".yaml", ".yml")  # what --model_config ends with where it is a file of the user's


@dataclass(frozen=True)
class Preset:
    """Named settings.

    Attributes:
        name, about: what it is called, and a line about it.
        sections: settings by data set. Those in ``all`` count for every data set, and the section
            of a data set overrides them.
    """

    name: str
    about: str
    sections: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class PresetFile:
    """The presets of one method.

    Attributes:
        path: the file.
        default: data set (or ``all``) -> the preset of a run without ``--model_config``.
        presets: by name.
    """

    path: Path
    default: dict[str, str] = field(default_factory=dict)
    presets: dict[str, Preset] = field(default_factory=dict)

    def chosen(self, requested: str | None, dataset: str) -> Preset | None:
        """Return the requested preset, else the default of the data set; None for "none".

        Raises:
            UserError: there is no preset of that name.
        """
        name = requested or self.default.get(dataset, self.default.get("all", "none"))
        presets = {canonical(known): preset for known, preset in self.presets.items()}
        if canonical(name) == "none":
            return None
        if canonical(name) not in presets:
            raise unknown_name("preset", name, [*self.presets, "none"])
        return presets[canonical(name)]

    def default_for(self, preset: str) -> str:
        """Return where the preset is the default, in words; empty if nowhere."""
        datasets = [dataset for dataset, name in self.default.items() if name == preset]
        return ", ".join("default" if dataset == "all" else f"default on {dataset}" for dataset in datasets)


def presets_of(model: str, catalogue: Catalogue, requested: str | None = None) -> PresetFile:
    """Return the presets of a method, of which there are none if it has no file.

    Args:
        requested: the value of ``--model_config``. A path that ends in .yaml or .yml is the user's
            own file: its preset is then the only one.

    Raises:
        UserError: a file that cannot be read, or is of the wrong shape.
    """
    datasets = [*(entry.name for entry in catalogue.entries("dataset")), *catalogue.broken["dataset"]]
    if requested is not None and requested.lower().endswith(OWN_FILES):
        return _own_file(requested, datasets)
    path = catalogue.preset_path(model)
    return PresetFile(Path(f"models/config/{model}.yaml")) if path is None else _read(path, datasets)


def _own_file(requested: str, datasets: Collection[str]) -> PresetFile:
    """Return the preset of a user's own file.

    The file has 'option: value' lines for every data set, or the form of those in models/config.
    """
    path = user_path(requested, "--model_config")
    content = _mapping(read_yaml(path), str(path))
    if not any(isinstance(value, dict) for value in content.values()):
        return PresetFile(path, presets={requested: Preset(requested, str(content.pop("about", "")), {"all": content})})
    names = [name for name in content if name not in ("default", "base")]
    if len(names) != 1:
        raise UserError(
            f"{path} has {len(names)} presets ({', '.join(names)}): leave one, or write 'option: value' lines alone"
        )
    return PresetFile(path, presets={requested: replace(_read(path, datasets).presets[names[0]], name=requested)})


def _read(path: Path, datasets: Collection[str]) -> PresetFile:
    content = _mapping(read_yaml(path), str(path))
    default = _mapping(content.pop("default", {}), f"{path}: default")
    presets = _base(path, content.pop("base", None), datasets)
    for name, body in content.items():
        preset = _preset(name, _mapping(body, f"{path}: preset {name}"), datasets, path)
        presets[name] = _over(presets[name], preset) if name in presets else preset
    for dataset, name in default.items():
        _known_dataset(dataset, datasets, f"{path}: default")
        if str(name) not in presets:
            raise UserError(f"{path}: default: {unknown_name('preset', str(name), presets)}")
    return PresetFile(path, default, presets)


def _base(path: Path, base: Any, datasets: Collection[str]) -> dict[str, Preset]:
    """Return the presets of the file that ``base:`` names; the file at ``path`` adds to them."""
    if base is None:
        return {}
    file = path.parent / f"{base}.yaml"
    if not file.is_file() or "base" in _mapping(read_yaml(file), str(file)):
        raise UserError(f"{path}: base {base}: name a preset file beside it ({base}.yaml) that has no base itself")
    return _read(file, datasets).presets


def _over(base: Preset, own: Preset) -> Preset:
    """Return a preset of the base file, overridden by the values of the method's own."""
    sections = {
        name: {**base.sections.get(name, {}), **own.sections.get(name, {})}
        for name in {**base.sections, **own.sections}
    }
    return Preset(own.name, own.about or base.about, sections)


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


@dataclass(frozen=True)
class Layer:
    """Settings from one place.

    Attributes:
        source: the place, as a source of values.
        where: what an error about them starts with.
        settings: the raw values by option name.
    """

    source: str
    where: str
    settings: Mapping[str, Any]


def layers(flags: Mapping[str, str], presets: PresetFile, model: Entry, dataset: Entry) -> list[Layer]:
    """Return all layers of settings; a later one overrides an earlier one.

    Their order is: data set, method, preset (all), preset (data set), flags.
    """
    preset = presets.chosen(flags.get("model_config"), dataset.name)
    own = [
        Layer(KINDS_OF_DEFAULTS[e.kind], f"{e.module}: DEFAULTS: ", e.constants.get("DEFAULTS", {}))
        for e in (dataset, model)
    ]
    return [*own, *_preset_layers(presets, preset, dataset.name), Layer("flag", "--", flags)]


def chosen_backbone(flags: Mapping[str, str], presets: PresetFile, model: Entry, dataset: Entry) -> str | None:
    """Return the name of the backbone in the strongest layer that has one, or None.

    It is decided before all other options, because the backbone has options of its own.
    """
    named = [
        layer.settings["backbone"] for layer in layers(flags, presets, model, dataset) if "backbone" in layer.settings
    ]
    return None if not named or str(named[-1]).lower() == "none" else str(named[-1])


def decide(
    specs: Sequence[OptionSpec], flags: Mapping[str, str], presets: PresetFile, model: Entry, dataset: Entry
) -> tuple[dict[str, Any], dict[str, str]]:
    """Decide the value of every option, from the layers of :func:`layers` and its own default.

    Args:
        specs: all options of the run, the method, the data set and the backbone.
        flags: what was typed, as text. ``flags["model_config"]`` chooses the preset.
        presets: those of the method.

    Returns:
        (values, sources): by option name. A source is "flag", "preset NAME",
            "preset NAME (DATASET)", "method", "data set" or "default".

    Raises:
        UserError: an unknown preset or key, or a value that the option does not allow. It names the
            flag, or the file, preset and key.
    """
    by_name = {spec.name: spec for spec in specs}
    preset = presets.chosen(flags.get("model_config"), dataset.name)
    values = {spec.name: spec.default for spec in specs}
    sources = dict.fromkeys(values, "default")
    for layer in layers(flags, presets, model, dataset):
        _refuse_unknown_keys(layer, by_name)
        for name, raw in layer.settings.items():
            if name in by_name:  # a data set's defaults may be for other methods
                values[name] = convert(by_name[name], raw, f"{layer.where}{name} {excerpt(raw)}")
                sources[name] = layer.source
    values["model_config"] = preset.name if preset else None
    return values, sources


def _preset_layers(presets: PresetFile, preset: Preset | None, dataset: str) -> list[Layer]:
    """Return the sections of the preset for this data set, the weaker first."""
    if preset is None:
        return []
    where = f"{presets.path}: " + ("" if preset.name.lower().endswith(OWN_FILES) else f"preset {preset.name}: ")
    labels = {"all": f"preset {preset.name}", dataset: f"preset {preset.name} ({dataset})"}
    return [Layer(label, where, preset.sections.get(section, {})) for section, label in labels.items()]


def _refuse_unknown_keys(layer: Layer, known: Mapping[str, OptionSpec]) -> None:
    """Refuse a key of a preset that is no option, or one that chooses what runs."""
    if layer.source.startswith("preset"):
        allowed = [name for name, spec in known.items() if spec.role != "choice"]
        for key in layer.settings:
            if key not in allowed:
                raise UserError(f"{layer.where}{unknown_name('key', key, allowed)}")
