"""Draw the way of an inversion: its pictures at some steps, and its loss over the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pmi_cl.utils.commands.invert.options import MOST_ROWS
from pmi_cl.utils.reports.pictures import pixels, save_png
from pmi_cl.utils.reports.titles import title_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

_DPI = 100
_TILE = 1.3  # inches
FLAG = "--output"  # decides where the pictures lie


def save_steps(path: Path, shots: Sequence[tuple[int, Tensor]], title: str) -> None:
    """Write :func:`step_grid` as a PNG."""
    save_png(pixels(step_grid(shots, title)), path, FLAG)


def save_curves(
    path: Path, curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], across: str, up: str
) -> None:
    """Write :func:`work_curves` as a PNG."""
    save_png(pixels(work_curves(curves, across, up)), path, FLAG)


def step_grid(shots: Sequence[tuple[int, Tensor]], title: str) -> Figure:
    """Return a figure with a column for each shot and a row for each of the first images.

    Args:
        shots: (steps done, images in [0, 1] (n, 3, h, w)).
        title: stands above the columns.
    """
    from matplotlib.figure import Figure

    rows = min(len(shots[0][1]), MOST_ROWS)
    figure = Figure(figsize=(_TILE * len(shots), _TILE * rows + 0.7), dpi=_DPI, layout="constrained")
    axes = figure.subplots(rows, len(shots), squeeze=False)
    for column, (step, images) in enumerate(shots):
        for row in range(rows):
            place = axes[row][column]
            place.imshow(images[row].permute(1, 2, 0).numpy(), interpolation="nearest")
            place.set_axis_off()
        axes[0][column].set_title(f"{step} step{'s' * (step != 1)}", fontsize=9)
    letters = max(20, int(_TILE * len(shots) * _DPI / 8))
    figure.suptitle("\n".join(title_lines(title, letters)), fontsize=10, parse_math=False)
    return figure


def work_curves(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], across: str, up: str) -> Figure:
    """Return a figure with a line for each curve, logarithmic upwards if all values are above 0.

    Args:
        curves: name -> (x values, y values).
        across, up: the names of the axes.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    for name, (x, y) in curves.items():
        axes.plot(x, y, label=name, linewidth=1.2)
    if all(value > 0 for _, y in curves.values() for value in y):
        axes.set_yscale("log")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure
