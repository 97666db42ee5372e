"""Cuts a network into pieces that are inverted one by one, and checks that they compose to it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from pmi_cl.inversion.features.statistics import Moments, batch_moments, pool_moments
from pmi_cl.inversion.networks.published_networks import timm_cut, transformer_cut

Cut = tuple[list[nn.Module], nn.Module | None]  # the pieces, bottom to top, and the classifier


@contextmanager
def in_evaluation_mode(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Put modules into evaluation mode; afterwards put every part back into the mode it was in."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    try:
        for part, _ in modes:
            part.training = False
        yield
    finally:
        for part, training in modes:
            part.training = training


def device_of(modules: Iterable[nn.Module]) -> torch.device:
    """Return the device of the first parameter; the CPU where there is none at all.

    The first module may have none, as one that normalises images.
    """
    return next((weight.device for module in modules for weight in module.parameters()), torch.device("cpu"))


@torch.no_grad()
def run_through(layers: Sequence[nn.Module], images: Tensor) -> Tensor:
    """Run layers in evaluation mode on a copy of the images, which a layer in place may change."""
    value = images.clone()
    with in_evaluation_mode(layers):
        for layer in layers:
            value = layer(value)
    return value


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the network inside torch's own wrappers: ``torch.compile``, data parallelism."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def split_network(model: nn.Module, example: Tensor) -> Cut:
    """Return the pieces of a network, bottom to top, and its classifier.

    A network of this project says what it is made of (``pieces()`` and ``head``). Any other is cut
    along its children:

    * What comes before the first container of blocks is the stem; each block is a piece.
    * Plain layers make one piece with the convolution before them.
    * The last piece takes what comes after the blocks; a final ``nn.Linear`` is the classifier.
    * A ReLU after the stem or after the blocks, an average over positions and a ``Flatten`` are put
      in where the forward of the network does them without a module.
    * A vision transformer of torchvision is cut into tokens, blocks and the class token. Another
      network of timm is one piece below its classifier.

    The cut is accepted only if it computes what the network computes.

    Args:
        model: the network.
        example: an input (b, c, h, w) that it accepts; random, because many networks agree on
            zeros.

    Raises:
        ValueError: the network does not take the example; or its children in order are not the
            network: then pass ``pieces`` yourself.
    """
    model = unwrapped(model)
    own = getattr(model, "pieces", None)
    if callable(own):
        return list(own()), model.head  # type: ignore[return-value]
    expected = _logits(model, example)
    faults: list[str] = []
    for pieces, head in _cuts(model):
        fault = _difference(pieces, head, example, expected)
        if fault is None:
            return pieces, head
        faults.append(fault)
    why = f" ({faults[0]})" if faults and faults[0] else ""  # that of the most likely cut
    raise ValueError(f"{type(model).__name__} is not its children in order{why}; pass pieces=[...] and head=...")


def _difference(pieces: list[nn.Module], head: nn.Module | None, example: Tensor, expected: Tensor) -> str | None:
    """Compare what the pieces give with what is expected.

    Returns:
        None where they agree; why the pieces cannot be run, or "" where they give something else.
    """
    try:
        value = run_through(pieces if head is None else [*pieces, head], example)
        same = value.shape == expected.shape and torch.allclose(value, expected, rtol=1e-4, atol=1e-5)
    except Exception as error:  # whatever the user's module raises
        return _first_line(error)
    return None if same else ""


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _logits(model: nn.Module, example: Tensor) -> Tensor:
    """Return the output of the network. Raise ValueError if it is not one finite tensor."""
    shape, name = tuple(example.shape[1:]), type(model).__name__
    try:
        found = run_through([model], example)
    except Exception as error:  # whatever the user's module raises
        refused = f"{name} does not take images of the shape {shape} ({_first_line(error)})"
        raise ValueError(f"{refused}: give image_shape=... as it was trained") from error
    if not isinstance(found, Tensor):
        raise ValueError(f"{name} gives no tensor but a {type(found).__name__}; pass pieces=[...] and head=...")
    if not bool(torch.isfinite(found).all()):
        raise ValueError(f"what {name} gives for random images of the shape {shape} is not finite: look at its weights")
    return found


def _cuts(model: nn.Module) -> Iterator[Cut]:
    """Yield the ways to cut a network, the most likely first.

    They are with and without a ReLU and a pooling that its forward may do without a module.
    """
    if (transformer := transformer_cut(model)) is not None:
        yield transformer
    children = list(model.children())
    while len(children) == 1 and isinstance(children[0], nn.Sequential):  # a network in a wrapper
        children = list(children[0])
    for below, classifier, head in _classifiers(children):
        yield from _cuts_below(below, classifier, head)
    if len(children) == 1:  # a network of another kind in a wrapper
        yield from _cuts(children[0])
    if (whole := timm_cut(model)) is not None:
        yield whole


def _cuts_below(children: list[nn.Module], classifier: list[nn.Module], head: nn.Module | None) -> Iterator[Cut]:
    """Yield the ways to cut the children below a classifier, whose last layer is the ``head``."""
    containers = [number for number, child in enumerate(children) if isinstance(child, nn.Sequential)]
    first, last = (containers[0], containers[-1]) if containers else (len(children), len(children) - 1)
    stem, after = children[:first], children[last + 1 :]
    blocks = _grouped(
        child for part in children[first : last + 1] for child in (part if isinstance(part, nn.Sequential) else [part])
    )
    relu = bool(stem and blocks) and not any(isinstance(m, nn.ReLU) for m in stem)
    for pooled in _tops(after, classifier, head is not None, bool(blocks)):
        for with_relu in (True, False) if relu else (False,):
            low = [nn.Sequential(*stem, *([nn.ReLU()] if with_relu else []))] if stem and blocks else []
            top = nn.Sequential(*([] if blocks else stem), *blocks[-1:], *pooled)
            yield [*low, *blocks[:-1], top], head


def _tops(after: list[nn.Module], classifier: list[nn.Module], headed: bool, blocks: bool) -> Iterator[list[nn.Module]]:
    """Yield what may stand between the blocks and the last layer of the classifier.

    Args:
        after: the children behind the blocks.
        classifier: its layers below the last.
        headed: whether there is a classifier.
        blocks: whether there are blocks.
    """
    between: list[list[nn.Module]] = [after]
    if headed and blocks and not after:
        between = [[nn.AdaptiveAvgPool2d(1)], [], [nn.ReLU(), nn.AdaptiveAvgPool2d(1)]]
    for flat in ([nn.Flatten()], []) if headed else ([],):  # a classifier of several layers may flatten itself
        for layers in between:
            yield [*layers, *flat, *classifier]


def _classifiers(
    children: list[nn.Module],
) -> Iterator[tuple[list[nn.Module], list[nn.Module], nn.Module | None]]:
    """Yield the ways to split off the classifier, the most likely first.

    They have the children below it, its layers below the last, and its last layer: None where that
    is no ``nn.Linear``.
    """
    if children and isinstance(children[-1], nn.Linear):
        yield children[:-1], [], children[-1]
        return
    last = [layer for layer in children[-1].children() if not isinstance(layer, nn.Identity)] if children else []
    if last and isinstance(last[-1], nn.Linear) and not any(isinstance(m, _ConvNd) for m in children[-1].modules()):
        yield children[:-1], last[:-1], last[-1]
    yield children, [], None


def _grouped(blocks: Iterable[nn.Module]) -> list[nn.Module]:
    """Group blocks to pieces.

    A plain layer of torch is no block: it joins the piece before it, unless it is a convolution.
    """
    groups: list[list[nn.Module]] = []
    for block in blocks:
        plain = type(block).__module__.startswith("torch.nn.") and next(block.children(), None) is None
        if groups and plain and not isinstance(block, _ConvNd):
            groups[-1].append(block)
        else:
            groups.append([block])
    return [group[0] if len(group) == 1 else nn.Sequential(*group) for group in groups]


def measure_input_moments(pieces: Sequence[nn.Module], batches: Iterable[Tensor]) -> list[Moments]:
    """Return the moments of the input of every piece over real images; entry 0 is of the image.

    Batches are pooled exactly. Two vectors are stored for each piece, and no image. The pieces run
    in evaluation mode and are left in the mode they were in. Each batch is summed in float32 and
    the batches are pooled in float64, whereas :func:`measure_token_moments` sums in float64
    throughout: the last bits differ, and recorded results depend on them.

    Args:
        pieces: bottom to top.
        batches: images (b, c, h, w) each.
    """
    parts: list[list[Moments]] = [[] for _ in pieces]
    with torch.no_grad(), in_evaluation_mode(pieces):
        for value in batches:
            for number, piece in enumerate(pieces):
                parts[number].append(batch_moments(value))
                value = piece(value)
    return [pool_moments(part) for part in parts]


def frozen_copy(module: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode whose parameters take no gradient.

    Tensors of ``inference_mode``, which no backward pass may look at, become usual ones.
    """
    copied = copy.deepcopy(module).eval().requires_grad_(False)
    for part in copied.modules():
        for name, weight in part.named_parameters(recurse=False):
            if weight.is_inference():
                setattr(part, name, nn.Parameter(weight.detach().clone(), requires_grad=False))
        for name, buffer in part.named_buffers(recurse=False):
            if buffer.is_inference():
                setattr(part, name, buffer.clone())
    return copied


def cast_floats(network: nn.Module, dtype_of: Callable[[nn.Module], torch.dtype]) -> None:
    """Cast the floating-point parameters and buffers of every module in place.

    Args:
        network: whose modules are cast.
        dtype_of: maps a module to the type of what belongs to it.
    """
    for module in network.modules():
        for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(dtype_of(module))
