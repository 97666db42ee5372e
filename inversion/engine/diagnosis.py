"""Finds the layer in which a value, its statistics or a gradient stops being finite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pmi_cl.inversion.networks.protocol import InvertibleNetwork


class LayerTrace:
    """Compute what a frozen network computes, layer by layer, and keep all of it.

    Attributes:
        inputs: of every piece.
        kls: of the statistics that the network compares at every piece.
        output: of the highest piece; None before the first pass.
    """

    def __init__(self, network: InvertibleNetwork) -> None:
        self.network = network
        self.inputs: list[Tensor] = []
        self.kls: list[list[Tensor]] = []
        self.output: Tensor | None = None

    def __call__(self, x: Tensor, **rest: Any) -> tuple[Tensor, list[Tensor]]:
        """Return the output of the network for ``x`` and all KLs; pieces take ``rest`` too."""
        self.inputs, self.kls = [], []
        for number in range(len(self.network.pieces)):
            self.inputs.append(x)
            x, compared = self.network.layer(number, x, **rest)
            self.kls.append(compared)
        self.output = x
        return x, [kl for compared in self.kls for kl in compared]

    def fault(self, loss: Tensor) -> str | None:
        """Name what stopped being finite first; None where everything is finite.

        The forward pass is searched from bottom to top, then the backward pass of ``loss`` from top
        to bottom.
        """
        assert self.output is not None, "trace an input first"
        values = [*self.inputs, self.output]
        if not _finite(values[:1]):
            return "its input"
        for number, compared in enumerate(self.kls):
            if not _finite([values[number + 1], *compared]):
                return self._named(number)
        if not _finite([loss]):
            return "the objective, above the last layer"
        return self._faulty_gradient(values, loss)

    def _faulty_gradient(self, values: list[Tensor], loss: Tensor) -> str | None:
        tracked = [value if value.requires_grad else None for value in values]
        wanted = [value for value in tracked if value is not None]
        found = iter(torch.autograd.grad(loss, wanted, allow_unused=True))
        gradients = [None if value is None else next(found) for value in tracked]
        if gradients[-1] is not None and not _finite([gradients[-1]]):
            return "the objective, above the last layer"
        for number in reversed(range(len(self.inputs))):
            gradient = gradients[number]
            if gradient is not None and not _finite([gradient]):
                return self._named(number)
        return None

    def _named(self, number: int) -> str:
        return f"layer {number} of {len(self.inputs)}, counted from 0"


def _finite(values: Sequence[Tensor]) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in values)


def where_not_finite(
    network: InvertibleNetwork,
    loss_through: Callable[[LayerTrace], Callable[[Tensor, int], Tensor]],
    x: Tensor,
    step: int,
) -> str | None:
    """Name the first layer that is not finite, in the loss of an iterate or in its gradient.

    Args:
        network: which the loss looks at.
        loss_through: makes the loss, (iterate, step) to a scalar, of what takes the place of the
            network.
        x: the last iterate that was finite.
        step: the step that failed.

    Returns:
        "layer 7 of 16, counted from 0", or another place in words. None where everything is finite:
        then the step of Adam was not.
    """
    trace = LayerTrace(network)
    loss = loss_through(trace)(x.detach().clone().requires_grad_(), step)
    return trace.fault(loss)
