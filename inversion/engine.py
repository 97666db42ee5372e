"""Inverts a network: from target features (or labels) to images that give them, batch by batch, stage by stage, resumable at every step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.inversion.colour import Colour
from pmi_cl.inversion.config import InversionConfig, rate_at
from pmi_cl.inversion.cost import InversionReport, input_shapes, layer_costs
from pmi_cl.inversion.descent import Descent
from pmi_cl.inversion.diagnosis import where_not_finite
from pmi_cl.inversion.frozen import FrozenNetwork
from pmi_cl.inversion.image_space import ImageSpace
from pmi_cl.inversion.objectives import Batch, DirectionMatch, FeatureMatch, Objective
from pmi_cl.inversion.pmi import LayerLoss, bn_affine_moments, seen_at
from pmi_cl.inversion.sparse import Pruning, check_pruning
from pmi_cl.inversion.spectrum import Spectrum
from pmi_cl.inversion.starts import STARTS, low_frequency_noise, matched_noise, white_noise
from pmi_cl.inversion.statistics import Moments
from pmi_cl.inversion.stopwatch import Stopwatch
from pmi_cl.inversion.token_network import Invertible, TokenNetwork
from pmi_cl.memory import MemoryGauge
from pmi_cl.seeding import seeded


@dataclass(frozen=True)
class Progress:
    """One step that was taken: of stage ``stage`` ("full model", "layer 3"), with its loss (0-dim, on the device)."""

    stage: str
    done: int
    total: int
    loss: Tensor


@dataclass(frozen=True)
class Stage:
    """One descent of every batch: through piece ``layer`` alone, or (None) the whole network. ``cost``: of a step, in full-model steps."""

    layer: int | None
    steps: int
    cost: float

    @property
    def name(self) -> str:
        """For people: "layer 3", "full model"."""
        return "full model" if self.layer is None else f"layer {self.layer}"


def even_batches(n: int, most: int) -> list[slice]:
    """``n`` samples in batches of at most ``most`` that are even to within one, so that none has noisy statistics."""
    batches = -(-n // most)
    return [slice(number * n // batches, (number + 1) * n // batches) for number in range(batches)]


def check_ready(network: TokenNetwork, config: InversionConfig) -> None:
    """Raises ValueError where the settings ask for another precision or direction than the network was made with."""
    if config.precision != network.dtype:
        raise ValueError(f"the configuration's precision is {config.precision}, the TokenNetwork's {network.dtype}: give both the same")
    if config.direction != network.direction:
        raise ValueError(f"the configuration's direction is {config.direction}, the TokenNetwork's {network.direction}: give both the same")


class Inversion:
    """Inverts ``targets`` and ``labels`` in batches. Iterate over :meth:`run`; stop whenever you like; :meth:`state` goes on exactly.

    Each batch is a list of stages: the pieces from the top to the bottom (start ``pmi``) or the lowest alone (``stem``), then the whole
    network. A stage is a :class:`Descent`; the last one runs in an :class:`ImageSpace`. All random numbers depend on (seed, batch, stage,
    step) alone.

    The network is made of ``pieces`` and frozen here, unless it comes ready as a :class:`TokenNetwork`, which brings its own statistics
    and whose precision and direction are those of ``config``. ``contexts`` (n, dq) go with the targets into its pieces.
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
        if targets is None and labels is None:
            raise ValueError("invert() needs targets (n, d) or labels (n,)")
        if targets is not None and labels is not None and len(targets) != len(labels):
            raise ValueError(f"{len(targets)} targets but {len(labels)} labels: give one label for each target")
        if targets is None and any(isinstance(term, FeatureMatch | DirectionMatch) for term in config.terms):
            raise ValueError("FeatureMatch and DirectionMatch need targets (n, d): give them, or choose terms without")
        if labels is not None and (len(labels) == 0 or int(labels.min()) < 0):
            raise ValueError("labels must be one or more class numbers from 0")
        if config.start not in STARTS and not callable(config.start):
            raise ValueError(f"unknown start '{config.start}': choose from {', '.join(STARTS)}")
        if isinstance(pieces, TokenNetwork):
            check_ready(pieces, config)
        self.config, self.seed = config, seed
        spectrum = Spectrum.of(*image_shape[1:], config.spectrum) if config.spectrum else None
        self.space = ImageSpace(colour, spectrum)
        self.network: Invertible = (
            pieces
            if isinstance(pieces, TokenNetwork)
            else FrozenNetwork(pieces, head, direction=config.direction, dtype=config.precision, device=next(pieces[0].parameters()).device)
        )
        self.device = device = next(self.network.parameters()).device
        self.targets = None if targets is None else targets.to(device)
        self.labels = None if labels is None else labels.to(device)
        self.contexts = None if contexts is None else contexts.to(device)
        self.n = len(targets) if targets is not None else len(labels)  # type: ignore[arg-type]
        if contexts is not None and len(contexts) != self.n:
            raise ValueError(f"{self.n} targets but {len(contexts)} contexts: give one context for each target")
        if contexts is not None and not self.network.takes_context:
            raise ValueError("the pieces of this network take no context: leave contexts out")
        if config.pruning is not None:
            check_pruning(self.network, config)
        self._batches = even_batches(self.n, config.batch)
        self.input_moments = self._priors(pieces, input_moments)
        sample = None if self.contexts is None else self.contexts[:1]
        self.shapes = input_shapes(self.network, torch.zeros(1, *image_shape, device=device), sample)
        self.costs = layer_costs(self.network, self.shapes, sample)
        self.stages = self._plan()
        self.objective = Objective(config.terms)
        self._pass = torch.compile(self.network.forward) if config.compiled else self.network.forward
        self.report = InversionReport()
        self._watch, self._gauge = Stopwatch(device), MemoryGauge(device)
        self.batch_number, self.stage_number = 0, 0
        self.carry: Tensor | None = None  # what the stage before handed down
        self.descent: Descent | None = None
        self._layer_loss: LayerLoss | None = None
        self.pruning: Pruning | None = None
        self._losses: list[Tensor] = []
        self.finished: list[Tensor] = []
        self.survivors: list[Tensor] = []  # of each finished batch, the patches that pruning has left

    def _priors(self, pieces: Sequence[nn.Module] | TokenNetwork, measured: Sequence[Moments] | None) -> list[Moments | None]:
        """The moments of every piece's input; refuses a start that needs what is not there."""
        if isinstance(pieces, TokenNetwork):
            return self._own_priors(pieces)
        if self.config.start in ("noise", "lowfreq") or callable(self.config.start):
            return [None] * len(pieces)
        if self.config.start == "pmi" and self.config.pmi.prior == "bn_affine":
            first = measured[0] if measured else None
            return [first, *[bn_affine_moments(piece) for piece in pieces[:-1]]]
        if measured is None or len(measured) != len(pieces):
            needed = f"input_moments, one for each of the {len(pieces)} pieces (measure_input_moments)"
            raise ValueError(f"start '{self.config.start}' needs {needed}")
        if self.config.start == "stem" and len(pieces) == 1:
            raise ValueError("start 'stem' needs a network of two pieces or more")
        return list(measured)

    def _own_priors(self, network: TokenNetwork) -> list[Moments | None]:
        """The same for a network that brings them; without any, PMI starts from white noise and matches features alone."""
        needed = {"stats": 0, "stem": 1}.get(str(self.config.start))
        if needed is not None and network.input_moments[needed] is None:
            raise ValueError(f"start '{self.config.start}' needs a network with statistics (measure_token_moments)")
        needless = self.config.start in ("noise", "lowfreq") or callable(self.config.start)
        return [None] * len(network.pieces) if needless else network.input_moments

    def _plan(self) -> list[Stage]:
        """The stages of a batch in order."""
        layers = {"pmi": list(range(len(self.shapes) - 1, -1, -1)), "stem": [0]}.get(str(self.config.start), [])
        steps = self.config.pmi.steps_of if self.config.start == "pmi" else lambda _: self.config.stem_steps
        return [*(Stage(layer, steps(layer), self.costs[layer]) for layer in layers), Stage(None, self.config.steps, 1.0)]

    @property
    def total_steps(self) -> int:
        """Steps of all stages of all batches."""
        return sum(stage.steps for stage in self.stages) * len(self._batches)

    @property
    def _rows(self) -> slice:
        """The samples of the batch at hand."""
        return self._batches[self.batch_number]

    def run(self) -> Iterator[Progress]:
        """Take every step that is left, one at a time."""
        while self.batch_number < len(self._batches):
            while self.stage_number < len(self.stages):
                yield from self._run_stage(self.stages[self.stage_number])
                self._end_stage()
            assert self.carry is not None
            self.finished.append(self.carry)
            self.report.images += len(self.carry)
            self.batch_number, self.stage_number, self.carry = self.batch_number + 1, 0, None

    def _run_stage(self, stage: Stage) -> Iterator[Progress]:
        """One descent; the time between two steps that the caller takes is not counted."""
        self._watch.start()
        descent = self._descent(stage)
        rows = self._rows
        share = (rows.stop - rows.start) / self.n
        loss_of = self._full_loss(rows) if stage.layer is None else self._layer_step(stage.layer)
        for loss in descent.run(loss_of):
            report = self.report
            report.steps += 1
            report.forward_passes += 1 if self.pruning is None else self.pruning.passes
            report.backward_passes += 1
            report.step_equivalents += (stage.cost if self.pruning is None else self.pruning.cost) * share
            self._losses.append(loss)
            self._watch.stop()
            report.seconds += self._watch.take(wait=False)
            yield Progress(stage.name, min(report.steps, self.total_steps), self.total_steps, loss)
            self._watch.start()
        losses = torch.stack(self._losses).cpu() if self._losses else torch.zeros(0)
        self._watch.stop()
        self.report.seconds += self._watch.take()
        self.report.losses.append({"batch": self.batch_number, "stage": stage.name, "losses": losses})

    def _end_stage(self) -> None:
        assert self.descent is not None
        self.carry, stage = self.descent.result(), self.stages[self.stage_number]
        if stage.layer is None:
            self.carry = self.space.images(self.carry)
        elif stage.layer == 0 and self.config.start == "pmi":
            self.carry = seen_at(self.carry, self.config.pmi.grid_at(0, stage.steps - 1))
        if self.pruning is not None:
            self.carry = self.pruning.composed(self.carry)
            self.survivors += [] if self.pruning.kept is None else [self.pruning.kept]
        self.descent, self._layer_loss, self.pruning, self._losses = None, None, None, []
        self.stage_number += 1
        self.report.peak_memory_mib = max(self.report.peak_memory_mib or 0.0, self._gauge.peak_mib())

    def _descent(self, stage: Stage) -> Descent:
        """The descent of the stage at hand: the one that is under way, or a new one from its start."""
        config = self.config
        if self.descent is None:
            start, steps = self._start(stage.layer), stage.steps
            if stage.layer is None:
                if config.pruning is not None:
                    assert isinstance(self.network, TokenNetwork)
                    self.pruning = Pruning(self.network, config.pruning, self._context())
                self.descent = Descent(
                    start,
                    steps,
                    lambda k: rate_at(config.schedule, config.lr, k, config.schedule_steps or steps),
                    beta2=config.beta2,
                    keep_best=config.keep_best,
                    locate=partial(where_not_finite, self.network, partial(self._full_loss, self._rows)),
                )
            else:
                name = f"{stage.name} of {len(self.shapes)}, counted from 0,"
                best = not (config.pmi.last_at_lowest and stage.layer == 0)
                self.descent = Descent(start, steps, lambda _: config.pmi.lr, keep_best=best, name=name)
        return self.descent

    def _start(self, layer: int | None) -> Tensor:
        """Where a stage begins: in PMI at the stored moments of the layer's input, in the full stage where the stages before ended."""
        if layer is None and self.carry is not None:
            return self.space.coordinates(self.carry)
        rows = self._rows
        shape = (rows.stop - rows.start, *self.shapes[layer or 0])
        generator = seeded(self.seed, "start", self.batch_number, -1 if layer is None else layer)
        moments = self.input_moments[layer or 0]
        grid = None if layer is None else self.config.pmi.grid_at(layer, 0)
        if grid is not None:  # what a coarse grid does not show would stay noise until the last one shows it
            shape, side = (*shape[:2], grid, grid), shape[2:]
        if callable(self.config.start):
            start = self.config.start(tuple(shape), generator)
        elif self.config.start == "lowfreq":
            start = low_frequency_noise(shape, generator)
        elif moments is None or (layer == 0 and not self.network.input_prior):
            start = white_noise(shape, generator)
        else:
            start = matched_noise(shape, moments, generator)
            if layer is None:  # the moments are those of images
                return self._laid_out(self.space.coordinates(start))
        start = F.interpolate(start, size=side) if grid is not None else start
        return self._laid_out(self.space.of_channels(start) if layer is None else start)

    def _laid_out(self, start: Tensor) -> Tensor:
        start = start.to(self.device)
        return start.contiguous(memory_format=torch.channels_last) if start.dim() == 4 else start

    def _layer_step(self, layer: int) -> Callable[[Tensor, int], Tensor]:
        if self._layer_loss is None:
            prior, context = self.input_moments[layer], self._context()
            self._layer_loss = LayerLoss(self.network, layer, self._layer_target(), prior, self.config.pmi, context)
        return self._layer_loss

    def _context(self) -> Tensor | None:
        """Of the batch at hand."""
        return None if self.contexts is None else self.contexts[self._rows]

    def _layer_target(self) -> Tensor:
        """What the piece's output should be: what the piece above was inverted to, the sampled feature, or (``stem``) random values."""
        if self.carry is not None:
            return self.carry
        rows = self._rows
        if self.config.start == "stem":
            above = self.input_moments[1]
            assert above is not None
            shape = (rows.stop - rows.start, *self.shapes[1])
            return matched_noise(shape, above, seeded(self.seed, "stem", self.batch_number)).to(self.device)
        if self.targets is None:
            raise ValueError("PMI inverts target features: give targets, not labels alone")
        return self.targets[rows]

    def _full_loss(self, rows: slice, through: Callable[..., tuple[Tensor, list[Tensor]]] | None = None) -> Callable[[Tensor, int], Tensor]:
        """The loss of the images of ``rows``; ``through``: what maps them to features and KLs, where it is not the network."""
        through = through or self._pass
        targets = None if self.targets is None else self.targets[rows]
        labels = None if self.labels is None else self.labels[rows]
        rest = {} if self.contexts is None else {"context": self._context()}

        def loss(value: Tensor, step: int) -> Tensor:
            images = self.space.images(value)
            if self.pruning is not None:
                images = self.pruning.at(images, step)
                rest["kept"] = self.pruning.kept
            seen = self.config.transforms(images, self.seed, self.batch_number, step) if self.config.transforms else images
            features, kls = through(seen, **rest)
            return self.objective(Batch(images, features, kls, targets, labels, self.network.head))

        return loss

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
            "descent": None if self.descent is None else self.descent.state(),
            "boost": self._layer_loss.boost.state() if self._layer_loss and self._layer_loss.boost else {},
            "pruning": None if self.pruning is None else self.pruning.state(),
            "losses": torch.stack(self._losses) if self._losses else torch.zeros(0),
            "finished": list(self.finished),
            "survivors": list(self.survivors),
            "report": {**self.report.__dict__, "losses": list(self.report.losses)},
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state` was taken."""
        self.batch_number, self.stage_number = state["batch"], state["stage"]
        self.carry = None if state["carry"] is None else state["carry"].to(self.device)
        self.finished = [images.to(self.device) for images in state["finished"]]
        self.survivors = [patches.to(self.device) for patches in state["survivors"]]
        self.report = InversionReport(**{**state["report"], "losses": list(state["report"]["losses"])})
        self._losses = list(state["losses"].to(self.device).unbind())
        self.descent, self._layer_loss, self.pruning = None, None, None
        if state["descent"] is None:
            return
        stage = self.stages[self.stage_number]
        self._descent(stage).load(state["descent"])
        if self.pruning is not None:
            self.pruning.load(state["pruning"], self.device)
        if stage.layer is not None and state["boost"]:
            loss = self._layer_step(stage.layer)
            assert isinstance(loss, LayerLoss) and loss.boost is not None
            loss.boost.load(state["boost"])
