"""Keep confusion matrices in a record: short, and as they were counted.

A matrix has a row for each seen class. Its entry k is how many images of the class were taken for
class k. A record has a text for each row: "0:34 8:2" for 34 images taken for class 0 and 2 taken
for class 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Table = Sequence[Sequence[int]]


def as_texts(table: Table) -> list[str]:
    """Return the rows of a matrix as texts, without the zeros."""
    return [" ".join(f"{label}:{count}" for label, count in enumerate(row) if count) for row in table]


def as_table(rows: Sequence[str], classes: int) -> list[list[int]]:
    """Return the square matrix of :func:`as_texts`, or one wider if later classes were predicted.

    Args:
        rows: the texts.
        classes: of the run: no label is as high.

    Raises:
        ValueError: a text is none of its, or names a class that the run does not have.
    """
    pairs = [[tuple(map(int, word.split(":"))) for word in row.split()] for row in rows]
    width = max([len(rows), *(label + 1 for row in pairs for label, _ in row)])
    if width > classes:
        raise ValueError(f"there is no class {width - 1}: the run has {classes}")
    table = [[0] * width for _ in rows]
    for counts, row in zip(table, pairs, strict=True):
        for label, count in row:
            counts[label] = count
    return table


def by_class(table: Table) -> list[float]:
    """Return the accuracy in % on each seen class. It is 0 for a class without an image."""
    return [100.0 * row[label] / max(1, sum(row)) for label, row in enumerate(table)]


def summary(matrices: Sequence[Sequence[str] | None], class_names: Sequence[str]) -> dict[str, Any]:
    """Return the figures by class as ``results.json`` holds them.

    Args:
        matrices: :func:`as_texts` after each task. None for a task that a version without them
            evaluated.
        class_names: the name of each label of the run.

    Returns:
        ``class_names`` of the seen classes, ``images`` of each (of the last evaluation), and after
        each task ``accuracy`` by class in %, rounded to four places, and ``confusion``.
    """
    tables = [None if rows is None else as_table(rows, len(class_names)) for rows in matrices]
    last = next((table for table in reversed(tables) if table is not None), [])
    accuracies = [None if table is None else [round(value, 4) for value in by_class(table)] for table in tables]
    return {
        "class_names": list(class_names[: len(last)]),
        "images": [sum(row) for row in last],
        "accuracy": accuracies,
        "confusion": [None if rows is None else list(rows) for rows in matrices],
    }
