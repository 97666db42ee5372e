"""Lay out an evaluation for the terminal: by class, by task, and in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pmi_cl.utils.trained.evaluating import Evaluation


def as_text(found: Evaluation) -> str:
    """Return the accuracy on each class, with the class it is most taken for; then on each task."""
    tasks = [
        f"task {number}: class-IL {_percent(class_il)}, task-IL {_percent(task_il)}"
        for number, (class_il, task_il) in enumerate(zip(found.class_il, found.task_il, strict=True), start=1)
    ]
    return "\n".join([*_class_rows(found), "", *tasks, _last_line(found)]) + "\n"


def _class_rows(found: Evaluation) -> list[str]:
    names = found.class_names
    width = max(5, *map(len, names))
    rows = [f"{'class':<{width}}  images  accuracy  most taken for"]
    for label, (row, accuracy) in enumerate(zip(found.confusion, found.by_class, strict=True)):
        count, other = max((count, -k) for k, count in enumerate(row) if k != label) if len(row) > 1 else (0, 0)
        taken = f"  {names[-other]} ({count})" if count else ""
        rows.append(f"{names[label]:<{width}}  {sum(row):6}  {_percent(accuracy):>8}{taken}")
    return rows


def _last_line(found: Evaluation) -> str:
    if found.last is None:
        return f"{found.run}: {found.over_images:.2f} % over the {found.images} test images of {found.on}"
    last = f"{found.run}: A_{len(found.class_il)} = {found.last:.2f} % (last class-IL accuracy)"
    return f"{last}, {found.over_images:.2f} % over all {found.images} images"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} %"
