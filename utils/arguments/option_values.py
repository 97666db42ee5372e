"""Converts text, presets and records to the values of options, and refuses what is not allowed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from pmi_cl.errors import UserError
from pmi_cl.machine.plain_text import typed_text
from pmi_cl.machine.user_paths import expanded
from pmi_cl.options import OptionSpec

LIMIT = 2**63  # no option counts further; Python refuses to print numbers of thousands of digits


def convert(spec: OptionSpec, raw: Any, where: str) -> Any:
    """Return the value of the option that ``raw`` means.

    Args:
        spec: what the option allows.
        raw: text from the command line, or a value from YAML or JSON. The text ``none`` is None for
            an optional option, and an empty tuple for an option that takes many values.
        where: what the error line starts with ("--lr 0").

    Raises:
        UserError: wrong type, word or bounds, an empty text, nan or infinity, or a path in a home
            folder that there is not.
    """
    try:
        if raw is None or (spec.optional and isinstance(raw, str) and raw.lower() == "none"):
            return _none(spec)
        if not spec.many:
            return _scalar(spec, raw)
        if isinstance(raw, str) and raw.lower() == "none":
            return ()
        if isinstance(raw, str) and not raw.strip():
            raise ValueError("write values with commas between them, or none")
        parts = raw.split(",") if isinstance(raw, str) else raw if isinstance(raw, list | tuple) else [raw]
        return tuple(_scalar(spec, part) for part in parts)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def _none(spec: OptionSpec) -> None:
    if not spec.optional:
        raise ValueError("it needs a value")


def _scalar(spec: OptionSpec, raw: Any) -> Any:
    value = expanded(_words(raw)) if spec.path else _READERS[spec.scalar](raw)
    if spec.choices and value not in spec.choices:
        raise ValueError(f"choose from {', '.join(spec.choices)}")
    if isinstance(value, int | float):
        _check_bounds(spec, value)
    return value


def _check_bounds(spec: OptionSpec, value: float) -> None:
    inside = (
        (spec.low is None or value >= spec.low)
        and (spec.above is None or value > spec.above)
        and (spec.high is None or value <= spec.high)
    )
    if not inside:
        raise ValueError(f"it must be {bounds(spec)}")


def bounds(spec: OptionSpec) -> str:
    """Return the allowed range in words ("above 0, at most 1"); empty if there is none."""
    if spec.low is not None and spec.high is not None:
        return f"between {spec.low:.15g} and {spec.high:.15g}"
    words = {"at least": spec.low, "above": spec.above, "at most": spec.high}
    return ", ".join(f"{word} {limit:.15g}" for word, limit in words.items() if limit is not None)


def _bool(raw: Any) -> bool:
    words = {"0": False, "1": True, "False": False, "True": True}
    if str(raw) not in words:
        raise ValueError("it must be 0 or 1")
    return words[str(raw)]


def _int(raw: Any) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int | str):
        raise ValueError("it must be a whole number")
    try:
        value = int(raw)
    except ValueError:
        raise ValueError("it must be a whole number") from None
    if abs(value) >= LIMIT:
        raise ValueError("it is too large a number")
    return value


def _float(raw: Any) -> float:
    try:
        value = math.nan if isinstance(raw, bool) else float(raw)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError("it must be a finite number")
    return value


def _text(raw: Any) -> str:
    return typed_text(_words(raw))


def _words(raw: Any) -> str:
    if isinstance(raw, list | tuple | dict) or not str(raw).strip():
        raise ValueError("it must be a text that is not empty")
    return str(raw)


_READERS: dict[str, Callable[[Any], bool | int | float | str]] = {
    "bool": _bool,
    "int": _int,
    "float": _float,
    "str": _text,
}
