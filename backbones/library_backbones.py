"""Offer the convolutional networks of torchvision and timm as backbones, by their names there."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING

from pmi_cl.options import option

if TYPE_CHECKING:
    from pmi_cl.backbones.library_network import LibraryNetwork
    from pmi_cl.backbones.library_outline import LibraryOutline

BACKBONES = {"torchvision:NAME": "of_torchvision", "timm:NAME": "of_timm"}


@dataclass(frozen=True)
class LibraryOptions:
    """The flags of these backbones."""

    stem: str = option(
        "small",
        "lowest layers: small: a first convolution of stride 2 gets stride 1 (3x3 where it was larger) and no pooling "
        "follows it, as is usual for small images; own: as the library has them",
        source="He et al. 2016, section 4.2 (CIFAR)",
        choices=("small", "own"),
        binds="checkpoint",
    )


Options = LibraryOptions


def of_torchvision(args: SimpleNamespace) -> LibraryNetwork:
    """A convolutional network of torchvision, such as torchvision:mobilenet_v2; random weights."""
    return _built(args)


def of_timm(args: SimpleNamespace) -> LibraryNetwork:
    """A convolutional network of timm, such as timm:resnet18d; random weights."""
    return _built(args)


def check(args: SimpleNamespace) -> None:
    """Refuse an unknown name, and a network that cannot be taken apart.

    Raises:
        UserError: says which; or the library is not installed.
    """
    outline(args)


def outline(args: SimpleNamespace) -> LibraryOutline:
    """Return what is known of the network. It is built for this, once for each name.

    Raises:
        UserError: as :func:`check`.
    """
    from pmi_cl.backbones.library_network import outline_of

    return outline_of(args.backbone, args.stem)


def _built(args: SimpleNamespace) -> LibraryNetwork:
    from pmi_cl.backbones.library_network import built

    return built(args.backbone, args.stem)
