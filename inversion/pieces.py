"""Takes a network apart into the pieces that are inverted one by one, and proves that they make up the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pmi_cl.inversion.statistics import Moments, batch_moments, pool_moments


@contextmanager
def in_evaluation_mode(modules: Iterable[nn.Module]) -> Iterator[None]:
    """The modules in evaluation mode; afterwards every one of their parts is again in the mode it was in."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    try:
        for part, _ in modes:
            part.training = False
        yield
    finally:
        for part, training in modes:
            part.training = training


def device_of(modules: Iterable[nn.Module]) -> torch.device:
    """That of the first parameter; the first module may have none, as one that normalises images."""
    return next(weight.device for module in modules for weight in module.parameters())


def split_network(model: nn.Module, example: Tensor) -> tuple[list[nn.Module], nn.Module | None]:
    """The pieces of a network, bottom to top, and its classifier.

    A network of ours says what it is made of (``pieces()`` and ``head``). Any other is cut along its children: what comes before the first
    container of blocks is the stem, each block is a piece, the last piece takes the pooling, and a final ``nn.Linear`` is the classifier.
    The cut is accepted only if it computes what the network computes.

    Args:
        example: an input (b, c, h, w) that the network accepts; random, for on zeros many networks are alike.

    Raises:
        ValueError: the children in order are not the network; then pass ``pieces`` yourself.
    """
    own = getattr(model, "pieces", None)
    if callable(own):
        return list(own()), model.head  # type: ignore[return-value]
    pieces, head = _cut(model)
    try:
        with torch.no_grad(), in_evaluation_mode([model]):
            value = example
            for piece in pieces:
                value = piece(value)
            value = value if head is None else head(value)
            expected = model(example)
        same = value.shape == expected.shape and torch.allclose(value, expected, rtol=1e-4, atol=1e-5)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{type(model).__name__} is not its children in order ({error}); pass pieces=[...] and head=...") from error
    if not same:
        raise ValueError(f"{type(model).__name__} is not its children in order; pass pieces=[...] and head=...")
    return pieces, head


def _cut(model: nn.Module) -> tuple[list[nn.Module], nn.Module | None]:
    children = [child for _, child in model.named_children()]
    head = children.pop() if children and isinstance(children[-1], nn.Linear) else None
    stem: list[nn.Module] = []
    blocks: list[nn.Module] = []
    after: list[nn.Module] = []
    for child in children:
        if isinstance(child, nn.Sequential):
            blocks.extend(child)
        else:
            (after if blocks else stem).append(child)
    pooling = after or ([nn.AdaptiveAvgPool2d(1)] if head is not None and blocks else [])
    top = [*blocks[-1:], *pooling, *([nn.Flatten()] if head is not None else [])]
    relu = [nn.ReLU()] if stem and not any(isinstance(m, nn.ReLU) for m in stem) and blocks else []
    return [nn.Sequential(*stem, *relu), *blocks[:-1], nn.Sequential(*top)] if blocks else [nn.Sequential(*stem, *top)], head


def measure_input_moments(pieces: Sequence[nn.Module], batches: Iterable[Tensor]) -> list[Moments]:
    """The moments of every piece's input over real images, pooled exactly over the batches; entry 0 is the image's.

    Two vectors a piece are stored; no image is. The pieces run in evaluation mode and are left in the mode they were in. Each batch is
    summed in float32 and the batches pooled in float64, where :func:`measure_token_moments` sums in float64 throughout: the last bits
    differ, and recorded results depend on them.
    """
    parts: list[list[Moments]] = [[] for _ in pieces]
    with torch.no_grad(), in_evaluation_mode(pieces):
        for value in batches:
            for number, piece in enumerate(pieces):
                parts[number].append(batch_moments(value))
                value = piece(value)
    return [pool_moments(part) for part in parts]
