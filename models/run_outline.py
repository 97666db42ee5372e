"""Describe a run before its images are read and its network is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RunOutline:
    """What is known of a run before its images are read and its network is built.

    Attributes:
        n_classes: of the whole run.
        n_tasks: of the whole run.
        network: what the backbone's file says in ``outline(args)``, a
            :class:`pmi_cl.backbones.clip_outline.ClipOutline` or a
            :class:`pmi_cl.backbones.resnet_outline.ResNetOutline`; None where it says nothing.
        image_size: the side of the data set's images in pixels, where it is known.
    """

    n_classes: int
    n_tasks: int
    network: Any = None
    image_size: int | None = None
