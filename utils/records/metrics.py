"""Continual-learning figures computed from a matrix of accuracies.

The matrix is a list of rows: row i holds the accuracies in % on tasks 0..i after learning task i. Joint training, which learns all tasks
at once, has one row with all of them. Every function is pure.
"""

from __future__ import annotations

from collections.abc import Sequence

Matrix = Sequence[Sequence[float]]


def last(matrix: Matrix) -> float:
    """Mean over all tasks of the accuracy after the last one, in %."""
    _require_triangle(matrix)
    return _mean(matrix[-1])


def average(matrix: Matrix) -> float:
    """Average incremental accuracy in %: the mean, over the moments after each task, of the mean accuracy on the tasks seen by then."""
    _require_triangle(matrix)
    return _mean([_mean(row) for row in matrix])


def forgetting(matrix: Matrix) -> float:
    """Mean drop from the best accuracy a task ever had to its last one, in points (Chaudhry et al. 2018, eq. 3).

    The maximum runs over the rows before the last, so the figure is negative where the last task helped. One task: 0.
    """
    _require_triangle(matrix)
    final = matrix[-1]
    return _mean([max(row[task] for row in matrix[task:-1]) - final[task] for task in range(len(matrix) - 1)])


def bwt(matrix: Matrix) -> float:
    """Backward transfer in points: mean of the last accuracy less the one just after learning (Lopez-Paz & Ranzato 2017). One task: 0."""
    _require_triangle(matrix)
    final = matrix[-1]
    return _mean([final[task] - matrix[task][task] for task in range(len(matrix) - 1)])


def micro(correct: Sequence[int], total: Sequence[int]) -> float:
    """Accuracy in % over all images together: every image counts the same, whatever its task.

    Args:
        correct: (T,), images classified rightly, by task.
        total: (T,), images, by task.

    Raises:
        ValueError: there is no image.
    """
    if sum(total) == 0:
        raise ValueError("no image to compute an accuracy of")
    return float(100.0 * sum(correct) / sum(total))


def transfer(square: Matrix) -> float:
    """Return Transfer in %: how well tasks are known before they are learned (ZSCL; GIFT, section 4.1).

    For each task but the first, the mean of its accuracies after each task before it; then the
    mean over those tasks. One task: 0.

    Args:
        square: (T, T), row i after task i, on every task.
    """
    tasks = range(1, len(square))
    return _mean([_mean([square[i][task] for i in range(task)]) for task in tasks])


def square_summary(rows: Matrix) -> dict[str, object]:
    """Return the figures of accuracies on all tasks, learned or not, as ``results.json`` holds them.

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
    """The figures of one setting as ``results.json`` holds them; all ``None`` while no task has ended.

    Args:
        matrix: see the module; may be empty.
        micros: :func:`micro` after each task. PROOF's tables average these; ours and Mammoth's average the rows of the matrix.
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
