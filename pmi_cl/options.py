"""How a method, data set, backbone or run declares what it may be told: default, unit, bounds and source of each value.

An ``Options`` class is a frozen dataclass whose fields are made by :func:`option` with literal arguments. Literal, because the
command reads them from the source text (:mod:`pmi_cl.registry.catalogue`), so that ``--help`` need not import torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def option(
    default: Any,
    help: str,
    *,
    unit: str = "",
    source: str = "",
    choices: tuple[str, ...] = (),
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
) -> Any:
    """A dataclass field with everything that ``--help`` prints and ``--check`` enforces.

    Args:
        default: the value without a flag or a preset. ``None``: decided later (the help text says by what).
        help: one sentence.
        unit: "epochs", "images", "steps" ... empty for a pure number.
        source: where the default comes from: a paper's section or table, ``[INF]`` (our inference) or ``ours``.
        choices: the words allowed, for a string.
        low, high: inclusive bounds of a number.
        above: exclusive lower bound of a number.
    """
    metadata = {
        "help": help,
        "unit": unit,
        "source": source,
        "choices": choices,
        "low": low,
        "above": above,
        "high": high,
    }
    return dataclasses.field(default=default, metadata=metadata)


def select(options_class: type[T], values: Mapping[str, Any]) -> T:
    """An ``Options`` instance filled from the values of its own fields; what ``values`` lacks keeps its default."""
    names = {field.name for field in dataclasses.fields(options_class)}  # type: ignore[arg-type]
    return options_class(**{name: value for name, value in values.items() if name in names})
