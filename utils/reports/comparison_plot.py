"""Draw accuracy over the tasks: a panel for each table, a line and a band for each row.

All panels have the same range of accuracies.
"""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pmi_cl.errors import UserError
from pmi_cl.utils.records.atomic import write_atomically
from pmi_cl.utils.reports.comparison import SCRATCH, Row
from pmi_cl.utils.reports.comparison_tables import numbered
from pmi_cl.utils.reports.titles import title_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HARD_BLANK = "\N{NO-BREAK SPACE}"
LABEL_WIDTH = 50  # characters of a line of a label
LINE_HEIGHT = 0.16  # of a line of the legend, in inches
MARKS = (("o", "-"), ("s", ":"), ("^", "-."), ("D", "--"))  # by tens of rows: the ten colours come again then
PANEL_HEIGHT = 4.2  # of a panel with few labels, in inches


def accuracy_over_tasks(tables: Mapping[str, Sequence[Row]]) -> Figure:
    """Draw the mean class-IL accuracy on the tasks seen, after each task.

    The band is one standard deviation over the seeds to each side. Joint training, which sees all
    tasks at once, is a dashed line.
    """
    from matplotlib.figure import Figure

    named = [labels(rows) for rows in tables.values()]
    lines = [sum(label.count("\n") + 1 for label in names) for names in named]
    heights = [max(PANEL_HEIGHT, LINE_HEIGHT * count + 1) for count in lines]
    figure = Figure(figsize=(10, sum(heights)), dpi=120, layout="constrained")
    panels = figure.subplots(len(tables), 1, squeeze=False, sharey=True, height_ratios=heights)
    titles = numbered([_title(*table) for table in tables.items()], "Plot")
    for axes, title, rows, names in zip(panels[:, 0], titles, tables.values(), named, strict=True):
        for place, (row, label) in enumerate(zip(rows, names, strict=True)):
            _draw(axes, row, label, f"C{place % 10}", MARKS[place // 10 % len(MARKS)])
        axes.set_title("\n".join(title_lines(title, 110)), fontsize=9, loc="left", parse_math=False)
        axes.set(xlabel="after task", ylabel="accuracy on the tasks seen, %")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        legend = axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


def labels(rows: Sequence[Row]) -> list[str]:
    """Return what the table says of each row, and the number of seeds.

    It is the method and its settings, the network where rows differ in it, and the precision of
    rows that nothing else tells apart. Long labels have several lines.
    """
    several = len({row.network for row in rows}) > 1
    texts = [f"{row.name}{f', {row.network}' * several}" for row in rows]
    texts = [
        f"{text}, {row.precision}" if texts.count(text) > 1 else text for row, text in zip(rows, texts, strict=True)
    ]
    return [
        _wrapped(f"{text} (n{HARD_BLANK}={HARD_BLANK}{len(row.runs)})") for row, text in zip(rows, texts, strict=True)
    ]


def _title(protocol: str, rows: Sequence[Row]) -> str:
    """Return the protocol and the network, where all rows have the same."""
    networks = {row.network.removesuffix(f", {SCRATCH}") for row in rows}
    return f"{protocol}; network: {networks.pop()}" if len(networks) == 1 else protocol


def _wrapped(name: str) -> str:
    return "\n".join(textwrap.wrap(name, LABEL_WIDTH, subsequent_indent="  ", break_on_hyphens=False))


def _draw(axes: Axes, row: Row, label: str, colour: str, mark: tuple[str, str]) -> None:
    """Draw one row. ``mark`` is the marker and the style of its line."""
    curves = row.curve()
    means = [statistics.mean(values) for values in zip(*curves, strict=True)]
    if len(means) == 1:
        axes.axhline(means[0], color=colour, linestyle="--", label=label)
        return
    tasks = range(1, len(means) + 1)
    axes.plot(tasks, means, color=colour, marker=mark[0], linestyle=mark[1], markersize=4, label=label)
    if len(curves) > 1:
        deviations = [statistics.stdev(values) for values in zip(*curves, strict=True)]
        low, high = ([mean + side * gap for mean, gap in zip(means, deviations, strict=True)] for side in (-1, 1))
        axes.fill_between(tasks, low, high, color=colour, alpha=0.15, linewidth=0)


def save_figure(figure: Figure, path: Path) -> None:
    """Write the figure in the format of the path's ending. Raise UserError if that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path.parent} ({error.strerror}): choose another --plot") from error
    write_atomically(path, lambda file: figure.savefig(file, format=path.suffix.lower().lstrip(".")), "--plot")
