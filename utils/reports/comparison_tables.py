"""Write tables of runs as Markdown, LaTeX or CSV, with differences paired by seed."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence

from pmi_cl.utils.reports.comparison import Row

FIGURES = {
    "last, %": ("class_il", "last"),
    "average, %": ("class_il", "average"),
    "forgetting": ("class_il", "forgetting"),
    "task-IL last, %": ("task_il", "last"),
    "s per sample": ("inversion", "seconds_per_image"),
}
OTHERS = ("last over tasks, %", "transfer, %", "minutes")  # columns that a row computes itself


def figures(row: Row) -> dict[str, dict[int, float]]:
    """Return every figure of a row by seed, by the title of its column."""
    found = {title: row.figure(*where) for title, where in FIGURES.items()}
    others = (row.last_over_tasks(), row.transfer(), row.minutes())
    return {**found, **dict(zip(OTHERS, others, strict=True))}


PAIRED = ("last, %", "average, %")  # the figures whose differences are shown


def titles_of_differences(name: str) -> list[str]:
    """Return the titles of the columns with the differences to the row of that name."""
    return [f"{title.rstrip(', %')} - {name}" for title in PAIRED]


def differences(row: Row, other: Row) -> dict[str, dict[int, float]]:
    """Return the accuracies of ``row`` minus those of ``other``, for seeds that both have.

    They are by the title of the column, then by seed.
    """
    found = {}
    for title in PAIRED:
        mine, theirs = (each.figure(*FIGURES[title]) for each in (row, other))
        found[title] = {seed: mine[seed] - theirs[seed] for seed in mine if seed in theirs}
    return found


def spread(values: Sequence[float], sign: str = "") -> str:
    """Return "mean ± standard deviation" (ddof 1), the mean of a single value, or ""."""
    if not values:
        return ""
    mean = format(statistics.mean(values), f"{sign}.2f")
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def cells(rows: Sequence[Row], against: Row | None = None) -> list[list[str]]:
    """Return the table of one protocol: the titles, then the cells of each row.

    Args:
        against: the row that the others are compared with, seed by seed. None adds no such columns.
    """
    titles = ["method", "settings", "seeds", *FIGURES, *OTHERS]
    lines = [titles + (titles_of_differences(against.name) if against else [])]
    for row in rows:
        values = [spread(list(found.values())) for found in figures(row).values()]
        gaps = differences(row, against) if against is not None and row is not against else {}
        paired = [spread(list(gaps.get(title, {}).values()), "+") for title in PAIRED] if against else []
        lines.append([row.method, row.settings, " ".join(map(str, row.runs)), *values, *paired])
    return _without_empty_columns(lines)


def _without_empty_columns(lines: list[list[str]]) -> list[list[str]]:
    kept = [column for column in range(len(lines[0])) if column < 3 or any(line[column] for line in lines[1:])]
    return [[line[column] for column in kept] for line in lines]


def markdown(tables: Mapping[str, list[list[str]]]) -> str:
    """Return a heading and an aligned table for each protocol."""
    parts = []
    for protocol, lines in tables.items():
        lines = [lines[0], *([f"`{line[0]}`", *(word.replace("|", "\\|") for word in line[1:])] for line in lines[1:])]
        widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(lines[0]))]
        padded = [[word.ljust(width) for word, width in zip(line, widths, strict=True)] for line in lines]
        text = [f"| {' | '.join(line)} |" for line in padded]
        text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        parts.append("\n".join([f"### {protocol}", "", *text]))
    return "\n\n".join(parts)


def latex(tables: Mapping[str, list[list[str]]]) -> str:
    """Return a ``tabular`` (booktabs) for each protocol, below a comment with its title."""
    parts = []
    for protocol, lines in tables.items():
        head, *body = [" & ".join(map(_escaped, line)) + r" \\" for line in lines]
        columns = "lll" + "r" * (len(lines[0]) - 3)
        start = [f"% {protocol}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule"]
        parts.append("\n".join([*start, *body, r"\bottomrule", r"\end{tabular}"]))
    return "\n\n".join(parts)


def _escaped(text: str) -> str:
    for mark in "&%_#$":
        text = text.replace(mark, f"\\{mark}")
    return text.replace("±", r"$\pm$")


def comma_separated(tables: Mapping[str, list[Row]], against: Mapping[str, Row | None] | None = None) -> str:
    """Return CSV with a line for each protocol, row and seed, and every figure as a number.

    Args:
        against: for each protocol, the row that the others are compared with, if there is one. None
            adds no such columns.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = sorted({row.name for row in (against or {}).values() if row is not None})
    paired = titles_of_differences(" or ".join(names)) if against else []
    writer.writerow(["protocol", "method", "settings", "seed", *FIGURES, *OTHERS, *paired, "run"])
    for protocol, rows in tables.items():
        other = (against or {}).get(protocol)
        for row in rows:
            gaps = differences(row, other) if other is not None and row is not other else {}
            columns = [*figures(row).values(), *(gaps.get(title, {}) for title in PAIRED if against)]
            for seed, run in row.runs.items():
                values = [by_seed.get(seed, "") for by_seed in columns]
                writer.writerow([protocol, row.method, row.settings, seed, *values, run.path])
    return buffer.getvalue().rstrip("\n")
