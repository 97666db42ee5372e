"""Inverts a network: from target features (or labels) to images that give them, batch by batch, stage by stage, resumable at every step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.engine.cost import InversionReport
from pmi_cl.inversion.engine.descent import Descent
from pmi_cl.inversion.engine.problem import Problem
from pmi_cl.inversion.engine.stages import NOT_BEGUN, InversionStage, InversionStep, StageRun
from pmi_cl.inversion.engine.stopwatch import Stopwatch
from pmi_cl.inversion.features.statistics import Moments
from pmi_cl.inversion.networks.token_network import TokenNetwork
from pmi_cl.inversion.parts.colour import Colour
from pmi_cl.inversion.ways.full_model import FullLoss
from pmi_cl.inversion.ways.sparse import Pruning
from pmi_cl.machine.memory import MemoryGauge


class Inversion:
    """Inverts ``targets`` and ``labels`` in batches. Iterate over :meth:`run`; stop whenever you like; :meth:`state` goes on exactly.

    Each batch is a list of stages: the pieces from the top to the bottom (start ``pmi``) or the lowest alone (``stem``), then the whole
    network. A stage is a :class:`Descent`; the last one runs in an :class:`ImageSpace`. All random numbers depend on (seed, batch, stage,
    step) alone.

    Attributes:
        problem: what is inverted, and through what.
        stages: of every batch, in order.
        batch_number: of the batch at hand, from 0.
        stage_number: of the stage at hand, from 0.
        carry: what the stage before handed down, if there was one.
        report: what it has cost so far.
        finished: the images of every batch that is finished.
        survivors: of those batches, the patches that pruning has left.
    """

    def __init__(
        self,
        pieces: Sequence[nn.Module] | TokenNetwork,
        head: nn.Module | None,
        config: InversionConfig,
        *,
        image_shape: tuple[int, int, int],
        targets: Tensor | None = None,
        labels: Tensor | None = None,
        input_moments: Sequence[Moments] | None = None,
        colour: Colour | None = None,
        contexts: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        """
        Args:
            pieces: of the network, which is frozen here; or a :class:`TokenNetwork`, which is frozen, brings its own statistics and has
                the precision and the direction of ``config``.
            head: features to logits, where labels are wanted; a :class:`TokenNetwork` has none.
            image_shape: (c, h, w) of what is optimised.
            targets: (n, d), the features to invert.
            labels: (n,). Targets, labels or both are given.
            input_moments: of every piece's input, which some starts need.
            colour: optimise in the colour space of real images.
            contexts: (n, dq), which go with the targets into the pieces of a network that takes them.
            seed: of all random numbers.

        Raises:
            ValueError: something is missing, or does not fit the rest.
        """
        self.problem = Problem(
            pieces,
            head,
            config,
            image_shape=image_shape,
            targets=targets,
            labels=labels,
            input_moments=input_moments,
            colour=colour,
            contexts=contexts,
            seed=seed,
        )
        self.stages = self.problem.stages
        self.report = InversionReport()
        self.batch_number, self.stage_number = 0, 0
        self.carry: Tensor | None = None
        self.finished: list[Tensor] = []
        self.survivors: list[Tensor] = []
        self._under_way: StageRun | None = None
        self._watch, self._gauge = Stopwatch(self.problem.device), MemoryGauge(self.problem.device)

    @property
    def total_steps(self) -> int:
        """Steps of all stages of all batches."""
        return sum(stage.steps for stage in self.stages) * len(self.problem.batches)

    @property
    def descent(self) -> Descent | None:
        """The descent of the stage under way, if one is."""
        return None if self._under_way is None else self._under_way.descent

    @property
    def pruning(self) -> Pruning | None:
        """What drops patches in the stage under way, if anything does."""
        return None if self._under_way is None else self._under_way.pruning

    def run(self) -> Iterator[InversionStep]:
        """Take every step that is left, one at a time."""
        while self.batch_number < len(self.problem.batches):
            while self.stage_number < len(self.stages):
                stage = self.stages[self.stage_number]
                yield from self._run_stage(stage)
                self._end_stage()
            self._end_batch()

    def _run_stage(self, stage: InversionStage) -> Iterator[InversionStep]:
        """One descent; the time between two steps that the caller takes is not counted."""
        self._watch.start()
        run = self._under_way = self._under_way or self.problem.begin(stage, self.batch_number, self.carry)
        share = self.problem.share(self.batch_number)
        for loss in run.descent.run(run.loss):
            run.losses.append(loss)
            if run.pruning is None:
                self.report.add_step(stage.cost * share)
            else:
                self.report.add_step(run.pruning.cost * share, run.pruning.passes)
            self._watch.stop()
            self.report.seconds += self._watch.take(wait=False)
            yield self._step(stage.name, run.descent.step, loss)
            self._watch.start()
        losses = run.curve().cpu()
        self._watch.stop()
        self.report.seconds += self._watch.take()
        self.report.losses.append({"batch": self.batch_number, "stage": stage.name, "losses": losses})

    def _end_stage(self) -> None:
        """Hand down what the stage ended with."""
        run = self._under_way
        assert run is not None
        if isinstance(run.loss, FullLoss):
            self.carry = run.loss.images(run.descent.result())
        else:
            self.carry = self.problem.start.handed_down(run.loss.layer, run.descent.result())
        if run.pruning is not None and run.pruning.kept is not None:
            self.survivors.append(run.pruning.kept)
        self._under_way = None
        self.stage_number += 1
        self.report.peak_memory_mib = max(self.report.peak_memory_mib or 0.0, self._gauge.peak_mib())

    def _step(self, stage: str, number: int, loss: Tensor) -> InversionStep:
        done, total = min(self.report.steps, self.total_steps), self.total_steps
        return InversionStep(stage, number, done, total, loss, self.current_images, self.first_images)

    def _end_batch(self) -> None:
        """Put aside the images that the last stage handed down."""
        assert self.carry is not None
        self.finished.append(self.carry)
        self.report.images += len(self.carry)
        self.batch_number, self.stage_number, self.carry = self.batch_number + 1, 0, None

    def current_images(self) -> Tensor:
        """The images (b, c, h, w) of the batch at hand as they now are. Raises ValueError outside of the full-model stage."""
        descent, loss = self._full_stage()
        return loss.images(descent.x.detach())

    def first_images(self) -> Tensor:
        """The images (b, c, h, w) that this stage began with. Raises ValueError outside of the full-model stage."""
        descent, loss = self._full_stage()
        return loss.images(descent.start)

    def _full_stage(self) -> tuple[Descent, FullLoss]:
        run = self._under_way
        if run is None or not isinstance(run.loss, FullLoss):
            raise ValueError("there are images in the full-model stage alone: ask after one of its steps")
        return run.descent, run.loss

    def images(self) -> Tensor:
        """The finished images (n, c, h, w), float32, in the order of the targets."""
        if not self.finished:
            raise RuntimeError("no batch is finished: iterate over run() first")
        return torch.cat(self.finished)

    def kept(self) -> Tensor | None:
        """The patches (n, k) of each finished image that pruning has left, in the same order; None where none were dropped."""
        return torch.cat(self.survivors) if self.survivors else None

    def state(self) -> dict[str, Any]:
        """Plain data for a checkpoint, which further steps do not touch: goes with the same network, targets, configuration and seed."""
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
        device = self.problem.device
        self.batch_number, self.stage_number = state["batch"], state["stage"]
        self.carry = None if state["carry"] is None else state["carry"].to(device)
        self.finished = [images.to(device) for images in state["finished"]]
        self.survivors = [patches.to(device) for patches in state["survivors"]]
        self.report = InversionReport(**{**state["report"], "losses": list(state["report"]["losses"])})
        self._under_way = None
        if state["descent"] is not None:
            self._under_way = self.problem.begin(self.stages[self.stage_number], self.batch_number, self.carry)
            self._under_way.load(state, device)
