"""Shields an inversion from the modes of its caller, and from the history of given tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from pmi_cl.inversion.features.statistics import Moments
from pmi_cl.inversion.parts.colour import Colour


@contextmanager
def own_modes(device: torch.device) -> Iterator[None]:
    """Run the body with gradients, without autocast, and with torch's own defaults.

    The caller may be under ``no_grad``, ``inference_mode`` or autocast, or may have set another
    default type or device. Afterwards all of it is as it was, and so are torch's random numbers.

    Args:
        device: which the body computes on.
    """
    default = torch.get_default_dtype()
    with ExitStack() as modes:
        modes.callback(torch.set_default_dtype, default)
        torch.set_default_dtype(torch.float32)
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.enable_grad())
        for kind in {"cpu", device.type}:
            modes.enter_context(torch.autocast(kind, enabled=False))
        modes.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        if torch.get_default_device().type != "cpu":  # the context itself would slow every call down
            modes.enter_context(torch.device("cpu"))
        yield


def on_its_own(tensor: Tensor) -> Tensor:
    """Return a copy without a graph, in which a gradient may be computed.

    One of ``inference_mode`` may not even be looked at in a backward pass. Call it within
    :func:`own_modes`.
    """
    return tensor.detach().clone()


def moments_on_their_own(given: Sequence[Moments] | None) -> list[Moments] | None:
    """Return the same moments, copied as :func:`on_its_own` does; None for None."""
    if given is None:
        return None
    return [replace(moments, mean=on_its_own(moments.mean), var=on_its_own(moments.var)) for moments in given]


def colour_on_its_own(colour: Colour | None) -> Colour | None:
    """Return the same colour space, copied as :func:`on_its_own` does; None for None."""
    return None if colour is None else Colour(on_its_own(colour.root), on_its_own(colour.inverse))
