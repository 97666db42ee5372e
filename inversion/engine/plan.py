"""The plan of an inversion: its batches and stages, and how each stage begins."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property, partial

import torch
from torch import Tensor
from torch.nn import functional as F

from pmi_cl.inversion.engine.descent import Descent
from pmi_cl.inversion.engine.diagnosis import where_not_finite
from pmi_cl.inversion.engine.problem import Problem
from pmi_cl.inversion.engine.stages import InversionStage, StageRun
from pmi_cl.inversion.networks.operations import input_shapes, layer_costs
from pmi_cl.inversion.objectives import Objective
from pmi_cl.inversion.parts.image_space import ImageSpace, Spectrum
from pmi_cl.inversion.starts import PmiStart, matched_noise
from pmi_cl.inversion.ways.full_model import FullLoss
from pmi_cl.inversion.ways.pmi import Boost, LayerLoss
from pmi_cl.inversion.ways.sparse import Pruning
from pmi_cl.seeding import seeded

BOOST = 10.0  # the highest weight that a term of the full-model stage is raised to, as in the released code


def even_batches(n: int, most: int) -> list[slice]:
    """Split ``n`` samples into batches of at most ``most``, equal to within one.

    A small last batch would have noisy statistics.
    """
    return even_parts(n, -(-n // most))


def even_parts(n: int, parts: int) -> list[slice]:
    """Split ``n`` samples into so many parts, equal to within one."""
    return [slice(number * n // parts, (number + 1) * n // parts) for number in range(parts)]


class Plan:
    """The batches and stages of a problem, and how each stage begins. It does not change.

    Attributes:
        problem: which is solved.
        network: of the problem.
        config: of the problem.
        targets: (n, d), on the device of the network.
        labels: (n,), likewise, int64.
        contexts: (n, dq), likewise.
        batches: the rows of each batch: of PMI where there is one, else of the full-model stage.
        parts: in how many parts the full-model stage takes a batch.
        start: where each batch starts.
        space: in which images are optimised.
        priors: the moments of the input of every piece, as far as the start looks at them.
        shapes: of the input of every piece, without the batch.
        costs: of a step of every piece, in full-model steps.
        stages: of every batch, in order.
    """

    def __init__(self, problem: Problem) -> None:
        """
        Args:
            problem: which is solved.

        Raises:
            ValueError: the start needs moments that the network does not have.
        """
        self.problem, self.network, self.config = problem, problem.network, problem.config
        config, network, device = problem.config, problem.network, problem.network.device
        self.start = config.new_start()
        self.targets, self.labels, self.contexts = (
            None if given is None else given.to(device) for given in (problem.targets, problem.labels, problem.contexts)
        )
        self.labels = None if self.labels is None else self.labels.long()  # cross-entropy takes no int32
        most = config.batch if not isinstance(self.start, PmiStart) else max(config.batch, config.pmi.batch or 0)
        self.batches = even_batches(problem.n, most)
        self.parts = -(-max(rows.stop - rows.start for rows in self.batches) // config.batch)
        spectrum = Spectrum.of(*problem.image_shape[1:], config.spectrum) if config.spectrum else None
        self.space = ImageSpace(problem.colour, spectrum).to(device)
        self.priors = self.start.priors(network)
        sample = None if self.contexts is None else self.contexts[:1]
        self.shapes = input_shapes(network, torch.zeros(1, *problem.image_shape, device=device), sample)
        self.costs = layer_costs(network, self.shapes, sample)
        layers = [
            InversionStage(layer, self.start.steps(layer), self.costs[layer])
            for layer in self.start.layers(len(self.shapes))
        ]
        self.stages = [*layers, *(InversionStage(None, config.steps, 1.0, part) for part in range(self.parts))]
        self._forward = torch.compile(network.forward) if config.compiled else network.forward

    @cached_property
    def work(self) -> list[list[float]]:
        """For each batch, the work of each stage: full-model steps, by the part of all samples."""
        return [
            [stage.steps * stage.cost * self.share(stage, batch) for stage in self.stages]
            for batch in range(len(self.batches))
        ]

    def share(self, stage: InversionStage, batch: int) -> float:
        """Return the part of all samples that a stage of a batch takes."""
        part = self.part(stage, batch)
        return (part.stop - part.start) / self.problem.n

    def part(self, stage: InversionStage, batch: int) -> slice:
        """Return which samples of a batch a stage takes, counted within the batch."""
        return even_parts(self._size(batch), self.parts if stage.layer is None else 1)[stage.part]

    def begin(self, stage: InversionStage, batch: int, carry: Tensor | None) -> StageRun:
        """Begin a stage.

        Args:
            stage: which.
            batch: the number of the batch.
            carry: what the stage before it gave; None for the first stage.
        """
        if stage.layer is None:
            return self._begin_full(stage, batch, carry)
        return self._begin_layer(stage.layer, stage.steps, batch, carry)

    def _begin_full(self, stage: InversionStage, batch: int, carry: Tensor | None) -> StageRun:
        """Begin the descent of images of the batch through the whole network."""
        config, part = self.config, self.part(stage, batch)
        loss = self._full_loss(batch, stage.part, part)
        descent = Descent(
            self.first_coordinates(batch)[part] if carry is None else self.space.coordinates(carry[part]),
            config.steps,
            config.full_rate,
            beta2=config.beta2,
            keep_best=config.keep_best,
            locate=partial(where_not_finite, self.network, lambda trace: replace(loss, through=trace)),
        )
        return StageRun(descent, loss)

    def _full_loss(self, batch: int, number: int, part: slice) -> FullLoss:
        targets, labels, context = (
            None if given is None else given[self.batches[batch]][part]
            for given in (self.targets, self.labels, self.contexts)
        )
        pruning, terms = self.config.pruning, self.config.terms
        return FullLoss(
            through=self._forward,
            classify=self.network.head,
            objective=Objective(terms),
            space=self.space,
            transforms=self.config.transforms,
            seed=self.problem.seed,
            batch=batch * self.parts + number,
            targets=targets,
            labels=labels,
            context=context,
            pruning=None if pruning is None else Pruning(self.network, pruning, context),
            boost=Boost((BOOST,) * len(terms), self.network.device) if self.config.boost else None,
        )

    def first_coordinates(self, batch: int) -> Tensor:
        """Return where the full-model stage begins if no stage comes before it."""
        shape = (self._size(batch), *self.shapes[0])
        drawn = self.start.draw(shape, self.priors[0], seeded(self.problem.seed, "start", batch, -1))
        return self._laid_out(
            self.space.coordinates(drawn) if self.start.draws_images else self.space.of_channels(drawn)
        )

    def _begin_layer(self, layer: int, steps: int, batch: int, carry: Tensor | None) -> StageRun:
        """Begin the descent of the input of one piece."""
        pmi = self.config.pmi
        descent = Descent(
            self._first_input(layer, batch),
            steps,
            lambda _: pmi.lr,
            keep_best=layer > 0 or not pmi.last_at_lowest,
            name=f"layer {layer} of {len(self.shapes)}, counted from 0,",
        )
        target, context = self._first_target(batch) if carry is None else carry, self._rows(self.contexts, batch)
        return StageRun(descent, LayerLoss(self.network, layer, target, self.priors[layer], pmi, context))

    def _first_input(self, layer: int, batch: int) -> Tensor:
        """Return where the stage of a layer begins: at the moments of its input over real data."""
        shape = (self._size(batch), *self.shapes[layer])
        moments = self.priors[layer] if layer > 0 or self.network.input_prior else None
        generator = seeded(self.problem.seed, "start", batch, layer)
        grid = self.config.pmi.grid_at(layer, 0)
        if grid is None:
            return self._laid_out(self.start.draw(shape, moments, generator))
        # what a coarse grid does not show would stay noise until the last one shows it
        cells = self.start.draw((*shape[:2], grid, grid), moments, generator)
        return self._laid_out(F.interpolate(cells, size=shape[2:]))

    def _first_target(self, batch: int) -> Tensor:
        """Return the target of the first piece: the sampled features, or random values."""
        if self.start.random_target:
            above, generator = self.priors[1], seeded(self.problem.seed, "stem", batch)
            assert above is not None
            return matched_noise((self._size(batch), *self.shapes[1]), above, generator).to(self.network.device)
        targets = self._rows(self.targets, batch)
        assert targets is not None
        return targets

    def _laid_out(self, start: Tensor) -> Tensor:
        start = start.to(self.network.device)
        return start.contiguous(memory_format=torch.channels_last) if start.dim() == 4 else start

    def _rows(self, values: Tensor | None, batch: int) -> Tensor | None:
        return None if values is None else values[self.batches[batch]]

    def _size(self, batch: int) -> int:
        return self.batches[batch].stop - self.batches[batch].start
