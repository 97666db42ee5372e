"""Compute continual-learning figures from a matrix of accuracies.

The matrix is a list of rows. Row i holds the accuracies in % on tasks 0..i after learning task i.
Joint training learns all tasks at once, so its matrix has a single row with all tasks.
"""

from __future__ import annotations

from collections.abc import Sequence

Matrix = Sequence[Sequence[float]]


def last(matrix: Matrix) -> float:
    """Return the mean over all tasks of the accuracy after the last task, in %."""
    _require_triangle(matrix)
    return _mean(matrix[-1])


def average(matrix: Matrix) -> float:
    """Return the average incremental accuracy in %.

    It is the mean over all rows of the mean accuracy on the tasks seen by then.
    """
    _require_triangle(matrix)
    return _mean([_mean(row) for row in matrix])


def forgetting(matrix: Matrix) -> float:
    """Return the mean drop from a task's best accuracy to its last one, in percentage points.

    This is eq. 3 of Chaudhry et al. (2018). The best accuracy is over all rows but the last, so
    that the figure is negative if the last task helped. It is 0 for one task.
    """
    _require_triangle(matrix)
    final = matrix[-1]
    return _mean([max(row[task] for row in matrix[task:-1]) - final[task] for task in range(len(matrix) - 1)])


def bwt(matrix: Matrix) -> float:
    """Return the backward transfer in percentage points (Lopez-Paz & Ranzato 2017).

    It is the mean of a task's last accuracy minus its accuracy just after learning. It is 0 for one
    task.
    """
    _require_triangle(matrix)
    final = matrix[-1]
    return _mean([final[task] - matrix[task][task] for task in range(len(matrix) - 1)])


def micro(correct: Sequence[int], total: Sequence[int]) -> float:
    """Return the accuracy in % over all images of all tasks, each with the same weight.

    Args:
        correct: (T,), the correctly classified images of each task.
        total: (T,), the images of each task.

    Raises:
        ValueError: there is no image.
    """
    if sum(total) == 0:
        raise ValueError("no image to compute an accuracy of")
    return float(100.0 * sum(correct) / sum(total))


def transfer(square: Matrix) -> float:
    """Return Transfer in %: the accuracy on tasks before they are learned (ZSCL; GIFT, sec. 4.1).

    It is the mean over all tasks but the first. The figure of a task is the mean of its accuracies
    after each task before it. Transfer is 0 for one task.

    Args:
        square: (T, T). Row i holds the accuracies in % after task i, on every task.
    """
    tasks = range(1, len(square))
    return _mean([_mean([square[i][task] for i in range(task)]) for task in tasks])


def headline(matrix: Matrix, micros: Sequence[float], over_images: bool) -> tuple[float, float]:
    """Return the last and the average accuracy in % that a run is known by.

    Args:
        matrix: see the module.
        micros: :func:`micro` after each task.
        over_images: True: both are over all images. False: both are means over tasks.
    """
    return (micros[-1], _mean(micros)) if over_images else (last(matrix), average(matrix))


def square_summary(rows: Matrix) -> dict[str, object]:
    """Return the figures of accuracies on all tasks, learned or not, for ``results.json``.

    Args:
        rows: (t + 1, T): before the first task, then after each of t tasks.

    Returns:
        ``before`` (T,) and ``matrix`` (t, T); ``transfer``, ``average`` (over the whole matrix) and
        ``last`` (over its last row), in %, once all T tasks are learned, else None.
    """
    before, square = [list(row) for row in rows[:1]], [list(row) for row in rows[1:]]
    whole = bool(square) and len(square) == len(square[0])
    figures = {
        "transfer": transfer(square) if whole else None,
        "average": _mean([_mean(row) for row in square]) if whole else None,
        "last": _mean(square[-1]) if whole else None,
    }
    return {"before": before[0] if before else None, "matrix": square, **figures}


def summary(matrix: Matrix, micros: Sequence[float]) -> dict[str, object]:
    """Return the figures of one setting as ``results.json`` holds them.

    All figures are None before the end of the first task.

    Args:
        matrix: the accuracies, see the module. It may be empty.
        micros: :func:`micro` after each task. PROOF's tables average these. Our tables and
            Mammoth's average the rows of the matrix.
    """
    rows = [[float(value) for value in row] for row in matrix]
    figures = {name: measure(rows) if rows else None for name, measure in _MEASURES.items()}
    images = {"micro_last": micros[-1] if micros else None, "micro_average": _mean(micros) if micros else None}
    return {"matrix": rows, "micro": list(micros), **figures, **images}


_MEASURES = {"last": last, "average": average, "forgetting": forgetting, "bwt": bwt}


def _mean(values: Sequence[float]) -> float:
    return float(sum(values) / len(values)) if len(values) else 0.0


def _require_triangle(matrix: Matrix) -> None:
    joint = len(matrix) == 1 and len(matrix[0]) > 0
    if not joint and (not len(matrix) or any(len(row) != index + 1 for index, row in enumerate(matrix))):
        raise ValueError(
            f"row i of an accuracy matrix holds i + 1 accuracies; the rows hold {[len(row) for row in matrix]}"
        )
