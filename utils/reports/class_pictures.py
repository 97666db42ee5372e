"""Draw what became of each class: the confusion matrix, and the accuracy on it task after task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pmi_cl.utils.reports.pictures import DPI, short
from pmi_cl.utils.reports.titles import put_title

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMED = 40  # classes that have room for their names
_NUMBERED = 16  # classes that have room for numbers
_INCH = 0.42  # of a cell with a number
_SMALLEST, _LARGEST = 3.6, 11.0  # inches


def confusion_matrix(
    table: Sequence[Sequence[int]], class_names: Sequence[str], ends: Sequence[int], title: str
) -> Figure:
    """Draw which classes are taken for which, in % of the images of each class.

    Args:
        table: row i holds how many images of class i were taken for class 0, 1, ...
        class_names: the name of each class.
        ends: for each task, the number of classes up to it. A line is drawn there.
        title: stands above it.
    """
    import numpy as np

    counts = np.array(table, dtype=float)
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    columns = list(class_names[: counts.shape[1]])
    figure, axes = _heat_map(share, (columns, columns[: len(counts)]), title)
    axes.set_xlabel("taken for")
    axes.set_ylabel("class")
    _draw_ends(axes, ends, len(counts), len(columns))
    return figure


def accuracy_by_class(
    accuracies: Sequence[Sequence[float] | None], class_names: Sequence[str], ends: Sequence[int], title: str
) -> Figure:
    """Draw the accuracy in % on each class after each task.

    Args:
        accuracies: row i holds those after task i, on the classes seen by then; None: not known.
        class_names, ends, title: as in :func:`confusion_matrix`.
    """
    import numpy as np

    width = max(len(row) for row in accuracies if row)
    table = np.full((len(accuracies), width), np.nan)
    for index, row in enumerate(accuracies):
        table[index, : len(row or ())] = row or ()
    tasks = [str(task + 1) for task in range(len(accuracies))]
    figure, axes = _heat_map(table, (list(class_names[:width]), tasks), title)
    axes.set_xlabel("class")
    axes.set_ylabel("after task")
    _draw_ends(axes, ends, 0, width)
    return figure


def _heat_map(table: np.ndarray, names: tuple[list[str], list[str]], title: str) -> tuple[Figure, Axes]:
    """Return a heat map of percentages and its axes, with names of columns and rows."""
    from matplotlib.figure import Figure

    rows, columns = table.shape
    longest = max((len(short(name)) for name in names[1]), default=1) * 0.075 if rows <= _NAMED else 0.4
    width = min(_LARGEST, max(_SMALLEST, _INCH * columns)) + 1.4 + longest
    height = min(_LARGEST, max(1.2, _INCH * rows)) + 1.9
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    heat = axes.imshow(table, cmap="viridis", vmin=0, vmax=100, aspect="auto", interpolation="nearest")
    if max(columns, rows) <= _NUMBERED:
        _write_numbers(axes, table)
    _name_ticks(axes, names)
    put_title(figure, title)
    axes.spines[:].set_visible(False)
    figure.colorbar(heat, ax=axes, label="%", shrink=0.8)
    return figure, axes


def _name_ticks(axes: Axes, names: tuple[list[str], list[str]]) -> None:
    """Write names beside rows and columns. Where there is no room, number some from 1."""
    for words, put, turned in ((names[0], axes.set_xticks, True), (names[1], axes.set_yticks, False)):
        if len(words) <= _NAMED:
            upright = all(len(word) <= 3 for word in words)
            style: dict[str, Any] = (
                {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if turned and not upright else {}
            )
            put(range(len(words)), [short(word) for word in words], fontsize=8, parse_math=False, **style)
        else:
            every = -(-len(words) // 20)
            put(range(0, len(words), every), [str(place + 1) for place in range(0, len(words), every)], fontsize=8)


def _write_numbers(axes: Axes, table: np.ndarray) -> None:
    import numpy as np

    for (row, column), value in np.ndenumerate(table):
        if not np.isnan(value) and value >= 0.5:
            colour = "black" if value > 60 else "white"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8, color=colour)


def _draw_ends(axes: Axes, ends: Sequence[int], rows: int, columns: int) -> None:
    """Draw a line behind the classes of each task, across ``rows`` and ``columns``."""
    for end in ends[:-1]:
        if end < columns:
            axes.axvline(end - 0.5, color="white", linewidth=0.8)
        if end < rows:
            axes.axhline(end - 0.5, color="white", linewidth=0.8)
