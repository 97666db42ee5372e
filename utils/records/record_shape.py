"""Read the files of a record, and check their shape: one may be damaged, or not a run's at all."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pmi_cl.errors import UserError
from pmi_cl.machine.plain_text import excerpt

SCHEMA = 1  # of args.json and results.json; a version that writes them in another way has the next number
MOST_BYTES = 2**28
LARGEST = 1e12  # no figure of a run is near it, and sums of such figures stay finite
FIGURES = ("last", "average", "forgetting", "bwt", "micro_last", "micro_average")


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file that holds an object.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: it is no plain file, too large, or holds something else.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path.name} is no plain file")
    if found.st_size > MOST_BYTES:
        raise ValueError(f"{path.name} has more than {MOST_BYTES} bytes")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (RecursionError, MemoryError):
        raise ValueError(f"{path.name} is nested too deep") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    return content


def refuse_newer(content: Mapping[str, Any], path: Path) -> None:
    """Raise UserError if a record is of a later version, which may mean something else by it."""
    schema = content.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise UserError(
            f"{path} was written by a newer version of pmi-cl (its format is {excerpt(schema)}, this version "
            f"reads {SCHEMA}): use that version"
        )


def check_arguments(args: Any) -> None:
    """Raise ValueError unless ``args`` are those of an ``args.json``."""
    if not (isinstance(args, dict) and all(isinstance(item, dict) for item in args.values())):
        raise ValueError("args must be {name: {value, source}}")
    for name, item in args.items():
        if not isinstance(item.get("source"), str) or not _is_value(item.get("value", {})):
            raise ValueError(f"args: {name} has no value and source that can be read")
    for name in ("model", "dataset"):
        if not isinstance(_value(args, name), str):
            raise ValueError(f"args: {name} must be a text")
    for name in ("backbone", "model_config"):
        if not isinstance(_value(args, name), str | None):
            raise ValueError(f"args: {name} must be a text or null")
    if not isinstance(_value(args, "seed"), int) or isinstance(_value(args, "seed"), bool):
        raise ValueError("args: seed must be a whole number")


def check_results(results: Mapping[str, Any]) -> None:
    """Raise ValueError unless ``results`` have the figures that tables and plots need."""
    for name in ("class_il", "task_il", "inversion", "seconds", "peak_memory_mib"):
        if not isinstance(results.get(name), dict):
            raise ValueError(f"{name} must be an object")
    for name in ("class_il", "task_il"):
        _check_accuracies(name, results[name])
    for name in ("inversion", "seconds", "peak_memory_mib"):
        for key, value in results[name].items():
            if not (_is_number(value) or (value is None and name == "inversion")):
                raise ValueError(f"{name}: {key} must be a number")
    _check_everywhere(results.get("everywhere", {}))
    _check_stored(results.get("stored", {}))
    _check_classifiers(results.get("classifiers", {}))
    _check_images_and_weights(results)
    if results.get("headline_over") == "images":
        _check_over_images(results)


def _check_images_and_weights(results: Mapping[str, Any]) -> None:
    """Check what tells the tables and rows of a comparison apart; older records lack some of it."""
    images, idle = results.get("images") or {}, results.get("without_effect", [])
    counts = [images.get(split) for split in ("train", "test")] if isinstance(images, dict) else []
    if images and not _are_numbers(counts):
        raise ValueError("images must be the numbers of train and test")
    if not isinstance(idle, list) or not all(isinstance(name, str) for name in idle):
        raise ValueError("without_effect must be names")
    weights = results.get("backbone_weights")
    if not (weights is None or (isinstance(weights, dict) and all(map(_is_value, weights.values())))):
        raise ValueError("backbone_weights must be an object of texts, or null")
    if weights and not all(isinstance(weights.get(name), str | None) for name in ("model", "tag", "file", "sha256")):
        raise ValueError("backbone_weights: model, tag, file and sha256 must be texts, or null")


def _check_everywhere(figures: Any) -> None:
    if not isinstance(figures, dict) or not all(isinstance(part, dict) for part in figures.values()):
        raise ValueError("everywhere must be an object of objects")
    if not _is_figure(figures.get("task_il", {}).get("transfer")):
        raise ValueError("everywhere: transfer must be a number")


def _check_stored(stored: Any) -> None:
    tasks = [kinds for kept in stored.values() for kinds in kept] if isinstance(stored, dict) else [3]
    counted = [kinds for kinds in tasks if kinds is not None]
    if not all(isinstance(kinds, dict) and all(map(_is_number, kinds.values())) for kinds in counted):
        raise ValueError("stored must be bytes by kind, for each task")


def _check_classifiers(by_name: Any) -> None:
    figures = list(by_name.values()) if isinstance(by_name, dict) else [3]
    if not all(isinstance(each, dict) and _is_number(each.get("last")) for each in figures):
        raise ValueError("classifiers must be figures by name")


def _check_accuracies(name: str, figures: Mapping[str, Any]) -> None:
    matrix = figures.get("matrix")
    if not isinstance(matrix, list) or not matrix or not all(_are_numbers(row) for row in matrix):
        raise ValueError(f"{name}: matrix must be rows of numbers")
    if not _is_number(figures.get("last")):
        raise ValueError(f"{name}: last must be a number")
    for key in FIGURES:
        if not _is_figure(figures.get(key)):
            raise ValueError(f"{name}: {key} must be a number")


def _check_over_images(results: Mapping[str, Any]) -> None:
    """Check what stands for the figures of tasks where the headline is over all images."""
    sizes = results.get("classes_per_task")
    if not isinstance(sizes, list) or not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ValueError("classes_per_task must be whole numbers")
    if not _are_numbers(results["class_il"].get("micro")):
        raise ValueError("class_il: micro must be numbers")


def _value(args: Mapping[str, Any], name: str) -> Any:
    return args.get(name, {}).get("value")


def _is_value(value: Any) -> bool:
    """Whether an option can have the value: a text, a number, yes or no, none, or several."""
    if isinstance(value, list):
        return all(not isinstance(item, list) and _is_value(item) for item in value)
    finite = isinstance(value, float) and math.isfinite(value)  # a rate may be larger than any figure
    return value is None or isinstance(value, str | bool) or finite or _is_number(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST  # no nan is


def _is_figure(value: Any) -> bool:
    return value is None or _is_number(value)


def _are_numbers(row: Any) -> bool:
    return isinstance(row, list) and bool(row) and all(map(_is_number, row))
