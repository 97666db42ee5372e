"""Estimate what a run will cost by timing a few steps of it, on the real network and batch.

The first two tasks are begun as the run would begin them, on a few of their images: their steps of
training, an inversion with two steps a stage, the statistics, the evaluation. What was timed is
multiplied by how often the run will do it. So the figures are an estimate.
"""

from __future__ import annotations

import io
import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from pmi_cl.inversion.engine.engine import Inversion
from pmi_cl.machine.disk import ROOM_MIB
from pmi_cl.machine.memory import MemoryGauge
from pmi_cl.models.host import NullHost, PhaseState
from pmi_cl.options import specs_of
from pmi_cl.utils.run.building import build_model, prepare_torch
from pmi_cl.utils.run.out_of_memory import explain_out_of_memory
from pmi_cl.utils.run.preflight import outline_of
from pmi_cl.utils.run.progress import Progress
from pmi_cl.utils.run.run_cost import Cost

if TYPE_CHECKING:
    from types import SimpleNamespace

    from torch import Tensor

    from pmi_cl.datasets.continual_dataset import ContinualDataset
    from pmi_cl.models.continual_model import ContinualModel
    from pmi_cl.utils.arguments.command_line import Resolved

STEPS = 2  # of a stage of the inversion, and of what else counts in steps; the last one is timed
MOST_STEPS = 10
STATISTICS, PASSES = "statistics", 2  # the phase that looks at all images of a task, and how often
LEAST_PER_CLASS = 4  # images of a class, for its statistics


class Enough(Exception):
    """A phase has shown how long one of its many steps takes."""


class TrialHost(NullHost):
    """Times what a method does, and shortens it.

    Attributes:
        seconds: of each phase, by its name, as far as nothing else here counts it.
        estimated: the seconds that the inversions and other long loops of a task would take.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self.estimated: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._real: Inversion | None = None
        self._step_seconds: dict[str, float] = {}
        self._last, self._seen = 0.0, 0

    def now(self) -> float:
        """Return the time in seconds, once the device has done its work."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the body for the phase ``name``."""
        began = self.now()
        self._open.append(name)
        try:
            yield
        finally:
            self._open.pop()
            self.seconds[name] += self.now() - began

    def to_run(self, inversion: Inversion) -> Inversion:
        """Return the inversion of one batch with few steps, which gives as many images."""
        self._real, self._step_seconds = inversion, {}
        shorter, self._last = _Shorter(inversion), self.now()
        return shorter

    def progress(self, phase: str, state: PhaseState) -> None:
        """Time a step. Raise Enough after a few of a loop that is no inversion."""
        now, before = self.now(), self._last
        self._last = now
        name = self._open[-1] if self._open else phase
        if self._real is None:
            self._seen += 1
            if self._seen > STEPS:
                self._seen = 0
                self.estimated[name] += (now - before) * state.total
                raise Enough
            return
        self._step_seconds[state.where] = now - before  # the last step of a stage, without what comes before it
        if state.done >= state.total:
            stages = [stage for stage in self._real.stages if stage.steps]
            of_stages = zip(stages, self._step_seconds.values(), strict=True)
            once = sum(stage.steps * seconds for stage, seconds in of_stages)
            self.estimated[name] += once * len(self._real.plan.batches)
            self._real = None


class _Shorter(Inversion):
    """An inversion of the first batch alone, with few steps in each stage, and no patch dropped."""

    def __init__(self, whole: Inversion) -> None:
        problem, rows = whole.problem, whole.plan.batches[0]
        parts = (problem.targets, problem.labels, problem.contexts)
        targets, labels, contexts = (None if part is None else part[rows] for part in parts)
        config = replace(problem.config, steps=min(STEPS, problem.config.steps), pruning=None)
        super().__init__(replace(problem, config=config, targets=targets, labels=labels, contexts=contexts))
        self.stages = [replace(stage, steps=min(STEPS, stage.steps)) for stage in whole.stages]
        self._whole = problem.n

    def images(self) -> Tensor:
        """Return as many images as the whole inversion makes: those of the batch, repeated."""
        made = super().images()
        return made.repeat(-(-self._whole // len(made)), 1, 1, 1)[: self._whole]


def estimate(resolved: Resolved) -> str:
    """Time a few steps of a run that was checked, and return what the run will cost, as a line."""
    args, began = resolved.args, time.monotonic()
    device = prepare_torch(args)
    with explain_out_of_memory(args):
        dataset: ContinualDataset = resolved.dataset.load()(args, device, Progress(args.progress).update)
        model = build_model(resolved, dataset)
        outline = outline_of(args, type(dataset), resolved.backbone.load_module())
        cost = tried(model, dataset, args, model.samples_mib(args, outline))
    spent = time.monotonic() - began
    return f"{cost}, from a trial of {spent:.0f} seconds on {device}"


def tried(
    model: ContinualModel,
    dataset: ContinualDataset,
    args: SimpleNamespace,
    samples_mib: float,
    seconds_of_training: float = 2.0,
) -> Cost:
    """Return the estimated cost of a run, from a trial of its first two tasks.

    Args:
        model: new, with its network; it is of no use afterwards.
        dataset: of the run.
        args: of the run.
        samples_mib: the most that synthetic samples take.
        seconds_of_training: for the steps of training of each task; a few are always taken.
    """
    gauge = MemoryGauge(model.device)
    gauge.reset()
    learned = min(dataset.N_TASKS, args.stop_after or dataset.N_TASKS)
    shown = dataset.as_one_task(learned) if model.JOINT else dataset
    tasks = 1 if model.JOINT else learned
    trials = [_TaskTrial(model, shown, task, seconds_of_training) for task in range(min(tasks, 2))]
    found: dict[str, float] = defaultdict(float)
    for task in range(tasks):
        for name, seconds in trials[min(task, 1)].of_task(task).items():
            found[name] += seconds
        found["evaluation"] += trials[-1].per_image * sum(len(shown.test_indices(seen)) for seen in range(task + 1))
    disk = 2 * (_size_mib(model.state()) + samples_mib) + ROOM_MIB
    return Cost(dict(found), gauge.peak_mib(), disk)


class _TaskTrial:
    """What a task costs, of which a little was carried out."""

    def __init__(self, model: ContinualModel, shown: ContinualDataset, task: int, most: float) -> None:
        """Begin the task, train a few steps, and end it on a few images."""
        self._model, self._shown, self._task = model, shown, task
        host = TrialHost(model.device)
        model.host, model.dataset, model.current_task = host, shown, task
        model.grow()
        self._begin(host)
        self._samples = model.replay_samples()
        self._prepared = {**host.seconds, **host.estimated}
        host.seconds.clear()
        self._step = _seconds_of_step(model, shown, host, most) if model.n_epochs() else 0.0
        fewer = shown.with_fewer_images(LEAST_PER_CLASS)
        model.dataset = fewer
        model.end_task(fewer)
        model.dataset = shown
        self._ended = dict(host.seconds)
        self._images = len(fewer.train_indices(task))
        self.per_image = _seconds_of_evaluation(model, shown)

    def _begin(self, host: TrialHost) -> None:
        """Begin the task; a long loop in it is left after a few steps, and then done in short."""
        model, options = self._model, self._model.options
        try:
            model.begin_task(self._shown)
        except Enough:
            counted = [spec.name for spec in specs_of(type(options)) if spec.unit == "steps"]
            model.options = replace(options, **dict.fromkeys(counted, STEPS))
            host.seconds.clear()
            model.begin_task(self._shown)
            model.options = options

    def of_task(self, task: int) -> dict[str, float]:
        """Return the seconds that a task will take, by phase, measured by this one."""
        model = self._model
        model.current_task = task
        growth = model.replay_samples() / self._samples if self._samples else 1.0
        others = max(0, len(self._shown.train_indices(task)) - self._images)
        seconds = {name: growth * seconds for name, seconds in self._prepared.items()}
        for name, spent in self._ended.items():
            seconds[name] = seconds.get(name, 0.0) + spent + (PASSES * others * self.per_image) * (name == STATISTICS)
        if model.n_epochs():
            seconds["training"] = self._step * model.n_epochs() * model.steps_per_epoch()
        return seconds


def _seconds_of_step(model: ContinualModel, shown: ContinualDataset, host: TrialHost, most: float) -> float:
    """Return the seconds of a step of training, with its images, in the middle of a task.

    Steps are taken for ``most`` seconds, but no fewer and no more than a few.
    """
    epoch, times = model.n_epochs() // 2, [host.now()]
    model.begin_epoch(epoch, shown)
    model.set_modes()
    while len(times) <= MOST_STEPS and (len(times) <= STEPS or times[-1] - times[0] < most):
        for inputs, labels, raw in model.train_batches(epoch):
            with model.arithmetic():
                model.observe(inputs, labels, raw, epoch=epoch, step=len(times) - 1)
            times.append(host.now())
            if len(times) > STEPS and times[-1] - times[0] >= most:
                break
    return statistics.median(after - before for before, after in itertools.pairwise(times[1:]))


@torch.no_grad()
def _seconds_of_evaluation(model: ContinualModel, shown: ContinualDataset) -> float:
    """Return the seconds of an image in the evaluation."""
    model.net.eval()
    inputs, labels = next(iter(shown.plain_batches(0, "test", model.EVALUATION_BATCH)))
    began = time.perf_counter()
    model(inputs).argmax(1).cpu()
    return (time.perf_counter() - began) / len(labels)


def _size_mib(state: Any) -> float:
    """Return the size of a state in a checkpoint."""
    held = io.BytesIO()
    torch.save(state, held)
    return held.tell() / 2**20
