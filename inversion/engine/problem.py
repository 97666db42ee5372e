"""What is to be inverted, through which network, and how each stage of it begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.engine.checks import check_given, check_network
from pmi_cl.inversion.engine.cost import input_shapes, layer_costs
from pmi_cl.inversion.engine.descent import Descent
from pmi_cl.inversion.engine.diagnosis import where_not_finite
from pmi_cl.inversion.engine.stages import InversionStage, StageRun
from pmi_cl.inversion.features.statistics import Moments
from pmi_cl.inversion.networks.frozen import FrozenNetwork
from pmi_cl.inversion.networks.pieces import device_of
from pmi_cl.inversion.networks.token_network import Invertible, TokenNetwork
from pmi_cl.inversion.objectives import Objective
from pmi_cl.inversion.parts.colour import Colour
from pmi_cl.inversion.parts.image_space import ImageSpace
from pmi_cl.inversion.parts.spectrum import Spectrum
from pmi_cl.inversion.starts import matched_noise
from pmi_cl.inversion.ways.full_model import FullLoss
from pmi_cl.inversion.ways.pmi import LayerLoss
from pmi_cl.inversion.ways.sparse import Pruning
from pmi_cl.seeding import seeded


def even_batches(n: int, most: int) -> list[slice]:
    """``n`` samples in batches of at most ``most`` that are even to within one, so that none has noisy statistics."""
    batches = -(-n // most)
    return [slice(number * n // batches, (number + 1) * n // batches) for number in range(batches)]


def frozen_network(
    pieces: Sequence[nn.Module] | TokenNetwork, head: nn.Module | None, config: InversionConfig
) -> Invertible:
    """A frozen copy of ``pieces`` and ``head`` on the pieces' device, or the network itself where it comes frozen."""
    if isinstance(pieces, TokenNetwork):
        return pieces
    device = device_of(pieces)
    return FrozenNetwork(pieces, head, direction=config.direction, dtype=config.precision, device=device)


class Problem:
    """The samples to invert, in batches, with the frozen network and the stages of each batch. It does not change while they are taken.

    Attributes:
        n: how many samples there are.
        batches: the rows of each.
        network: frozen.
        start: where each batch starts.
        space: in which images are optimised.
        priors: the moments of every piece's input, as far as the start looks at them.
        shapes: of every piece's input, without the batch.
        costs: of a step of every piece, in full-model steps.
        stages: of every batch, in order.
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
        """See :class:`pmi_cl.inversion.engine.engine.Inversion`."""
        check_given(config, targets, labels, contexts)
        self.config, self.seed, self.start = config, seed, config.new_start()
        self.network = frozen_network(pieces, head, config)
        check_network(self.network, config, contexts)
        self.device = device = next(self.network.parameters()).device
        self.targets, self.labels, self.contexts = (
            None if given is None else given.to(device) for given in (targets, labels, contexts)
        )
        self.labels = None if self.labels is None else self.labels.long()  # cross-entropy takes no int32
        self.n = len(labels if targets is None else targets)  # type: ignore[arg-type]
        self.batches = even_batches(self.n, config.batch)
        self.space = ImageSpace(colour, Spectrum.of(*image_shape[1:], config.spectrum) if config.spectrum else None).to(
            device
        )
        if isinstance(pieces, TokenNetwork):
            self.priors = self.start.stored_priors(pieces.input_moments)
        else:
            self.priors = self.start.measured_priors(pieces, input_moments)
        sample = None if self.contexts is None else self.contexts[:1]
        self.shapes = input_shapes(self.network, torch.zeros(1, *image_shape, device=device), sample)
        self.costs = layer_costs(self.network, self.shapes, sample)
        layers = [
            InversionStage(layer, self.start.steps(layer), self.costs[layer])
            for layer in self.start.layers(len(self.shapes))
        ]
        self.stages = [*layers, InversionStage(None, config.steps, 1.0)]
        self._forward = torch.compile(self.network.forward) if config.compiled else self.network.forward

    def share(self, batch: int) -> float:
        """The part of all samples that are in a batch."""
        return self._size(batch) / self.n

    def begin(self, stage: InversionStage, batch: int, carry: Tensor | None) -> StageRun:
        """A stage of batch number ``batch``; ``carry`` is what the stage before it handed down, if there was one."""
        if stage.layer is None:
            return self._begin_full(batch, carry)
        return self._begin_layer(stage.layer, stage.steps, batch, carry)

    def _begin_full(self, batch: int, carry: Tensor | None) -> StageRun:
        """The descent of the batch's images through the whole network."""
        config, loss = self.config, self._full_loss(batch)
        descent = Descent(
            self.first_coordinates(batch) if carry is None else self.space.coordinates(carry),
            config.steps,
            config.full_rate,
            beta2=config.beta2,
            keep_best=config.keep_best,
            locate=partial(where_not_finite, self.network, lambda trace: replace(loss, through=trace)),
        )
        return StageRun(descent, loss)

    def _full_loss(self, batch: int) -> FullLoss:
        context, pruning = self._rows(self.contexts, batch), None
        if self.config.pruning is not None:
            assert isinstance(self.network, TokenNetwork)
            pruning = Pruning(self.network, self.config.pruning, context)
        return FullLoss(
            through=self._forward,
            classify=self.network.head,
            objective=Objective(self.config.terms),
            space=self.space,
            transforms=self.config.transforms,
            seed=self.seed,
            batch=batch,
            targets=self._rows(self.targets, batch),
            labels=self._rows(self.labels, batch),
            context=context,
            pruning=pruning,
        )

    def first_coordinates(self, batch: int) -> Tensor:
        """Where the full-model stage begins if no stage is before it."""
        shape = (self._size(batch), *self.shapes[0])
        drawn = self.start.draw(shape, self.priors[0], seeded(self.seed, "start", batch, -1))
        return self._laid_out(
            self.space.coordinates(drawn) if self.start.draws_images else self.space.of_channels(drawn)
        )

    def _begin_layer(self, layer: int, steps: int, batch: int, carry: Tensor | None) -> StageRun:
        """The descent of one piece's input."""
        pmi = self.config.pmi
        descent = Descent(
            self._first_input(layer, batch),
            steps,
            lambda _: pmi.lr,
            keep_best=layer > 0 or not pmi.last_at_lowest,
            name=f"layer {layer} of {len(self.shapes)}, counted from 0,",
        )
        target = self._first_target(batch) if carry is None else carry
        return StageRun(
            descent, LayerLoss(self.network, layer, target, self.priors[layer], pmi, self._rows(self.contexts, batch))
        )

    def _first_input(self, layer: int, batch: int) -> Tensor:
        """Where the stage of a layer begins: at the moments that its input has over real data."""
        shape = (self._size(batch), *self.shapes[layer])
        moments = self.priors[layer] if layer > 0 or self.network.input_prior else None
        generator = seeded(self.seed, "start", batch, layer)
        grid = self.config.pmi.grid_at(layer, 0)
        if grid is None:
            return self._laid_out(self.start.draw(shape, moments, generator))
        # what a coarse grid does not show would stay noise until the last one shows it
        cells = self.start.draw((*shape[:2], grid, grid), moments, generator)
        return self._laid_out(F.interpolate(cells, size=shape[2:]))

    def _first_target(self, batch: int) -> Tensor:
        """What the output of the first piece to be inverted should be: the sampled features, or random values."""
        if self.start.random_target:
            above = self.priors[1]
            assert above is not None
            return matched_noise((self._size(batch), *self.shapes[1]), above, seeded(self.seed, "stem", batch)).to(
                self.device
            )
        targets = self._rows(self.targets, batch)
        assert targets is not None
        return targets

    def _laid_out(self, start: Tensor) -> Tensor:
        start = start.to(self.device)
        return start.contiguous(memory_format=torch.channels_last) if start.dim() == 4 else start

    def _rows(self, values: Tensor | None, batch: int) -> Tensor | None:
        return None if values is None else values[self.batches[batch]]

    def _size(self, batch: int) -> int:
        return self.batches[batch].stop - self.batches[batch].start
