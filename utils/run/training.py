"""Loop over tasks, epochs and steps. Every safe point can be resumed from."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from pmi_cl.errors import RunFailed
from pmi_cl.models.host import PhaseState
from pmi_cl.utils.records.confusion import as_table, as_texts
from pmi_cl.utils.run.evaluation import before_training, evaluate
from pmi_cl.utils.run.task_figures import ByTask, TaskFigures

if TYPE_CHECKING:
    from types import SimpleNamespace

    from pmi_cl.datasets.continual_dataset import ContinualDataset
    from pmi_cl.models.continual_model import ContinualModel
    from pmi_cl.utils.run.host import RunHost

PHASES = ("begin", "prepare", "train", "end", "evaluate")
PACE_SECONDS = 5.0  # between two points of the curve of images per second
DEBUG_STEPS = 6  # of an epoch, and batches of an evaluation, under --debug_mode 1


class DivergedTraining(RunFailed):
    """The loss stopped being finite."""


@dataclass
class Position:
    """Where a run is: the next thing to do is ``phase`` of ``task``.

    The phases are "begin" (between tasks), "prepare" (``begin_task``, begun or not), "train" (at
    ``epoch`` and ``step``), "end" and "evaluate".
    """

    task: int = 0
    phase: str = "begin"
    epoch: int = 0
    step: int = 0


class Training:
    """Trains a method on a data set, task after task.

    Attributes:
        tasks: how many tasks are learned: all of the data set, or as many as ``stop_after`` says.
        shown: the data set as the method sees it. Joint training sees one task.
        position: where it is.
        steps: how many were taken so far, over all tasks.
        class_il, task_il: the accuracy matrices so far.
        micro: for both settings, the accuracy over all images together after each task.
        confusion: after each task, the confusion matrix as texts
            (:mod:`pmi_cl.utils.records.confusion`). None for a task that version 0.2 evaluated.
        figures: for each task, the bytes that the method holds, and its other classifiers.
        everywhere: for both settings, with ``--evaluate_unseen 1``, the accuracies on all tasks: a
            row before the first task, and one after each.
    """

    def __init__(
        self,
        model: ContinualModel,
        dataset: ContinualDataset,
        args: SimpleNamespace,
        host: RunHost,
        after_task: Callable[[], None],
    ) -> None:
        self.model, self.dataset, self.args, self.host, self.after_task = model, dataset, args, host, after_task
        self.tasks = min(dataset.N_TASKS, args.stop_after or dataset.N_TASKS)
        self.shown = dataset.as_one_task(self.tasks) if model.JOINT else dataset
        model.dataset = self.shown
        self.position, self.steps = Position(), 0
        self.class_il: list[list[float]] = []
        self.task_il: list[list[float]] = []
        self.micro: dict[str, list[float]] = {"class_il": [], "task_il": []}
        self.everywhere: dict[str, list[list[float]]] = {"class_il": [], "task_il": []}
        self.confusion: list[list[str] | None] = []
        self.figures = TaskFigures()
        self._images_seen, self._pace_since = 0, time.perf_counter()

    @property
    def tasks_to_train(self) -> int:
        """Return the number of tasks to train. Joint training has one."""
        return 1 if self.model.JOINT else self.tasks

    def run(self) -> None:
        """Do what is left.

        ``Interrupted`` passes through from a safe point, with everything saved.
        """
        actions = {
            "begin": self._begin,
            "prepare": self._prepare,
            "train": self._train,
            "end": self._end,
            "evaluate": self._evaluate,
        }
        while self.position.task < self.tasks_to_train:
            self.model.current_task = self.position.task
            actions[self.position.phase]()

    @property
    def _most_batches(self) -> int | None:
        """Return how many batches of a task are evaluated. None: all."""
        return DEBUG_STEPS if self.args.debug_mode else None

    def _begin(self) -> None:
        if self.args.evaluate_unseen and not self.everywhere["task_il"]:
            with self.host.phase("evaluation"):
                self._keep_everywhere(before_training(self.model, self.dataset, self._most_batches))
        self.model.grow()
        self.position.phase = "prepare"

    def _prepare(self) -> None:
        self.model.begin_task(self.shown)
        self._keep_stored("while training", self.figures.while_training)
        self.position.phase, self.position.epoch, self.position.step = "train", 0, 0
        self.host.safe_point()

    def _train(self) -> None:
        with self.host.phase("training"):
            self._images_seen, self._pace_since = (
                0,
                time.perf_counter(),
            )  # the time before the first step is not training
            epochs = self.model.n_epochs()
            while self.position.epoch < epochs:
                self._epoch(epochs)
            if self._images_seen:
                self._report_pace()  # the only point of a short task
        self.position.phase = "end"

    def _epoch(self, epochs: int) -> None:
        position, model = self.position, self.model
        model.begin_epoch(position.epoch, self.shown)
        model.set_modes()
        steps = model.steps_per_epoch()
        steps = min(steps, DEBUG_STEPS) if self.args.debug_mode else steps
        batches = model.train_batches(position.epoch, start=position.step)
        losses: dict[str, torch.Tensor] = {}
        for step in range(position.step, steps):
            inputs, labels, raw = next(batches)
            with model.arithmetic():
                losses = model.observe(inputs, labels, raw, epoch=position.epoch, step=step)
            position.step, self.steps = step + 1, self.steps + 1
            self._report_step(losses, len(inputs), position.epoch * steps + step + 1, epochs * steps)
            if step + 1 < steps:
                self.host.safe_point()
        model.end_epoch(position.epoch, self.shown)
        if losses:
            self._refuse_diverged(losses["loss"])
        position.epoch, position.step = position.epoch + 1, 0
        self.host.safe_point()

    def _report_step(self, losses: dict[str, torch.Tensor], images: int, done: int, total: int) -> None:
        task = self.position.task + 1
        state = PhaseState(done, total, values={"loss": losses["loss"]})
        self.host.progress(f"task {task} training", state)
        events: dict[str, Any] = {f"loss/{name}": value for name, value in losses.items()}
        if self.model.opt is not None:
            events["learning rate"] = self.model.opt.param_groups[0]["lr"]
        self.host.scalars(events, self.steps)
        self._images_seen += images
        if time.perf_counter() - self._pace_since > PACE_SECONDS:
            self._report_pace()
            self._refuse_diverged(losses["loss"])  # so rarely that waiting for the device costs nothing

    def _refuse_diverged(self, loss: torch.Tensor) -> None:
        """Raise DivergedTraining if the loss of the last step is not finite."""
        if not bool(torch.isfinite(loss)):
            epoch, task = self.position.epoch + 1, self.position.task + 1
            raise DivergedTraining(f"the loss is not finite in epoch {epoch} of task {task}: try a smaller --lr")

    def _report_pace(self) -> None:
        """Write how many real images were trained on per second since the last call."""
        now = time.perf_counter()
        self.host.scalars(
            {"training/images per second": self._images_seen / max(now - self._pace_since, 1e-9)}, self.steps
        )
        self._images_seen, self._pace_since = 0, now

    def _end(self) -> None:
        self.model.end_task(self.shown)
        self.position.phase = "evaluate"
        self.host.safe_point()

    def _evaluate(self) -> None:
        task = self.position.task
        with self.host.phase("evaluation"):
            seen = self.tasks if self.model.JOINT else task + 1
            every = self.dataset.N_TASKS if self.args.evaluate_unseen else None
            found = evaluate(self.model, self.dataset, seen, self._most_batches, every)
        if found.everywhere is not None:
            self._keep_everywhere(found.everywhere)
        self.class_il.append(found.class_il)
        self.task_il.append(found.task_il)
        self.micro["class_il"].append(found.micro_class_il)
        self.micro["task_il"].append(found.micro_task_il)
        self.confusion.append(as_texts(found.confusion))
        by_other = {name: {"class_il": row, "micro": micro} for name, (row, micro) in found.others.items()}
        self.figures.classifiers.append(by_other)
        self._keep_stored("after task", self.figures.after_task)
        self.position = Position(task + 1)
        self.after_task()
        self.host.safe_point()

    def _keep_everywhere(self, rows: dict[str, list[float]]) -> None:
        for setting, row in rows.items():
            self.everywhere[setting].append(row)

    def _keep_stored(self, when: str, tasks: ByTask) -> None:
        kinds = {kind: count for kind, count in self.model.stored().items() if count}
        tasks.append(kinds)
        tags = {f"stored {when}/{kind}, bytes": float(count) for kind, count in kinds.items()}
        self.host.scalars(tags, self.position.task + 1)

    def state(self) -> dict[str, Any]:
        """Return everything that the run needs to go on, as tensors and plain data."""
        progress = {"position": asdict(self.position), "steps": self.steps, "micro": self.micro}
        progress |= {"everywhere": self.everywhere, "confusion": self.confusion, "figures": self.figures.state()}
        matrices = {"class_il": self.class_il, "task_il": self.task_il}
        return {**progress, **matrices, "method": self.model.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state`.

        Raises:
            Exception: one of Python's own, if the contents are not those of such a state.
        """
        self._check(state)
        self.position, self.steps = Position(**state["position"]), state["steps"]
        self.class_il, self.task_il, self.micro = (
            state["class_il"],
            state["task_il"],
            {name: list(state["micro"][name]) for name in ("class_il", "task_il")},
        )
        # Version 0.1 did not evaluate tasks that are not learned.
        self.everywhere = state.get("everywhere", {"class_il": [], "task_il": []})
        # Version 0.1 did not keep which classes were confused.
        self.confusion = list(state.get("confusion", [None] * len(self.class_il)))
        evaluated, within = self.position.task, self.position.phase in ("train", "end", "evaluate")
        self.figures = TaskFigures.from_state(state.get("figures", {}), evaluated, evaluated + within)
        self.model.load_state(state["method"])

    def _check(self, state: dict[str, Any]) -> None:
        """Refuse a position or accuracies that cannot be those of this run. Raise ValueError."""
        position = Position(**state["position"])
        numbers = (position.task, position.epoch, position.step, state["steps"])
        if position.phase not in PHASES or not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError("no such position")
        # The number of accuracies in each row.
        tasks = [self.tasks] if self.model.JOINT else range(1, self.shown.N_TASKS + 1)
        for matrix in (state["class_il"], state["task_il"]):
            if [len(row) for row in matrix] != list(tasks)[: position.task] or position.task > len(tasks):
                raise ValueError("the accuracies are not those of the tasks before")
            if not all(isinstance(value, float) for row in matrix for value in row):
                raise ValueError("an accuracy is no number")
        if any(len(values) != len(state["class_il"]) for values in state["micro"].values()):
            raise ValueError("the accuracies over all images are not those of the tasks before")
        for rows in state.get("confusion", []):
            as_table(rows or [], len(self.dataset.class_names))
        if len(state.get("confusion", state["class_il"])) != len(state["class_il"]):
            raise ValueError("the confusion matrices are not those of the tasks before")
        everywhere = state.get("everywhere", {})
        everyone = [row for matrix in everywhere.values() for row in matrix]
        if any(len(row) != self.dataset.N_TASKS for row in everyone) or len({len(m) for m in everywhere.values()}) > 1:
            raise ValueError("the accuracies on all tasks are not those of this run")
        values = [value for row in (*everyone, *state["micro"].values()) for value in row]
        if not all(isinstance(value, float) for value in values):
            raise ValueError("an accuracy is no number")
