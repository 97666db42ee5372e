"""Write tables of runs as Markdown, LaTeX or CSV, with differences paired by seed."""

from __future__ import annotations

import csv
import io
import math
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
# What a method holds beside its network, at the most: between two tasks, and in a task.
STORED = {
    "stored, MiB": ("after_task", None),
    "of it real images, MiB": ("after_task", "real images"),
    "in a task, MiB": ("while_training", None),
}
CLASSIFIERS = {f"last by {name}, %": name for name in ("head", "ncm", "mahalanobis")}
OTHERS = ("last over tasks, %", "transfer, %", *CLASSIFIERS, "minutes", *STORED)  # columns that a row computes itself
COSTS = ("s per sample", "minutes", *STORED)  # of any size: they have significant digits, not decimals
SIGNIFICANT = 3  # digits of a cost
TEXTS = ("method", "settings", "network", "precision", "seeds")  # columns of words
PLAIN, NOTHING = "float32", "0"  # a column in which every row says so is left out


def figures(row: Row) -> dict[str, dict[int, float]]:
    """Return every figure of a row by seed, by the title of its column."""
    found = {title: row.figure(*where) for title, where in FIGURES.items()}
    classifiers = [row.last_by(name) for name in CLASSIFIERS.values()]
    stored = [row.stored(*what) for what in STORED.values()]
    others = (row.last_over_tasks(), row.transfer(), *classifiers, row.minutes(), *stored)
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


def spread(values: Sequence[float], sign: str = "", decimals: int = 2) -> str:
    """Return "mean ± standard deviation" (ddof 1), the mean of a single value, or ""."""
    if not values:
        return ""
    mean = format(statistics.mean(values), f"{sign}.{decimals}f")
    return f"{mean} ± {statistics.stdev(values):.{decimals}f}" if len(values) > 1 else mean


def decimals_of(values: Sequence[float]) -> int:
    """Return the decimals with which the mean of the values has its significant digits."""
    mean = abs(statistics.mean(values)) if values else 0.0
    return max(0, SIGNIFICANT - 1 - math.floor(math.log10(mean))) if mean else 2


def cells(rows: Sequence[Row], against: Row | None = None) -> list[list[str]]:
    """Return the table of one protocol: the titles, then the cells of each row.

    Args:
        against: the row that the others are compared with, seed by seed. None adds no such columns.
    """
    titles = [*TEXTS, "n", *FIGURES, *OTHERS]
    lines = [titles + (titles_of_differences(against.name) if against else [])]
    for row in rows:
        values = [_cell(title, found, len(row.runs)) for title, found in figures(row).items()]
        gaps = differences(row, against) if against is not None and row is not against else {}
        paired = [_cell(title, gaps.get(title, {}), len(row.runs), "+") for title in PAIRED] if against else []
        seeds = " ".join(map(str, row.runs))
        words = [row.method, row.settings, row.network, row.precision, seeds, str(len(row.runs))]
        lines.append([*words, *values, *paired])
    return _without_empty_columns(lines)


def _cell(title: str, by_seed: Mapping[int, float], n: int, sign: str = "") -> str:
    """Return a figure over the seeds that have it; says how many, where they are not all ``n``."""
    values = list(by_seed.values())
    if values and title in STORED and not any(values):
        return NOTHING
    text = spread(values, sign, decimals_of(values) if title in COSTS else 2)
    return f"{text} (n = {len(values)})" if values and len(values) < n else text


def _without_empty_columns(lines: list[list[str]]) -> list[list[str]]:
    """Leave out columns without a value, or in which all rows have the usual one."""
    usual = {"precision": PLAIN, "of it real images, MiB": NOTHING}

    def says_something(column: int) -> bool:
        title, found = lines[0][column], {line[column] for line in lines[1:]}
        return title == "settings" or not found <= {"", usual.get(title, "")}

    kept = [column for column in range(len(lines[0])) if says_something(column)]
    return [[line[column] for column in kept] for line in lines]


def numbered(titles: Sequence[str], word: str = "Table") -> list[str]:
    """Return the titles with their numbers, "Table 2 of 3: ...", where there are several."""
    if len(titles) < 2:
        return list(titles)
    return [f"{word} {number} of {len(titles)}: {title}" for number, title in enumerate(titles, 1)]


def markdown(tables: Mapping[str, list[list[str]]]) -> str:
    """Return a heading and an aligned table for each protocol."""
    parts = []
    for title, lines in zip(numbered(list(tables)), tables.values(), strict=True):
        lines = [lines[0], *([f"`{line[0]}`", *(word.replace("|", "\\|") for word in line[1:])] for line in lines[1:])]
        widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(lines[0]))]
        padded = [[word.ljust(width) for word, width in zip(line, widths, strict=True)] for line in lines]
        text = [f"| {' | '.join(line)} |" for line in padded]
        text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        parts.append("\n".join([f"### {title}", "", *text]))
    return "\n\n".join(parts)


def latex(tables: Mapping[str, list[list[str]]]) -> str:
    """Return a ``table`` with caption and ``tabular`` (booktabs) for each protocol."""
    parts = []
    for title, lines in tables.items():
        head, *body = [" & ".join(map(_escaped, line)) + r" \\" for line in lines]
        columns = "".join("l" if column in TEXTS else "r" for column in lines[0])
        start = [r"\begin{table}", r"\centering", rf"\caption{{{_escaped(title)}}}", rf"\begin{{tabular}}{{{columns}}}"]
        end = [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
        parts.append("\n".join([*start, r"\toprule", head, r"\midrule", *body, *end]))
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
    writer.writerow(
        ["protocol", "method", "settings", "network", "precision", "seed", *FIGURES, *OTHERS, *paired, "run"]
    )
    for protocol, rows in tables.items():
        other = (against or {}).get(protocol)
        for row in rows:
            gaps = differences(row, other) if other is not None and row is not other else {}
            columns = [*figures(row).values(), *(gaps.get(title, {}) for title in PAIRED if against)]
            for seed, run in row.runs.items():
                values = [by_seed.get(seed, "") for by_seed in columns]
                words = [protocol, row.method, row.settings, row.network, row.precision]
                writer.writerow([*words, seed, *values, run.path])
    return buffer.getvalue().rstrip("\n")
