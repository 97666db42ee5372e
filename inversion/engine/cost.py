"""What an inversion cost: step-equivalents, passes, seconds and memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pmi_cl.inversion.networks.token_network import Invertible


@dataclass
class InversionReport:
    """The bill of an inversion.

    Attributes:
        images: images finished.
        steps: optimisation steps on a whole batch, of whatever part of the network.
        forward_passes: passes forward through that part, one a step, and those that decide which patches are dropped.
        backward_passes: passes backward through that part, one a step.
        step_equivalents: the same work in full-model steps (one forward and one backward to the input of the whole network), counted in
            floating-point operations and averaged over the images.
        seconds: spent inside the engine, on its device.
        peak_memory_mib: highest memory while the inversion ran (:class:`pmi_cl.machine.memory.MemoryGauge`):
            of torch on a CUDA device, else of the process. None before the first stage has ended.
        losses: one entry a stage and batch: {"batch", "stage", "losses": (steps,)}.
    """

    images: int = 0
    steps: int = 0
    forward_passes: int = 0
    backward_passes: int = 0
    step_equivalents: float = 0.0
    seconds: float = 0.0
    peak_memory_mib: float | None = None
    losses: list[dict[str, Any]] = field(default_factory=list)

    def add_step(self, step_equivalents: float, forward_passes: int = 1) -> None:
        """One more step, with one backward pass."""
        self.steps += 1
        self.forward_passes += forward_passes
        self.backward_passes += 1
        self.step_equivalents += step_equivalents

    @property
    def seconds_per_image(self) -> float:
        """Seconds over images; 0 before the first."""
        return self.seconds / self.images if self.images else 0.0

    def __add__(self, other: InversionReport) -> InversionReport:
        """The bill of both: sums, and the higher of the memory peaks. The loss curves are left out."""
        peaks = [report.peak_memory_mib for report in (self, other) if report.peak_memory_mib is not None]
        return InversionReport(
            self.images + other.images,
            self.steps + other.steps,
            self.forward_passes + other.forward_passes,
            self.backward_passes + other.backward_passes,
            self.step_equivalents + other.step_equivalents,
            self.seconds + other.seconds,
            max(peaks, default=None),
        )

    @classmethod
    def from_summary(cls, summary: dict[str, Any]) -> InversionReport:
        """The inverse of :meth:`summary`."""
        return cls(**{name: value for name, value in summary.items() if name != "seconds_per_image"})

    def summary(self) -> dict[str, Any]:
        """Everything but the loss curves, for a run record."""
        figures = {name: value for name, value in asdict(self).items() if name != "losses"}
        return {**figures, "seconds_per_image": self.seconds_per_image}


def operations(call: Callable[[], object]) -> int:
    """The floating-point operations of a call, by torch's own counter."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


@torch.no_grad()
def input_shapes(network: Invertible, example: Tensor, context: Tensor | None = None) -> list[tuple[int, ...]]:
    """The shape (without the batch) of every piece's input, for an example (b, ...) of the lowest one's."""
    shapes, value = [], example
    for layer in range(len(network.pieces)):
        shapes.append(tuple(value.shape[1:]))
        value = network.run(value, layer, layer + 1, context)[0]
    return shapes


def layer_costs(network: Invertible, shapes: list[tuple[int, ...]], context: Tensor | None = None) -> list[float]:
    """The cost of one forward and backward to the input of each piece, as a fraction of the whole network's.

    Counted on one sample of zeros. ``shapes`` from :func:`input_shapes`; ``context``: of one sample.
    """
    device = next(network.parameters()).device

    def step(first: int, last: int) -> Callable[[], None]:
        value = torch.zeros(1, *shapes[first], device=device, requires_grad=True)
        return lambda: network.run(value, first, last, context)[0].sum().backward()

    whole = operations(step(0, len(shapes)))
    return [operations(step(layer, layer + 1)) / whole for layer in range(len(shapes))]
