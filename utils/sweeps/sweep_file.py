"""Read a sweep from a YAML file, which can be committed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pmi_cl.errors import UserError, unknown_name
from pmi_cl.machine.plain_text import excerpt
from pmi_cl.utils.arguments.preset_text import read_yaml
from pmi_cl.utils.sweeps.planned_runs import DEFAULT_SEEDS, Arm, Sweep
from pmi_cl.utils.sweeps.sweep_words import check_flags, read_arm

KEYS = ("about", "models", "datasets", "seeds", "flags", "grid")


def read_sweep(path: Path) -> Sweep:
    """Return the sweep of a file.

    A method is a text as after ``--models``, or a mapping of ``model``, ``name`` (what its runs are
    called) and flags.

    Raises:
        UserError: the file cannot be read, or its content is not that of a sweep.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: a sweep has lines such as 'models: [sgd, pmi_rdfcil]', here is {excerpt(content)}")
    for key in content:
        if key not in KEYS:
            raise UserError(f"{path}: {unknown_name('key', str(key), KEYS)}")
    return Sweep(
        [_arm(f"{path}: models", entry) for entry in _list(path, content, "models")],
        [text_of(f"{path}: datasets", entry) for entry in _list(path, content, "datasets")],
        [_seed(path, entry) for entry in _list(path, content, "seeds", DEFAULT_SEEDS)],
        _flags(f"{path}: flags", content.get("flags") or {}),
        {name: _values(path, name, values) for name, values in _mapping(path, content, "grid").items()},
    )


def text_of(where: str, value: Any) -> str:
    """Return a value of YAML as it is typed after a flag.

    Raises:
        UserError: it is a mapping, or a list of lists.
    """
    if isinstance(value, list) and not any(isinstance(item, list | dict) for item in value):
        return ",".join(text_of(where, item) for item in value)
    if isinstance(value, list | dict):
        raise UserError(f"{where}: a flag has a value or a list of values, here is {excerpt(value)}")
    if isinstance(value, bool):
        return str(int(value))
    return "none" if value is None else str(value)


def _list(path: Path, content: Mapping[str, Any], key: str, default: Sequence[Any] = ()) -> Sequence[Any]:
    found = content.get(key, default)
    found = [found] if isinstance(found, str | int) else found
    if not isinstance(found, list | tuple):
        raise UserError(f"{path}: {key}: write a list, as in [a, b], here is {excerpt(found)}")
    return found


def _mapping(path: Path, content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = content.get(key) or {}
    if not isinstance(found, dict):
        raise UserError(f"{path}: {key}: write 'flag: values' lines, here is {excerpt(found)}")
    return found


def _values(path: Path, name: str, values: Any) -> list[str]:
    if not isinstance(values, list) or not values:
        raise UserError(f"{path}: grid: {name}: write a list of values, as in [0.01, 0.1]")
    check_flags(f"{path}: grid", [name])
    return [text_of(f"{path}: grid: {name}", value) for value in values]


def _seed(path: Path, entry: Any) -> int:
    if isinstance(entry, bool) or not isinstance(entry, int):
        raise UserError(f"{path}: seeds: write whole numbers, here is {excerpt(entry)}")
    return entry


def _flags(where: str, flags: Any) -> dict[str, str]:
    if not isinstance(flags, dict):
        raise UserError(f"{where}: write 'flag: value' lines, here is {excerpt(flags)}")
    check_flags(where, flags)
    return {str(name): text_of(f"{where}: {name}", value) for name, value in flags.items()}


def _arm(where: str, entry: Any) -> Arm:
    if isinstance(entry, str):
        return read_arm(entry)
    if not isinstance(entry, dict) or not isinstance(entry.get("model"), str):
        raise UserError(f"{where}: write a method, or a mapping with 'model: NAME', here is {excerpt(entry)}")
    flags = {name: value for name, value in entry.items() if name not in ("model", "name")}
    return Arm(entry["model"], _flags(where, flags), text_of(where, entry.get("name", "")))
