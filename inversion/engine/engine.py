"""Inverts a network: from target features or labels to images that give them.

It works batch by batch and stage by stage, and can be resumed at every step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pmi_cl.inversion.engine.cost import InversionReport
from pmi_cl.inversion.engine.descent import Descent
from pmi_cl.inversion.engine.plan import Plan
from pmi_cl.inversion.engine.problem import Problem
from pmi_cl.inversion.engine.stages import NOT_BEGUN, InversionStage, InversionStep, StageRun
from pmi_cl.inversion.engine.stopwatch import Stopwatch
from pmi_cl.inversion.ways.full_model import FullLoss
from pmi_cl.inversion.ways.sparse import Pruning
from pmi_cl.machine.memory import MemoryGauge
from pmi_cl.machine.state_fields import tensor_field, whole_field


class Inversion:
    """Invert the targets and the labels of a problem in batches.

    Iterate over :meth:`run`, and stop at any step. Another inversion of the same problem goes on
    exactly there, once it has loaded the :meth:`state`.

    Each batch has a list of stages: all pieces from top to bottom (start ``pmi``), or the lowest
    alone (``stem``), or none; then the whole network. A stage is a :class:`Descent`; that of the
    whole network is in an :class:`ImageSpace`. Random numbers depend on (seed, batch, stage, step)
    alone.

    Attributes:
        problem: what is inverted, and through what.
        plan: its batches and stages.
        stages: of every batch, in order.
        batch_number: of the current batch, from 0.
        stage_number: of the current stage, from 0.
        carry: what the stage before gave; None in the first.
        report: what the inversion has cost so far.
        finished: the images of every batch that is finished.
        survivors: the patches that pruning has left, of every batch that is finished.
    """

    def __init__(self, problem: Problem) -> None:
        """
        Args:
            problem: what is inverted, and through what.

        Raises:
            ValueError: the start needs moments that the network does not have.
        """
        self.problem, self.plan = problem, Plan(problem)
        self.stages = self.plan.stages
        self.report = InversionReport()
        self.batch_number, self.stage_number = 0, 0
        self.carry: Tensor | None = None
        self.finished: list[Tensor] = []
        self.survivors: list[Tensor] = []
        self._under_way: StageRun | None = None
        device = problem.network.device
        self._watch, self._gauge = Stopwatch(device), MemoryGauge(device)

    @property
    def total_steps(self) -> int:
        """Return the steps of all stages of all batches."""
        return sum(stage.steps for stage in self.stages) * len(self.plan.batches)

    @property
    def descent(self) -> Descent | None:
        """Return the descent of the current stage; None between two stages."""
        return None if self._under_way is None else self._under_way.descent

    @property
    def pruning(self) -> Pruning | None:
        """Return what drops patches in the current stage; None where nothing does."""
        return None if self._under_way is None else self._under_way.pruning

    def run(self) -> Iterator[InversionStep]:
        """Take every step that is left, one at a time."""
        while self.batch_number < len(self.plan.batches):
            while self.stage_number < len(self.stages):
                stage = self.stages[self.stage_number]
                yield from self._run_stage(stage)
                self._end_stage()
            self._end_batch()

    def _run_stage(self, stage: InversionStage) -> Iterator[InversionStep]:
        """Take the steps of one stage. The time of the caller between two steps is not counted."""
        self._watch.start()
        run = self._under_way = self._under_way or self.plan.begin(stage, self.batch_number, self.carry)
        share = self.plan.share(stage, self.batch_number)
        for loss in run.descent.run(run.loss):
            run.losses.append(loss)
            if run.pruning is None:
                self.report.add_step(stage.cost * share)
            else:
                self.report.add_step(run.pruning.cost * share, run.pruning.passes)
            self._watch.stop()
            self.report.seconds += self._watch.take(wait=False)
            yield self._step(stage, run.descent.step, loss)
            self._watch.start()
        losses = run.curve().cpu()
        self._watch.stop()
        self.report.seconds += self._watch.take()
        self.report.losses.append({"batch": self.batch_number, "stage": stage.name, "losses": losses})

    def _end_stage(self) -> None:
        """Keep what the stage ended with for the next one."""
        run = self._under_way
        assert run is not None
        if isinstance(run.loss, FullLoss):
            self.carry = self._with_part(run.loss.images(run.descent.result()))
        else:
            self.carry = self.plan.start.handed_down(run.loss.layer, run.descent.result())
        if run.pruning is not None and run.pruning.kept is not None:
            self.survivors.append(run.pruning.kept)
        self._under_way = None
        self.stage_number += 1
        self.report.peak_memory_mib = max(self.report.peak_memory_mib or 0.0, self._gauge.peak_mib())

    def _with_part(self, images: Tensor) -> Tensor:
        """Return the batch with the images (b, c, h, w) of the part that the stage has taken."""
        if self.carry is None or len(images) == len(self.carry):
            return images
        whole = self.carry.clone()
        whole[self.plan.part(self.stages[self.stage_number], self.batch_number)] = images
        return whole

    def _step(self, stage: InversionStage, number: int, loss: Tensor) -> InversionStep:
        return InversionStep(
            stage=stage.name,
            number=number,
            stage_number=self.stage_number + 1,
            stages=len(self.stages),
            batch=self.batch_number + 1,
            batches=len(self.plan.batches),
            part=self._part_done(number / stage.steps),
            done=min(self.report.steps, self.total_steps),
            total=self.total_steps,
            loss=loss,
            images=self.current_images,
            first_images=self.first_images,
        )

    def _part_done(self, of_stage: float) -> float:
        """Return the part of the work that is done after a part of the current stage."""
        work = self.plan.work
        ended = work[self.batch_number][: self.stage_number]
        current = work[self.batch_number][self.stage_number] * of_stage
        return min(1.0, (sum(map(sum, work[: self.batch_number])) + sum(ended) + current) / sum(map(sum, work)))

    def _end_batch(self) -> None:
        """Keep the images that the last stage ended with."""
        assert self.carry is not None
        self.finished.append(self.carry)
        self.report.images += len(self.carry)
        self.batch_number, self.stage_number, self.carry = self.batch_number + 1, 0, None

    def current_images(self) -> Tensor:
        """Return the images (b, c, h, w) of the current batch as they now are.

        Raises:
            ValueError: the current stage is not that of the full model.
        """
        descent, loss = self._full_stage()
        return loss.images(descent.x.detach())

    def first_images(self) -> Tensor:
        """Return the images (b, c, h, w) that the current stage began with.

        Raises:
            ValueError: the current stage is not that of the full model.
        """
        descent, loss = self._full_stage()
        return loss.images(descent.start)

    def _full_stage(self) -> tuple[Descent, FullLoss]:
        run = self._under_way
        if run is None or not isinstance(run.loss, FullLoss):
            raise ValueError("there are images in the full-model stage alone: ask after one of its steps")
        return run.descent, run.loss

    def images(self) -> Tensor:
        """Return the finished images (n, c, h, w), float32, in the order of the targets.

        Raises:
            RuntimeError: no batch is finished.
        """
        if not self.finished:
            raise RuntimeError("no batch is finished: iterate over run() first")
        return torch.cat(self.finished)

    def kept(self) -> Tensor | None:
        """Return the patches (n, k) that are left of each finished image, in the same order.

        None where none were dropped.
        """
        return torch.cat(self.survivors) if self.survivors else None

    def state(self) -> dict[str, Any]:
        """Return plain data for a checkpoint, which further steps do not touch.

        It goes with the same problem.
        """
        self.report.seconds += self._watch.take()
        return {
            "batch": self.batch_number,
            "stage": self.stage_number,
            "carry": self.carry,
            **(NOT_BEGUN if self._under_way is None else self._under_way.state()),
            "finished": list(self.finished),
            "survivors": list(self.survivors),
            "report": {**self.report.__dict__, "losses": list(self.report.losses)},
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state` was taken."""
        device = self.problem.network.device
        self.batch_number = whole_field(state["batch"], high=len(self.plan.batches))
        self.stage_number = whole_field(state["stage"], high=len(self.stages) - 1)
        self.carry = None if state["carry"] is None else tensor_field(state["carry"], None, ...).to(device)
        shape = (None, *self.problem.image_shape)
        self.finished = [tensor_field(images, *shape).to(device) for images in state["finished"]]
        self.survivors = [tensor_field(rows, None, None, floating=False).to(device) for rows in state["survivors"]]
        losses = [{**entry, "losses": tensor_field(entry["losses"], None)} for entry in state["report"]["losses"]]
        figures = {name: value for name, value in state["report"].items() if name != "losses"}
        self.report = replace(InversionReport.from_summary(figures), losses=losses)
        self._under_way = None
        if state["descent"] is not None:
            self._under_way = self.plan.begin(self.stages[self.stage_number], self.batch_number, self.carry)
            self._under_way.load(state, device)
