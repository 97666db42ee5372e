"""Offer a method what it needs while it runs.

It is progress, events, pictures, phases and places where the run may stop.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmi_cl.models.host import PhaseState
from pmi_cl.utils.records.confusion import as_table, by_class
from pmi_cl.utils.records.metrics import Matrix, average, last
from pmi_cl.utils.records.resources import Phases
from pmi_cl.utils.records.tensorboard import EventWriter
from pmi_cl.utils.reports import class_pictures, pictures
from pmi_cl.utils.run.interrupts import Interrupted, Interrupts
from pmi_cl.utils.run.progress import Progress

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from pmi_cl.datasets.task_split import TaskSplit
    from pmi_cl.inversion.engine.engine import Inversion


class RunHost:
    """The runner's :class:`pmi_cl.models.host.Host`."""

    def __init__(
        self,
        *,
        progress: Progress,
        events: EventWriter,
        phases: Phases,
        interrupts: Interrupts,
        picture_folder: Path,
        title: str,
        class_names: Sequence[str],
        tasks: TaskSplit,
        save: Callable[[], None],
        checkpoint_minutes: float | None,
    ) -> None:
        """Take the parts of the run that show and keep what happens.

        Args:
            progress: the display of the progress.
            events: the writer for TensorBoard.
            phases: the account of seconds and memory.
            interrupts: the signals that asked to stop.
            picture_folder: the folder for PNGs.
            title: method, data set and seed, for the title of every picture.
            class_names: the name of each label.
            tasks: which classes each task has.
            save: writes a checkpoint of everything.
            checkpoint_minutes: time between two saves at safe points. None: only when interrupted.
        """
        self.phases = phases
        self._progress = progress
        self._events = events
        self._interrupts = interrupts
        self._picture_folder = picture_folder
        self._title = title
        self._class_names = class_names
        self._tasks = tasks
        self._save = save
        self._checkpoint_seconds = float("inf") if checkpoint_minutes is None else 60 * checkpoint_minutes
        self._saved = time.monotonic()
        self._drawn: dict[str, int] = {}

    def progress(self, phase: str, state: PhaseState) -> None:
        """Show how far a phase is, see :meth:`pmi_cl.utils.run.progress.Progress.show`."""
        self._progress.show(phase, state)

    def scalars(self, values: Mapping[str, float | torch.Tensor], step: int) -> None:
        """Write numbers or 0-dimensional tensors, by tag, for TensorBoard."""
        self._events.scalars(values, step)

    def images(self, tag: str, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Show images (n, 3, h, w) in [0, 1] by class.

        They go to ``pictures/<tag>.png`` and to TensorBoard. ``labels`` (n,) are in task order.
        """
        self._show(tag, pictures.sample_grid(images, labels, self._class_names, self._tasks, title=self._titled(tag)))

    def curves(self, tag: str, losses: Mapping[str, Sequence[float]]) -> None:
        """Show the losses of each layer, by its name, against the step.

        They go to ``pictures/<tag>.png`` and to TensorBoard.
        """
        self._show(tag, pictures.loss_curves(losses, self._titled(tag)))

    def accuracies(self, setting: str, matrix: Matrix, headline: tuple[float, float] | None = None) -> None:
        """Show the accuracies of "class-il" or "task-il" after a task.

        They are scalars by task, their averages, and the matrix as a picture.

        Args:
            setting: "class-il" or "task-il".
            matrix: row i holds the accuracies in % on tasks 0..i after task i.
            headline: the last and the average accuracy in %; None: the means over tasks.
        """
        tasks = len(matrix[-1])  # the first row of joint training has them all
        final, over_time = headline or (last(matrix), average(matrix))
        by_task = {f"{setting}/task {task + 1}": value for task, value in enumerate(matrix[-1])}
        self._events.scalars({**by_task, f"{setting}/last": final, f"{setting}/average": over_time}, tasks)
        title = f"{self._titled(_in_text(setting))} after task {tasks}: last {final:.2f} %, average {over_time:.2f} %"
        self._show(f"accuracy-{setting}", pictures.accuracy_matrix(matrix, title), tasks)

    def accuracies_everywhere(self, setting: str, figures: Mapping[str, Any]) -> None:
        """Show the accuracies on all tasks, learned or not.

        It is a square matrix below the row before training.

        Args:
            setting: "class-il" or "task-il".
            figures: made by :func:`pmi_cl.utils.records.metrics.square_summary`.
        """
        done = len(figures["matrix"])
        named = {name: figures[name] for name in ("transfer", "average", "last") if figures[name] is not None}
        self._events.scalars({f"{setting} of all tasks/{name}": value for name, value in named.items()}, done)
        text = ", ".join(f"{name} {value:.2f} %" for name, value in named.items())
        title = f"{self._titled(_in_text(setting))} on all tasks after task {done}" + (f": {text}" if text else "")
        rows = [figures["before"], *figures["matrix"]]
        self._show(f"accuracy-{setting}-all-tasks", pictures.accuracy_matrix(rows, title, from_start=True), done)

    def by_class(self, matrices: Sequence[Sequence[str] | None]) -> None:
        """Show the last confusion matrix, and the accuracy on each class after each task.

        Args:
            matrices: after each task, see :mod:`pmi_cl.utils.records.confusion`.
        """
        names = self._class_names
        tables = [None if rows is None else as_table(rows, len(names)) for rows in matrices]
        ends, done = self._tasks.ends, len(tables)
        if tables[-1] is not None:
            title = self._titled(f"confusion after task {self._tasks.task_of(len(tables[-1]) - 1) + 1}")
            self._show("confusion", class_pictures.confusion_matrix(tables[-1], names, ends, title), done)
            accuracies = [None if table is None else by_class(table) for table in tables]
            title = self._titled("accuracy by class")
            self._show("accuracy-by-class", class_pictures.accuracy_by_class(accuracies, names, ends, title), done)

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Charge the seconds and the memory of the body to ``name``."""
        return self.phases.phase(name)

    def to_run(self, inversion: Inversion) -> Inversion:
        """Return the same: a run carries out every inversion."""
        return inversion

    def safe_point(self) -> None:
        """Save if the time has come or a signal asked to stop. The state is complete here.

        Raises:
            Interrupted: the state is saved, and a signal asked to stop.
        """
        stop = self._interrupts.requested
        if stop is not None or time.monotonic() - self._saved >= self._checkpoint_seconds:
            self.save()
        if stop is not None:
            raise Interrupted(stop)

    def save(self) -> None:
        """Write a checkpoint now, and count the time to the next one from here."""
        self._save()
        self._saved = time.monotonic()

    def close(self) -> None:
        """End the line of progress and write out the events."""
        self._progress.close()
        self._events.close()

    def _titled(self, what: str) -> str:
        """Return the title of a picture: the run, and what is drawn."""
        return f"{self._title}: {what.replace('/', ', ')}"

    def _show(self, tag: str, figure: Figure, step: int | None = None) -> None:
        picture = pictures.pixels(figure)
        pictures.save_png(picture, self._picture_folder / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', tag)}.png")
        self._drawn[tag] = self._drawn.get(tag, -1) + 1
        self._events.image(tag, picture, self._drawn[tag] if step is None else step)


def _in_text(setting: str) -> str:
    """Return "class-il" or "task-il" as texts have it."""
    return setting.replace("-il", "-IL")
