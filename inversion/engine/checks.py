"""Refuses settings, targets and networks that do not go together, before the first step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.networks.pieces import run_through
from pmi_cl.inversion.networks.protocol import InvertibleNetwork
from pmi_cl.inversion.objectives import CrossEntropy, DirectionMatch, FeatureMatch, StatisticsMatch

OTHER_PIECES = "pass pieces=[...] and head=... made of layers of torch"


def check_given(
    config: InversionConfig, targets: Tensor | None, labels: Tensor | None, contexts: Tensor | None
) -> None:
    """Check that there are as many targets (n, d), labels (n,) and contexts (n, dq).

    Check, too, that what the settings need is among them.

    Raises:
        ValueError: says what is missing or does not fit.
    """
    if targets is None and labels is None:
        raise ValueError("invert() needs targets (n, d) or labels (n,)")
    _check_tensors(targets, labels)
    if targets is not None and labels is not None and len(targets) != len(labels):
        raise ValueError(f"{len(targets)} targets but {len(labels)} labels: give one label for each target")
    if targets is None and any(isinstance(term, FeatureMatch | DirectionMatch) for term in config.terms):
        raise ValueError("FeatureMatch and DirectionMatch need targets (n, d): give them, or choose terms without")
    if targets is None and config.new_start().needs_targets:
        raise ValueError("PMI inverts target features: give targets, not labels alone")
    if labels is None and any(isinstance(term, CrossEntropy) for term in config.terms):
        raise ValueError("CrossEntropy needs labels (n,): give them, or choose terms without")
    n = len(labels if targets is None else targets)  # type: ignore[arg-type]
    if contexts is not None and len(contexts) != n:
        raise ValueError(f"{n} targets but {len(contexts)} contexts: give one context for each target")


def _check_tensors(targets: Tensor | None, labels: Tensor | None) -> None:
    if targets is not None:
        if not isinstance(targets, Tensor) or not targets.is_floating_point():
            raise ValueError("targets must be a tensor of floating-point features (n, d)")
        if targets.dim() != 2 or len(targets) == 0:
            raise ValueError(f"targets must be one or more features (n, d), not of the shape {tuple(targets.shape)}")
    if labels is not None:
        if not isinstance(labels, Tensor):
            raise ValueError(f"labels must be a tensor (n,), not a {type(labels).__name__}: give torch.tensor(labels)")
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise ValueError(f"labels must be whole class numbers, not {labels.dtype}: give labels.long()")
        if labels.dim() != 1:
            raise ValueError(f"labels must be class numbers (n,), not of the shape {tuple(labels.shape)}")
        if len(labels) == 0 or int(labels.min()) < 0:
            raise ValueError("labels must be one or more class numbers from 0")


def check_call(
    model: nn.Module, image_shape: tuple[int, int, int], pieces: Sequence[nn.Module] | None, head: nn.Module | None
) -> None:
    """Check the network and the image shape that ``invert()`` is given.

    Raises:
        ValueError: an argument has the wrong type, or weights are not finite float32 numbers.
    """
    sizes = tuple(image_shape) if isinstance(image_shape, Sequence) else ()
    if len(sizes) != 3 or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ValueError(f"image_shape={image_shape}: give (channels, height, width)")
    if pieces is None and head is not None:
        raise ValueError("head goes with pieces: give pieces=[...] too, or neither")
    if pieces is None and not isinstance(model, nn.Module):
        raise ValueError(f"model must be a torch.nn.Module, not a {type(model).__name__}")
    if pieces is not None and (len(pieces) == 0 or not all(isinstance(piece, nn.Module) for piece in pieces)):
        raise ValueError("pieces must be one or more modules, bottom to top")
    for part in [model] if pieces is None else [*pieces, *([] if head is None else [head])]:
        _check_weights(part)


def _check_weights(part: nn.Module) -> None:
    for name, weight in part.named_parameters():
        if weight.dtype != torch.float32:
            dtype = str(weight.dtype).removeprefix("torch.")
            raise ValueError(f"the network's weights must be float32, {name} is {dtype}: give it .float()")
        if not bool(torch.isfinite(weight.detach()).all()):
            raise ValueError(f"the network's weights must be finite numbers, {name} is not")


def check_finite(targets: Tensor | None) -> None:
    """Raise ValueError if a target is not finite."""
    if targets is None:
        return
    broken = (~torch.isfinite(targets)).flatten(1).any(dim=1).nonzero().flatten().tolist()
    if broken:
        raise ValueError(
            f"targets must be finite numbers: {len(broken)} of {len(targets)} hold NaN or infinity, "
            f"the first is number {broken[0]}, counted from 0"
        )


def check_network(network: InvertibleNetwork, config: InversionConfig, contexts: Tensor | None) -> None:
    """Check that the network takes what it is given, and computes as the settings say.

    Raises:
        ValueError: the network takes no context, has nothing that a term looks at, has another
            precision or direction than ``config``, or its patches cannot be dropped.
    """
    if contexts is not None and not network.takes_context:
        raise ValueError("the pieces of this network take no context: leave contexts out")
    if network.head is None and any(isinstance(term, CrossEntropy) for term in config.terms):
        raise ValueError(
            "CrossEntropy needs a network with a classifier on top: "
            "give pieces=[...] and head=..., or choose terms without"
        )
    _check_made_alike(network, config)
    _check_statistics(network, config)
    if config.pruning is not None:
        _check_pruning(network, config)


def check_pieces(pieces: Sequence[nn.Module], head: nn.Module | None, images: Tensor) -> None:
    """Check that images go through the pieces and the head.

    Raises:
        ValueError: the pieces do not take the images, or do not end in what the head takes.
    """
    try:
        run_through([*pieces, *([] if head is None else [head])], images)
    except Exception as error:  # whatever the user's module raises
        taken = f"images of the shape {tuple(images.shape[1:])} do not go through pieces and head ({error})"
        raise ValueError(f"{taken}: look at image_shape, and at the order of the pieces") from error


def check_copy(network: InvertibleNetwork, pieces: Sequence[nn.Module], images: Tensor) -> None:
    """Check that the frozen copy computes what the pieces compute.

    Raises:
        ValueError: it does not, because tracing misses some arithmetic that is done in place; or it
            cannot be run; or no gradient goes through it.
    """
    expected = run_through(pieces, images)
    try:
        found = network(images.clone().requires_grad_())[0]
    except Exception as error:  # whatever the user's module raises
        why = str(error).strip().partition("\n")[0]
        raise ValueError(f"the frozen copy of the network cannot be run ({why}): {OTHER_PIECES}") from error
    if not found.requires_grad:
        raise ValueError(f"no gradient goes through the network from its features to the images: {OTHER_PIECES}")
    if not torch.allclose(found, expected, rtol=1e-3, atol=1e-4):
        raise ValueError(
            "the frozen copy of the network differs from it; its forward changes tensors in place: "
            "write x = x + y, not x += y"
        )


def check_sizes(network: InvertibleNetwork, images: Tensor, targets: Tensor | None, labels: Tensor | None) -> None:
    """Check that targets (n, d) and labels (n,) fit what the network gives for ``images``.

    Raises:
        ValueError: the network does not end in features (n, d), the targets have another length, or
            a label is none of its classes.
    """
    with torch.no_grad():
        features = network(images)[0]
    if features.dim() != 2 and (targets is not None or network.head is not None):
        rest = ", ".join(map(str, features.shape[1:]))
        raise ValueError(
            f"the pieces must end in features (n, d), not in the shape (n, {rest}): let the last end with nn.Flatten()"
        )
    if targets is not None and targets.shape[1] != features.shape[1]:
        raise ValueError(f"the targets have {targets.shape[1]} values each, the network's features {features.shape[1]}")
    if labels is None or network.head is None:
        return
    with torch.no_grad():
        classes = network.head(features).shape[1]
    if int(labels.max()) >= classes:
        raise ValueError(
            f"label {int(labels.max())} is none of the network's {classes} classes, which are counted from 0"
        )


def _check_statistics(network: InvertibleNetwork, config: InversionConfig) -> None:
    """Raise ValueError if StatisticsMatch would always be 0."""
    wanted = any(isinstance(term, StatisticsMatch) and term.weight for term in config.terms)
    if wanted and not network.compares_statistics and not network.statistics_optional:
        raise ValueError(
            "StatisticsMatch needs BatchNorms with running statistics, and the network has none: "
            "choose terms without it"
        )


def _check_made_alike(network: InvertibleNetwork, config: InversionConfig) -> None:
    """Raise ValueError if the network was made for another precision or direction."""
    name = type(network).__name__
    if config.precision != network.dtype:
        raise ValueError(
            f"the configuration's precision is {config.precision}, the {name}'s {network.dtype}: give both the same"
        )
    if config.direction != network.direction:
        raise ValueError(
            f"the configuration's direction is {config.direction}, the {name}'s {network.direction}: give both the same"
        )


def _check_pruning(network: InvertibleNetwork, config: InversionConfig) -> None:
    """Raise ValueError if patches cannot be dropped."""
    if not network.drops_patches:
        raise ValueError("only a TokenNetwork has patches to drop")
    if network.axis == "token" and network.compares_statistics:
        raise ValueError("statistics by position need all patches: measure them by channel")
    if config.transforms.roll or config.transforms.flip:
        raise ValueError("patches that are dropped must stay where they are: no roll, no flip")
    if config.keep_best:
        raise ValueError("losses before and after patches are dropped do not compare: keep_best is not possible")
