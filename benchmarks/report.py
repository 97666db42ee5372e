"""Readable tables of the inversion benchmark's record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

_GRADIENT_COLUMNS = {
    "naive, median image": ("to_naive_median_image", 1, -1),
    "naive, images <= 1e-4": ("to_naive_within_1e-4", 1, 3),
    "naive, all": ("to_naive", 1, -1),
    "float64, median image": ("to_float64_median_image", 1, -1),
    "float64, images <= 1e-4": ("to_float64_within_1e-4", 1, 3),
    "float64, all": ("to_float64", 1, -1),
}
_STEP_COLUMNS = {
    "ms CPU": ("cpu_seconds", 1e3, 1),
    "ms wall": ("wall_seconds", 1e3, 1),
    "image-steps/s": ("image_steps_per_second", 1, 0),
    "ratio CPU": ("ratio", 1, 2),
    "ratio wall": ("wall_ratio", 1, 2),
    "first steps s": ("first_steps_seconds", 1, 1),
}
_TIME_COLUMNS = {
    "steps": ("steps", 1, 0),
    "step-eq.": ("step_equivalents", 1, 1),
    "loss": ("loss", 1, 4),
    "s CPU": ("cpu_seconds", 1, 2),
    "s wall": ("wall_seconds", 1, 2),
    "ratio CPU": ("ratio", 1, 2),
    "ratio wall": ("wall_ratio", 1, 2),
    "first steps s": ("first_steps_seconds", 1, 1),
}
_START_COLUMNS = {
    "steps": ("steps", 1, 0),
    "step-eq.": ("step_equivalents", 1, 1),
    "s CPU": ("cpu_seconds", 1, 1),
    "s wall": ("wall_seconds", 1, 1),
    "loss": ("loss", 1, 4),
    "MSE": ("mse", 1, 4),
    "KL": ("kl", 1, 3),
    "CE": ("cross_entropy", 1, 3),
    "TV": ("tv", 1, 3),
    "A agrees": ("agreement_a", 1, 3),
    "B agrees": ("agreement_b", 1, 3),
    "B log-p": ("log_probability_b", 1, 2),
}


def report(record: Row) -> str:
    """Return the whole report."""
    parts = [_head(record)]
    if "per_step" in record:
        parts += [_gradients(record), _steps(record)]
    if "equal_loss" in record:
        parts += [_equal_loss(record["settings"], measured) for measured in record["equal_loss"]]
    if "starts" in record:
        parts.append(_starts(record))
    return "\n\n".join(parts)


def _head(record: Row) -> str:
    settings, hardware, accuracy = record["settings"], record["hardware"], record["test_accuracy"]
    commit = record["commit"] or {"hash": "none", "dirty": False}
    lines = [
        f"{hardware['processor']}, {hardware['threads']} thread(s) of {hardware['cores']} cores; "
        + ", ".join(f"{name} {version}" for name, version in record["versions"].items()),
        f"commit {commit['hash'][:12]}{' with changes' if commit['dirty'] else ''}; seed {settings['seed']}; "
        f"{settings['images']} images",
        f"ten CIFAR-100 classes, {settings['judges']['backbone']}; test accuracy of A (inverted) {accuracy['a']:.3f}, "
        f"of B (independent judge) {accuracy['b']:.3f}",
    ]
    return "\n".join([*lines, *([settings["left_out"]] if settings["left_out"] else [])])


def _gradients(record: Row) -> str:
    title = (
        "Gradients with respect to the images, relative distance |g - h| / |h| "
        "to the naive loop's (fp32) and to the exact ones"
    )
    return _table(title, "loop", record["per_step"]["gradients"].items(), _GRADIENT_COLUMNS)


def _steps(record: Row) -> str:
    size = record["settings"]
    rounds = f"{size['rounds']} rounds of {size['block']} steps in turns"
    title = f"One full-model step (median of {rounds}; ratios to the naive loop)"
    return _table(title, "loop", record["per_step"]["loops"].items(), _STEP_COLUMNS)


def _equal_loss(size: Row, measured: Row) -> str:
    naive = measured["naive"]
    title = (
        f"MSE + {measured['alpha']:g} KL: time to the naive loop's loss after {size['naive_steps']} steps from N(0,1), "
        f"judged in fp32 every {size['judge_every']} steps; judging and first steps (compiling) not counted"
    )
    earlier = {
        f"at {point['steps']}": (f"ratio_{number}", 1.0, 2) for number, point in enumerate(naive["reached"][:-1])
    }
    rows = [("naive", naive)]
    for row in measured["rows"]:
        ratios = {f"ratio_{number}": ratio["ratio"] for number, ratio in enumerate(row["ratios"])}
        rows.append((f"{row['start']} ({row['way']})", {**row, **ratios}))
    note = "at N: the ratio of CPU seconds to the loss that the naive loop reached after N steps"
    return "\n".join([_table(title, "start (way)", rows, {**_TIME_COLUMNS, **earlier}), note])


def _starts(record: Row) -> str:
    size, rows = record["settings"], record["starts"]
    error = 0.5 / size["images"] ** 0.5
    title = (
        f"Every start: {size['pmi_steps']} PMI steps a layer where there is PMI, "
        f"{size['full_steps']} full-model steps; loss = MSE + 0.1 KL, judged in fp32; "
        f"standard error of an agreement at most {error:.3f}"
    )
    return _table(title, "start", ((row["start"], row) for row in rows), _START_COLUMNS)


def _table(
    title: str, first: str, rows: Iterable[tuple[str, Row]], columns: Mapping[str, tuple[str, float, int]]
) -> str:
    """Return a table of ``columns`` by heading: (key, factor, decimals).

    What a row lacks is a dash.

    Decimals of -n mean n significant digits in scientific notation.
    """
    lines = [[first, *columns]]
    for name, row in rows:
        lines.append([name, *(_cell(row.get(key), factor, decimals) for key, factor, decimals in columns.values())])
    return "\n".join([title, *aligned_table(lines)])


def _cell(value: float | None, factor: float, decimals: int) -> str:
    if value is None:
        return "-"
    return f"{value * factor:.{-decimals}e}" if decimals < 0 else f"{value * factor:.{decimals}f}"


def aligned_table(lines: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of cells in columns: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines]
    return ["  ".join(row) for row in rows]
