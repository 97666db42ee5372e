"""Composes what ``--help`` and ``--list`` print."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pmi_cl
from pmi_cl.errors import UserError
from pmi_cl.registry.catalogue import KINDS, Catalogue, Entry
from pmi_cl.utils.arguments.known_options import groups
from pmi_cl.utils.arguments.option_texts import aligned, section
from pmi_cl.utils.arguments.presets import PresetFile, presets_of
from pmi_cl.utils.commands.index import COMMANDS

FLAG_COLUMN = 28  # width of the words to type in the first lines of --help

START = f"""\
pmi-cl {pmi_cl.__version__}: continual learning without stored data, by per-layer model inversion (PMI + CFS)

usage: python main.py --model MODEL --dataset DATASET [--flag value] ...     (installed: pmi-cl ...)

start with
  python main.py --model pmi_rdfcil --dataset seq-digits           minutes on a CPU, no download
  python main.py --model pmi_rdfcil --dataset seq-digits --check   what it would run with

look next
  --list                      all models, data sets, backbones and presets
  --help --model MODEL        the model's own flags and presets; with --dataset, the data set's too
  --check                     check everything, print each value with its source, do not run
  --estimate                  the same, and time a few steps: hours, memory and disk of the run
  --version                   the version
"""


def overview() -> str:
    """Return the text of ``--help`` alone: how to start, the commands, the flags of every run."""
    commands = [
        f"  {f'{command.word} --help':<{FLAG_COLUMN - 2}}  another command: {command.about}\n" for command in COMMANDS
    ]
    return "\n".join([START + "".join(commands), *(section(title, specs) for title, specs in groups().items())])


def own_flags(
    entries: Iterable[Entry], values: Mapping[str, Any], sources: Mapping[str, str], catalogue: Catalogue
) -> str:
    """Return the text of ``--help`` with a model or a data set: their own flags.

    Args:
        values, sources: what a run without flags would have, and where each value is from.
    """
    parts = []
    for entry in entries:
        title = f"{KINDS[entry.kind]} {entry.name}: {entry.summary}"
        parts.append(
            section(title, entry.options, values, sources) if entry.options else f"{title}\n  (no flags of its own)\n"
        )
        presets = _preset_rows(presets_of(entry.name, catalogue)) if entry.kind == "model" else []
        if presets:
            parts.append("\n".join(["presets (--model_config)", *aligned(presets)]) + "\n")
    inferred = any("[INF]" in part for part in parts)
    legend = "[INF]: our inference, where neither a paper nor its code says; docs/provenance.md has the reasons.\n"
    return "\n".join([*parts, "The flags of every run: --help alone.\n" + legend * inferred])


def listing(catalogue: Catalogue) -> str:
    """Return the text of ``--list``: models, data sets, backbones and presets, a line each."""
    blocks = []
    for kind, word in KINDS.items():
        rows = [(entry.name, _origin(entry) + entry.summary) for entry in catalogue.entries(kind)]
        rows += [(name, str(error)) for name, error in catalogue.broken[kind].items()]
        blocks.append("\n".join([f"{word}s (--{kind})", *aligned(rows)]))
    parts = [
        (part.name, str(part.fault(part.wrong)) if part.wrong else f"[{part.package}] {part.module}:{part.attribute}")
        for part in catalogue.outside("inversion")
    ]
    blocks += ["\n".join(["parts of an inversion (--inv_start, --inv_terms)", *aligned(parts)])] if parts else []
    models = [entry.name for entry in catalogue.entries("model")]
    width = max(map(len, models), default=0)
    rows = [
        (f"{model:<{width}}  {name}", about) for model in models for name, about in _readable_presets(model, catalogue)
    ]
    blocks.append("\n".join(["presets (--model_config)", *aligned(rows)]))
    return "\n\n".join(blocks) + "\n"


def _readable_presets(model: str, catalogue: Catalogue) -> list[tuple[str, str]]:
    """Return a row for each preset, or one row that says why the file of presets cannot be used."""
    try:
        return _preset_rows(presets_of(model, catalogue))
    except UserError as error:
        return [("(broken)", str(error))]


def _origin(entry: Entry) -> str:
    return f"[{entry.extension.package}] " if entry.extension else ""


def _preset_rows(file: PresetFile) -> list[tuple[str, str]]:
    """Return (name, what it is and where it is the default) of each preset."""
    defaults = {name: file.default_for(name) for name in file.presets}
    return [
        (name, (f"[{defaults[name]}] " if defaults[name] else "") + preset.about)
        for name, preset in file.presets.items()
    ]
