"""Lays out what ``--help``, ``--list`` and ``--check`` print, for a terminal of 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pmi_cl
from pmi_cl.errors import UserError
from pmi_cl.registry.catalogue import KINDS, Catalogue, Entry, OptionSpec
from pmi_cl.utils.arguments.option_values import bounds
from pmi_cl.utils.arguments.presets import PresetFile, presets_of
from pmi_cl.utils.arguments.run_options import GROUPS

WIDTH = 100
LONGEST_ALIGNED = 40  # a longer value, such as a class order, moves its own row's source only
COLUMN = 30  # where the explanation of a flag begins

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
  --version                   the version
  compare --help              another command: finished runs side by side, as a table and as curves
  invert --help               another: pictures of a text
  mammoth --help              another: the same methods inside a checkout of Mammoth
"""


def overview(run_specs: Sequence[OptionSpec]) -> str:
    """The text of ``--help`` alone: how to start, where to look next, the flags of every run by group."""
    by_name = {spec.name: spec for spec in run_specs}
    groups = [section(title, [by_name[name] for name in names]) for title, names in GROUPS.items()]
    return "\n".join([START, *groups])


def own_flags(
    entries: Iterable[Entry], values: Mapping[str, Any], sources: Mapping[str, str], catalogue: Catalogue
) -> str:
    """The text of ``--help`` with a model or a data set: their own flags, with the values that a run without flags would have."""
    parts = []
    for entry in entries:
        title = f"{KINDS[entry.kind]} {entry.name}: {entry.summary}"
        parts.append(
            section(title, entry.options, values, sources) if entry.options else f"{title}\n  (no flags of its own)\n"
        )
        presets = _preset_rows(presets_of(entry.name, catalogue)) if entry.kind == "model" else []
        if presets:
            parts.append("\n".join(["presets (--model_config)", *_aligned(presets)]) + "\n")
    inferred = any("[INF]" in part for part in parts)
    legend = "[INF]: our inference, where neither a paper nor its code says; docs/provenance.md has the reasons.\n"
    return "\n".join([*parts, "The flags of every run: --help alone.\n" + legend * inferred])


def section(
    title: str,
    specs: Sequence[OptionSpec],
    values: Mapping[str, Any] | None = None,
    sources: Mapping[str, str] | None = None,
) -> str:
    """A heading and a row for each flag. ``values`` and ``sources``: what presets and data set put over the options' own defaults."""
    rows = []
    for spec in specs:
        value = (values or {}).get(spec.name, spec.default)
        origin = (sources or {}).get(spec.name, "default")
        facts = _facts(spec, value, origin)
        rows.append(_row(f"--{spec.name} {_placeholder(spec)}", f"{spec.help} ({facts})" if facts else spec.help))
    return "\n".join([textwrap.fill(title, WIDTH, subsequent_indent="  "), *rows]) + "\n"


def _row(flag: str, explanation: str) -> str:
    """The flag in the left column, the explanation in the right one; on a line of its own where the flag is too long."""
    lines = textwrap.wrap(explanation, WIDTH - COLUMN, break_on_hyphens=False)
    left = f"  {flag}"
    if len(left) > COLUMN - 2:
        return "\n".join([left, *(" " * COLUMN + line for line in lines)])
    return "\n".join(f"{left if number == 0 else '':<{COLUMN}}{line}" for number, line in enumerate(lines))


def _placeholder(spec: OptionSpec) -> str:
    word = "|".join(spec.choices) or {"int": "INT", "float": "FLOAT", "str": "TEXT", "bool": "0|1"}[spec.scalar]
    return f"{word},..." if spec.many else word


def _facts(spec: OptionSpec, value: Any, origin: str) -> str:
    """What stands in the brackets: "default 10 minutes, above 0; source: paper, Table 2"; empty where there is nothing to say."""
    amount = "none" if value is None else f"{shown(value)} {spec.unit}".rstrip()
    if origin != "default":
        return ", ".join(filter(None, (f"{amount} by the {origin}", bounds(spec))))
    # an option without a default says in its help what none means
    facts = ", ".join(filter(None, (spec.unit if value is None else f"default {amount}", bounds(spec))))
    return "; ".join(filter(None, (facts, f"source: {spec.source}" if spec.source else "")))


def shown(value: Any) -> str:
    """A value as it would be typed."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, tuple):
        return ",".join(map(shown, value)) or "none"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return "none" if value is None else str(value)


def listing(catalogue: Catalogue) -> str:
    """The text of ``--list``: models, data sets, backbones and presets, a line each."""
    blocks = []
    for kind, word in KINDS.items():
        rows = [(entry.name, _origin(entry) + entry.summary) for entry in catalogue.entries(kind)]
        rows += [(name, str(error)) for name, error in catalogue.broken[kind].items()]
        blocks.append("\n".join([f"{word}s (--{kind})", *_aligned(rows)]))
    parts = [(part.name, f"[{part.package}] {part.module}:{part.attribute}") for part in catalogue.outside("inversion")]
    blocks += ["\n".join(["parts of an inversion (--inv_start, --inv_terms)", *_aligned(parts)])] if parts else []
    models = [entry.name for entry in catalogue.entries("model")]
    width = max(map(len, models), default=0)
    rows = [
        (f"{model:<{width}}  {name}", about) for model in models for name, about in _readable_presets(model, catalogue)
    ]
    blocks.append("\n".join(["presets (--model_config)", *_aligned(rows)]))
    return "\n\n".join(blocks) + "\n"


def _readable_presets(model: str, catalogue: Catalogue) -> list[tuple[str, str]]:
    """A row for each preset; for a file that cannot be used, what is wrong with it: one must not stop the rest."""
    try:
        return _preset_rows(presets_of(model, catalogue))
    except UserError as error:
        return [("(broken)", str(error))]


def _origin(entry: Entry) -> str:
    return f"[{entry.extension.package}] " if entry.extension else ""


def _preset_rows(file: PresetFile) -> list[tuple[str, str]]:
    """(name, what it is and where it is the default) of each preset."""
    defaults = {name: file.default_for(name) for name in file.presets}
    return [
        (name, (f"[{defaults[name]}] " if defaults[name] else "") + preset.about)
        for name, preset in file.presets.items()
    ]


def _aligned(rows: Sequence[tuple[str, str]]) -> list[str]:
    if not rows:
        return ["  (none)"]
    width = max(len(name) for name, _ in rows)
    indent = " " * (width + 4)
    lines = [
        textwrap.wrap(text, WIDTH, initial_indent=f"  {name:<{width}}  ", subsequent_indent=indent)
        for name, text in rows
    ]
    return [line for (name, _), wrapped in zip(rows, lines, strict=True) for line in wrapped or [f"  {name}"]]


def table(args: SimpleNamespace, sources: Mapping[str, str]) -> str:
    """The text of ``--check``: one row for each value, with where it came from."""
    rows = [(name, shown(value), sources[name]) for name, value in vars(args).items()]
    name_width = max(len(name) for name, _, _ in rows)
    value_width = max(len(value) for _, value, _ in rows if len(value) <= LONGEST_ALIGNED)
    return "".join(f"{name:<{name_width}}  {value:<{value_width}}  {source}\n" for name, value, source in rows)
