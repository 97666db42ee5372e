"""Lays out options and their values as text, for a terminal of 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from pmi_cl.options import OptionSpec
from pmi_cl.utils.arguments.option_values import bounds

WIDTH = 100
LONGEST_ALIGNED = 40  # a longer value, such as a class order, moves its own row's source only
COLUMN = 30  # where the explanation of a flag begins


def section(
    title: str,
    specs: Sequence[OptionSpec],
    values: Mapping[str, Any] | None = None,
    sources: Mapping[str, str] | None = None,
) -> str:
    """Return a heading and a row for each flag.

    Args:
        values: what presets, method and data set put over the options' own defaults.
        sources: where each of these values is from.
    """
    rows = []
    for spec in specs:
        value = (values or {}).get(spec.name, spec.default)
        origin = (sources or {}).get(spec.name, "default")
        facts = _facts(spec, value, origin)
        rows.append(_row(f"--{spec.name} {_placeholder(spec)}", f"{spec.help} ({facts})" if facts else spec.help))
    return "\n".join([textwrap.fill(title, WIDTH, subsequent_indent="  "), *rows]) + "\n"


def _row(flag: str, explanation: str) -> str:
    """Return a flag in the left column and its explanation in the right one."""
    lines = textwrap.wrap(explanation, WIDTH - COLUMN, break_on_hyphens=False)
    left = f"  {flag}"
    if len(left) > COLUMN - 2:
        return "\n".join([left, *(" " * COLUMN + line for line in lines)])
    return "\n".join(f"{left if number == 0 else '':<{COLUMN}}{line}" for number, line in enumerate(lines))


def _placeholder(spec: OptionSpec) -> str:
    word = "|".join(spec.choices) or {"int": "INT", "float": "FLOAT", "str": "TEXT", "bool": "0|1"}[spec.scalar]
    return f"{word},..." if spec.many else word


def _facts(spec: OptionSpec, value: Any, origin: str) -> str:
    """Return what stands in brackets: "default 10 minutes, above 0; source: paper, Table 2".

    It is empty if there is nothing to say.
    """
    amount = "none" if value is None else f"{shown(value)} {spec.unit}".rstrip()
    if origin != "default":
        return ", ".join(filter(None, (f"{amount} by the {origin}", bounds(spec))))
    # an option without a default says in its help what none means
    facts = ", ".join(filter(None, (spec.unit if value is None else f"default {amount}", bounds(spec))))
    return "; ".join(filter(None, (facts, f"source: {spec.source}" if spec.source else "")))


def shown(value: Any) -> str:
    """Return a value as it would be typed."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, tuple):
        return ",".join(map(shown, value)) or "none"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return "none" if value is None else str(value)


def aligned(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Return lines of names in one column and texts in another, which wrap inside it."""
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
    """Return the text of ``--check``: one row for each value, with where it came from."""
    rows = [(name, shown(value), sources[name]) for name, value in vars(args).items()]
    name_width = max(len(name) for name, _, _ in rows)
    value_width = max(len(value) for _, value, _ in rows if len(value) <= LONGEST_ALIGNED)
    return "".join(f"{name:<{name_width}}  {value:<{value_width}}  {source}\n" for name, value, source in rows)
