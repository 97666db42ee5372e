"""Draw the pictures of a run: synthetic images by class, accuracy matrix, inversion losses.

Each function returns a matplotlib ``Figure`` without a window or global state. :func:`pixels` turns
it into an array for TensorBoard or :func:`save_png`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmi_cl.errors import UserError
from pmi_cl.utils.records.atomic import write_atomically
from pmi_cl.utils.reports.titles import LETTERS_PER_INCH, POINTS, put_title, title_lines

if TYPE_CHECKING:
    import numpy as np
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pmi_cl.datasets.task_split import TaskSplit

DPI = 100
_FONT_POINTS = 9
_LETTER = 7.5  # width of a letter of that size, in pixels
_HEADING = 24  # height of a line "task 2", in pixels
_GAP = 2  # pixels between two images
_MARGIN = 14  # pixels around the picture and between blocks
_SMALLEST, _LARGEST = 48, 96  # smaller images are enlarged, larger ones reduced, in pixels
_LONGEST_NAME = 22  # letters of a class name


def sample_grid(
    images: torch.Tensor,
    labels: torch.Tensor,
    class_names: Sequence[str],
    tasks: TaskSplit,
    per_class: int = 10,
    title: str = "",
) -> Figure:
    """Draw a row of images for each class, under a heading for each task.

    Args:
        images: (n, 3, h, w) or (n, 1, h, w) in [0, 1]. Whole pixels are repeated or averaged, so
            that nothing is smoothed.
        labels: (n,), indices into ``class_names``. A class without images has no row.
        per_class: the most images of a class. The first ones are drawn.
        title: stands above them.
    """
    tiles = _tiles(images)
    shown = {int(label): tiles[(labels == label).cpu().numpy()][:per_class] for label in labels.unique().tolist()}
    names = [class_names[label] for label in shown]
    longest = min(_LONGEST_NAME, max(len(name) for name in names))
    left = math.ceil(longest * _LETTER) + 12
    columns = max(len(row) for row in shown.values())
    height, width = tiles.shape[1] + _GAP, left + columns * (tiles.shape[2] + _GAP) + _MARGIN
    blocks = _blocks([(tasks.task_of(label), label) for label in shown], height, width)
    return _paste(shown, blocks, class_names, (height, width, left), title)


def accuracy_matrix(matrix: Sequence[Sequence[float]], title: str, from_start: bool = False) -> Figure:
    """Draw a heat map of accuracies with the numbers.

    Args:
        matrix: row i holds the accuracies in % after task i, on tasks 0..i or on all tasks. There
            is at least one row. A single row with several tasks is joint training.
        from_start: the first row holds the accuracies before the first task.
    """
    import numpy as np
    from matplotlib.figure import Figure

    rows, tasks = len(matrix), max(len(row) for row in matrix)
    table = np.full((rows, tasks), np.nan)
    for index, row in enumerate(matrix):
        table[index, : len(row)] = row
    side = min(12.0, max(3.2, 0.52 * tasks + 1.2))
    height = max(2.4, side * rows / tasks) if rows != tasks else side
    figure = Figure(figsize=(side + 0.9, height), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    heat = axes.imshow(table, cmap="viridis", vmin=0, vmax=100)
    _write_cells(axes, table)
    every = max(1, tasks // 20)
    axes.set_xticks(range(0, tasks, every), [str(task + 1) for task in range(0, tasks, every)])
    learned = ["none" if from_start and row == 0 else str(row + 1 - from_start) for row in range(0, rows, every)]
    learned = [f"1-{tasks}"] if rows == 1 < tasks and not from_start else learned
    axes.set_yticks(range(0, rows, every), learned)
    axes.set_xlabel("accuracy on task")
    axes.set_ylabel("after task")
    put_title(figure, title)
    axes.spines[:].set_visible(False)
    figure.colorbar(heat, ax=axes, label="%", shrink=0.8)
    return figure


def loss_curves(losses: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Draw loss against step, a line for each layer, coloured by depth.

    Args:
        losses: the losses of each layer by its name, in the order of the colours.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 4.5), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    shades = colormaps["viridis"]
    for index, (name, values) in enumerate(losses.items()):
        colour = shades(0.9 * index / max(1, len(losses) - 1))
        axes.plot(
            range(1, len(values) + 1),
            values,
            color=colour,
            label=name,
            linewidth=1.5,
            marker="." if len(values) < 15 else None,
        )
    if all(value > 0 for values in losses.values() for value in values):
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("loss")
    axes.set_title("\n".join(title_lines(title, 60)), fontsize=POINTS, parse_math=False)  # the legend is beside it
    axes.grid(alpha=0.3)
    figure.legend(
        loc="outside right upper", fontsize=8 if len(losses) <= 18 else 6, ncols=1 + len(losses) // 37, frameon=False
    )
    return figure


def pair_sheet(images: torch.Tensor, names: Sequence[str]) -> Figure:
    """Draw a column for each set of images that belong together, and a named row for each kind.

    Args:
        images: (sets, kinds, c, h, w) in [0, 1].
        names: of the kinds.
    """
    from matplotlib.figure import Figure

    sets, kinds = images.shape[:2]
    figure = Figure(figsize=(1.1 * sets + 1.8, 1.15 * kinds), dpi=DPI, layout="constrained")
    axes = figure.subplots(kinds, sets, squeeze=False)
    for kind, name in enumerate(names):
        for column, tile in enumerate(_tiles(images[:, kind])):
            axes[kind, column].imshow(tile, interpolation="nearest")
            axes[kind, column].set(xticks=[], yticks=[])
        axes[kind, 0].set_ylabel("\n".join(title_lines(name, 14)), rotation=0, ha="right", va="center", fontsize=8)
    return figure


def pixels(figure: Figure) -> np.ndarray:
    """Return the figure as uint8 (h, w, 3)."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_png(picture: np.ndarray, path: Path, flag: str = "--results_path") -> None:
    """Write a picture (h, w, 3), uint8, as a PNG, atomically. Create the folder if needed.

    Raises:
        UserError: the disk is full, or the folder cannot be written to.
    """
    from PIL import Image

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fault = f"cannot make the folder {path.parent} ({error.strerror})"
        raise UserError(f"{fault}: make room or choose another {flag}") from error
    write_atomically(path, lambda file: Image.fromarray(picture).save(file, format="png"), flag)


def _tiles(images: torch.Tensor) -> np.ndarray:
    """Return images (n, c, h, w) in [0, 1] as uint8 (n, H, W, 3), enlarged or reduced."""
    import torch.nn.functional as functional

    pictures = images.detach().float().cpu().clamp(0, 1)
    larger, smaller = max(1, math.ceil(_SMALLEST / pictures.shape[-1])), math.ceil(pictures.shape[-1] / _LARGEST)
    if smaller > 1:
        pictures = functional.avg_pool2d(pictures, smaller)
    if larger > 1:
        pictures = pictures.repeat_interleave(larger, dim=2).repeat_interleave(larger, dim=3)
    return (pictures.expand(-1, 3, -1, -1) * 255).round().byte().permute(0, 2, 3, 1).numpy()


def _blocks(rows: list[tuple[int, int]], height: int, width: int) -> list[list[tuple[int, int]]]:
    """Divide the (task, class) rows into blocks side by side, so that the picture is about 4:3."""
    tasks = len({task for task, _ in rows})
    tall = len(rows) * height + tasks * _HEADING
    count = min(range(1, len(rows) + 1), key=lambda n: abs(math.log(n * width / (tall / n) / (4 / 3))))
    size = math.ceil(len(rows) / count)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _paste(
    shown: Mapping[int, np.ndarray],
    blocks: list[list[tuple[int, int]]],
    class_names: Sequence[str],
    geometry: tuple[int, int, int],
    title: str,
) -> Figure:
    """Paste the rows without resampling, and write the names beside them and the title above."""
    import numpy as np
    from matplotlib.figure import Figure

    height, width, left = geometry
    across = len(blocks) * width + _MARGIN
    lines = title_lines(title, max(20, int(across / DPI * LETTERS_PER_INCH))) if title else []
    top = _MARGIN + len(lines) * _HEADING
    tall = max(len(block) * height + len({task for task, _ in block}) * _HEADING for block in blocks) + top + _MARGIN
    canvas = np.full((tall, across, 3), 255, np.uint8)
    words: list[tuple[float, float, str, dict[str, Any]]] = [
        (across / 2, _MARGIN + (number + 0.5) * _HEADING, line, {"ha": "center", "va": "center"})
        for number, line in enumerate(lines)
    ]
    for number, block in enumerate(blocks):
        x, y, above = _MARGIN + number * width, top, None
        for task, label in block:
            if task != above:
                words.append((x + left, y + _HEADING - 8, f"task {task + 1}", {"weight": "bold", "va": "baseline"}))
                y, above = y + _HEADING, task
            words.append(
                (x + left - 8, y + (height - _GAP) / 2, short(class_names[label]), {"ha": "right", "va": "center"})
            )
            for column, tile in enumerate(shown[label]):
                start = x + left + column * (tile.shape[1] + _GAP)
                canvas[y : y + tile.shape[0], start : start + tile.shape[1]] = tile
            y += height
    figure = Figure(figsize=(canvas.shape[1] / DPI, canvas.shape[0] / DPI), dpi=DPI)
    figure.figimage(canvas, origin="upper")
    for right, down, text, style in words:
        figure.text(
            right / canvas.shape[1], 1 - down / canvas.shape[0], text, size=_FONT_POINTS, parse_math=False, **style
        )
    return figure


def short(name: str) -> str:
    """Return a class name of at most :data:`_LONGEST_NAME` letters."""
    words = name.replace("_", " ")
    return words if len(words) <= _LONGEST_NAME else words[: _LONGEST_NAME - 1] + "…"


def _write_cells(axes: Axes, table: np.ndarray) -> None:
    """Write each accuracy into its cell. Beyond 25 tasks there is no room for numbers."""
    import numpy as np

    tasks = table.shape[1]
    if tasks > 25:
        return
    for (row, column), value in np.ndenumerate(table):
        if not np.isnan(value):
            text = f"{value:.1f}" if tasks <= 12 else f"{value:.0f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=9, color="black" if value > 60 else "white")
