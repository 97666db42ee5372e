"""Counts the floating-point operations of a call, and of a step of each piece of a network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pmi_cl.inversion.networks.protocol import InvertibleNetwork


def operations(call: Callable[[], object]) -> int:
    """Count the floating-point operations of a call, by the counter of torch."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


@torch.no_grad()
def input_shapes(network: InvertibleNetwork, example: Tensor, context: Tensor | None = None) -> list[tuple[int, ...]]:
    """Return the shape of the input of every piece, without the batch.

    Args:
        network: the network.
        example: (b, ...), an input of the lowest piece.
        context: (b, dq), for a network whose pieces take one.
    """
    shapes, value = [], example
    for layer in range(len(network.pieces)):
        shapes.append(tuple(value.shape[1:]))
        value = network.run(value, layer, layer + 1, context)[0]
    return shapes


def layer_costs(
    network: InvertibleNetwork, shapes: list[tuple[int, ...]], context: Tensor | None = None
) -> list[float]:
    """Return the cost of a step of each piece, as a fraction of that of the whole network.

    A step is one forward and one backward pass to the input. It is counted on one sample of zeros.

    Args:
        network: the network.
        shapes: those of :func:`input_shapes`.
        context: (1, dq), for a network whose pieces take one.
    """

    def step(first: int, last: int) -> Callable[[], None]:
        value = torch.zeros(1, *shapes[first], device=network.device, requires_grad=True)
        return lambda: network.run(value, first, last, context)[0].sum().backward()

    whole = operations(step(0, len(shapes)))
    return [operations(step(layer, layer + 1)) / whole for layer in range(len(shapes))]
