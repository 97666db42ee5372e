"""Count the bytes of what a method keeps."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

KINDS = ("real images", "synthetic images", "statistics", "networks")


def bytes_of(*things: object) -> int:
    """Return the bytes of all tensors in the things, views and shared tensors counted in full.

    Args:
        things: a tensor; a module (its parameters and buffers, as its ``state_dict`` has them);
            what has a ``state()`` (that); a mapping or a sequence (its items). Anything else, such
            as None or a number, counts nothing.
    """
    return sum(map(_bytes, things))


def _bytes(thing: object) -> int:
    if isinstance(thing, Tensor):
        return thing.numel() * thing.element_size()
    if isinstance(thing, nn.Module):
        return bytes_of(thing.state_dict())
    if isinstance(thing, Mapping):
        return bytes_of(*thing.values())
    if isinstance(thing, list | tuple):
        return bytes_of(*thing)
    state = getattr(thing, "state", None)
    return bytes_of(state()) if callable(state) else 0
