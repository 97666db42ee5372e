"""Draws accuracy over the tasks for methods side by side: a panel for each protocol, a line for each row, its seeds as a band."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pmi_cl.errors import UserError
from pmi_cl.utils.records.atomic import write_atomically
from pmi_cl.utils.reports.comparison import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST = 50  # letters of a line of a label
LINE = 0.16  # height in inches of a line of the legend
PANEL = 4.2  # height in inches of a protocol without many labels


def accuracy_over_tasks(tables: Mapping[str, Sequence[Row]]) -> Figure:
    """Mean class-IL accuracy over the tasks seen, after each task; the band is one standard deviation over the seeds to each side.

    Joint training, which sees all tasks at once, is a dashed line.
    """
    from matplotlib.figure import Figure

    named = [labels(rows) for rows in tables.values()]
    heights = [max(PANEL, LINE * sum(label.count("\n") + 1 for label in labels_here) + 1) for labels_here in named]
    figure = Figure(figsize=(10, sum(heights)), dpi=120, layout="constrained")
    panels = figure.subplots(len(tables), 1, squeeze=False, height_ratios=heights)
    for axes, (protocol, rows), labels_here in zip(panels[:, 0], tables.items(), named, strict=True):
        for place, (row, label) in enumerate(zip(rows, labels_here, strict=True)):
            _draw(axes, row, label, f"C{place % 10}", ("o", "s", "^", "D")[place // 10 % 4])
        axes.set_title(textwrap.fill(protocol, 110), fontsize=9, loc="left")
        axes.set(xlabel="after task", ylabel="accuracy on the tasks seen, %")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def labels(rows: Sequence[Row]) -> list[str]:
    """Each row's method and those of its settings that another row of the method has not, in as many lines as they need."""
    words = [row.settings.split() for row in rows]
    alike = {
        method: [told for row, told in zip(rows, words, strict=True) if row.method == method]
        for method in {r.method for r in rows}
    }
    shared = {method: set.intersection(*map(set, told)) for method, told in alike.items()}
    named = [
        " ".join([row.method, *(w for w in told if w not in shared[row.method])])
        for row, told in zip(rows, words, strict=True)
    ]
    return ["\n".join(textwrap.wrap(name, LONGEST, subsequent_indent="  ", break_on_hyphens=False)) for name in named]


def _draw(axes: Axes, row: Row, label: str, colour: str, marker: str) -> None:
    curves = row.curve()
    means = [statistics.mean(values) for values in zip(*curves, strict=True)]
    if len(means) == 1:
        axes.axhline(means[0], color=colour, linestyle="--", label=label)
        return
    tasks = range(1, len(means) + 1)
    axes.plot(tasks, means, color=colour, marker=marker, markersize=4, label=label)
    if len(curves) > 1:
        deviations = [statistics.stdev(values) for values in zip(*curves, strict=True)]
        low, high = ([mean + side * gap for mean, gap in zip(means, deviations, strict=True)] for side in (-1, 1))
        axes.fill_between(tasks, low, high, color=colour, alpha=0.15, linewidth=0)


def save_figure(figure: Figure, path: Path) -> None:
    """Writes the figure in the format of the path's ending, atomically. Raises UserError where that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path.parent} ({error.strerror}): choose another --plot") from error
    write_atomically(path, lambda file: figure.savefig(file, format=path.suffix.lower().lstrip(".")), "--plot")
