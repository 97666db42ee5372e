"""Refuse a network that a method cannot use: images of another size, or no statistics."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import nn

from pmi_cl.backbones.library_outline import LibraryOutline
from pmi_cl.errors import UserError
from pmi_cl.inversion.networks.folding import keeps_statistics
from pmi_cl.registry.catalogue import INSTALLED


def check_outline(method: Any, args: SimpleNamespace, network: Any, side: int | None) -> None:
    """Refuse a network of a library before it is built for the run.

    Args:
        method: the class of the method.
        args: the arguments of the run.
        network: the outline of any network.
        side: of the data set's images in pixels, where it is known.

    Raises:
        UserError: it does not take the images, or has no BatchNorm that the method needs.
    """
    if isinstance(network, LibraryOutline):
        if side is not None:
            network.input_shapes(side)
        if needs_statistics(method, args) and not network.keeps_statistics:
            raise _without_statistics(method, args, network.name)


def check_network(method: Any, args: SimpleNamespace, network: nn.Module) -> None:
    """Refuse a network that lacks the statistics that the method needs. Raise UserError."""
    if needs_statistics(method, args) and not keeps_statistics(network):
        raise _without_statistics(method, args, "the backbone")


def needs_statistics(method: Any, args: SimpleNamespace) -> bool:
    """Return whether a method, with these arguments, needs the statistics of BatchNorms."""
    weight = method.STATISTICS_WEIGHT
    return bool(method.NEEDS_STATISTICS and (not weight or getattr(args, weight)))


def _without_statistics(method: Any, args: SimpleNamespace, backbone: str) -> UserError:
    """Return the error for a network without running statistics. It names methods without them."""
    weight = method.STATISTICS_WEIGHT
    user = f"--{weight} {getattr(args, weight):g} weighs" if weight else f"{method.NAME} compares with"
    cure = f"give --{weight} 0 or another --backbone" if weight else "give another --backbone"
    entries = [e for e in INSTALLED.entries("model") if e.constants.get("BACKBONE_KIND", "resnet") == "resnet"]
    others = ", ".join(entry.name for entry in entries if not entry.constants.get("NEEDS_STATISTICS", False))
    return UserError(
        f"{user} the running statistics of BatchNorms, and {backbone} has none: {cure}, or take a method "
        f"that needs none: {others}"
    )
