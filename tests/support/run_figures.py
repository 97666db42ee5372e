"""The figures that two runs of one seed must share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOT_FIGURES = {"seconds", "peak_memory_mib", "versions", "commit", "hardware", "without_effect"}
CLOCK_FIGURES = {"seconds_per_image"}


def figures(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return a ``results.json`` without times, memory, surroundings and flags without effect."""
    kept = {key: value for key, value in results.items() if key not in NOT_FIGURES}
    kept["inversion"] = {key: value for key, value in results["inversion"].items() if key not in CLOCK_FIGURES}
    return kept


def same_figures(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Return whether two results are equal, bit for bit, in all of :func:`figures`."""
    return figures(a) == figures(b)
