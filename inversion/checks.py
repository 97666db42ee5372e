"""What an inversion refuses before its first step: settings, targets and a network that do not go together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.frozen import FrozenNetwork
from pmi_cl.inversion.objectives import DirectionMatch, FeatureMatch
from pmi_cl.inversion.pieces import in_evaluation_mode
from pmi_cl.inversion.sparse import check_pruning
from pmi_cl.inversion.token_network import Invertible, TokenNetwork


def check_given(config: InversionConfig, targets: Tensor | None, labels: Tensor | None, contexts: Tensor | None) -> None:
    """Targets (n, d), labels (n,) and contexts (n, dq) are as many, and what the settings need is among them.

    Raises:
        ValueError: says what is missing or does not fit.
    """
    if targets is None and labels is None:
        raise ValueError("invert() needs targets (n, d) or labels (n,)")
    if targets is not None and labels is not None and len(targets) != len(labels):
        raise ValueError(f"{len(targets)} targets but {len(labels)} labels: give one label for each target")
    if targets is None and any(isinstance(term, FeatureMatch | DirectionMatch) for term in config.terms):
        raise ValueError("FeatureMatch and DirectionMatch need targets (n, d): give them, or choose terms without")
    if targets is None and config.new_start().needs_targets:
        raise ValueError("PMI inverts target features: give targets, not labels alone")
    if targets is not None and (targets.dim() != 2 or len(targets) == 0):
        raise ValueError(f"targets must be one or more features (n, d), not of the shape {tuple(targets.shape)}")
    if labels is not None and (len(labels) == 0 or int(labels.min()) < 0):
        raise ValueError("labels must be one or more class numbers from 0")
    n = len(labels if targets is None else targets)  # type: ignore[arg-type]
    if contexts is not None and len(contexts) != n:
        raise ValueError(f"{n} targets but {len(contexts)} contexts: give one context for each target")


def check_network(network: Invertible, config: InversionConfig, contexts: Tensor | None) -> None:
    """The network takes what it is given, and computes as the settings say.

    Raises:
        ValueError: it takes no context, has another precision or direction than ``config``, or its patches cannot be dropped.
    """
    if contexts is not None and not network.takes_context:
        raise ValueError("the pieces of this network take no context: leave contexts out")
    if isinstance(network, TokenNetwork):
        _check_made_alike(network, config)
    if config.pruning is not None:
        check_pruning(network, config)


def check_copy(network: FrozenNetwork, pieces: Sequence[nn.Module], images: Tensor) -> None:
    """Raises ValueError where the frozen copy does not compute what the pieces compute: tracing misses some in-place arithmetic."""
    with torch.no_grad(), in_evaluation_mode(pieces):
        expected = images
        for piece in pieces:
            expected = piece(expected)
        found = network(images)[0]
    if not torch.allclose(found, expected, rtol=1e-3, atol=1e-4):
        raise ValueError(
            "the frozen copy of the network differs from it; its forward changes tensors in place: write x = x + y, not x += y"
        )


def check_sizes(network: FrozenNetwork, images: Tensor, targets: Tensor | None, labels: Tensor | None) -> None:
    """Targets (n, d) and labels (n,) are among what the network gives for ``images``. Raises ValueError."""
    with torch.no_grad():
        features = network(images)[0]
    if targets is not None and targets.shape[1] != features.shape[1]:
        raise ValueError(f"the targets have {targets.shape[1]} values each, the network's features {features.shape[1]}")
    if labels is None or network.head is None:
        return
    with torch.no_grad():
        classes = network.head(features).shape[1]
    if int(labels.max()) >= classes:
        raise ValueError(f"label {int(labels.max())} is none of the network's {classes} classes, which are counted from 0")


def _check_made_alike(network: TokenNetwork, config: InversionConfig) -> None:
    if config.precision != network.dtype:
        raise ValueError(f"the configuration's precision is {config.precision}, the TokenNetwork's {network.dtype}: give both the same")
    if config.direction != network.direction:
        raise ValueError(f"the configuration's direction is {config.direction}, the TokenNetwork's {network.direction}: give both the same")
